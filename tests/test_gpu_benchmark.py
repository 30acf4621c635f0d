"""The GPU benchmark runs on available devices with a small model, and reports failed systems."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness_plugins.engines.processes import _is_alive
from tests.benchmarks import gpu
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ("echo '{\"found\": 1}'; sleep 50 &", {"found": 1}),
        ("echo 'ValueError: no room' >&2; echo bye >&2; exit 3", {"failed": "ended with 3: ValueError: no room"}),
    ],
)
def test_a_system_is_over_when_its_process_ends(tmp_path: Path, monkeypatch, script, result):
    """vLLM's engine core outlived lm-eval's process, and kept its output open and the memory of the GPU."""
    file = tmp_path / "python"
    file.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/session\n{script}\n", "utf-8")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))
    begun = time.monotonic()
    outcome = gpu.run_alone()
    assert outcome.pop("log", "").count("\n") == 2 * ("failed" in result)
    assert outcome == result
    assert time.monotonic() - begun < 40
    assert not _is_alive(int((tmp_path / "session").read_text()))


@pytest.mark.install
def test_each_system_is_reported_even_if_one_fails(tmp_path: Path):
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--tiny", "--keep", str(tmp_path)]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "cwd": REPOSITORY}
    done = subprocess.run(command, check=True, **settings)
    lines = done.stdout.splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith(("| arc", "| mmlu"))]
    assert len(rows) == 2
    for row in rows:
        assert float(row[3]) > 0  # lm-eval hf
        assert float(row[5]) > 0  # harness transformers
        assert float(row[7]) < 1e-3  # nats
    has_vllm = find_spec("vllm") is not None
    assert any(line.startswith("- lm-eval vllm: ") for line in lines) == (not has_vllm)
    again = subprocess.run([*command, "--system", "harness transformers"], check=True, **settings)
    assert "harness transformers:" not in again.stderr  # it is kept


@pytest.mark.install
def test_a_sweep_is_measured_one_system_per_call(tmp_path: Path):
    """What a call leaves behind is not measured again: neither the checkpoints, nor a store that is already filled."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--tiny", "--sweep", "--keep", str(tmp_path)]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "cwd": REPOSITORY}
    done = subprocess.run([*command, "--system", "harness transformers"], check=True, **settings)
    (row,) = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| 3 ")]
    assert float(row[5]) > 1  # seconds, with the start of a process
    assert "- lm-eval vllm: not measured" in done.stdout
    shutil.rmtree(tmp_path / "sweep")
    again = subprocess.run([*command, "--system", "harness transformers"], check=True, **settings)
    assert row in [line.split("|")[1:-1] for line in again.stdout.splitlines()]
    assert not (tmp_path / "sweep").exists()
