"""The wheel, built from the repository, works in a new environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.installation import run

pytestmark = pytest.mark.install


def test_it_is_the_wheel_that_runs(python: Path, tmp_path: Path):
    where = run(
        python, tmp_path, "python", "-c", "import harness, harness_plugins, harness_tasks; print(harness.__file__)"
    )
    assert where.startswith(str(python.parent.parent))


def test_plugins_tasks_and_families_are_in_it(python: Path, tmp_path: Path):
    assert "error" in run(python, tmp_path, "harness", "plugins")
    assert run(python, tmp_path, "harness", "ls", "tasks").count("| nano_") == 10
    assert "| aster  | w32l2, w64l2, w96l3, w128l4, w192l5 | 17 " in run(python, tmp_path, "harness", "ls", "families")


def test_it_evaluates_and_compares(python: Path, tmp_path: Path):
    run(python, tmp_path, "harness", "eval", "aster:w32l2", "-t", "nano_job,nano_text", "--limit", "10", "-o", "s")
    assert "| nano_job  | acc           | 0." in run(python, tmp_path, "harness", "compare", "s")


def test_the_plain_wheel_is_small_and_the_weights_are_in_another(python: Path):
    sizes = {path.name.split("-")[0]: path.stat().st_size / 1e6 for path in python.parents[2].glob("*.whl")}
    assert sizes["scaling_harness"] < 5
    assert sizes["scaling_harness_nano"] > 5


WITHOUT = """
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "harness_nano" else find(name, *rest)
from harness.cli import main
main(["eval", "aster", "-t", "nano_job", "-o", "s"])
"""


def test_without_the_weights_their_families_are_missing_and_the_message_names_the_distribution(python: Path, tmp_path):
    done = subprocess.run([str(python), "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no family 'aster'" in done.stderr
    assert "scaling-harness-nano" in done.stderr
