"""Dependencies: versions, licences, and no network unless requested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.store.points import PointStore
from harness.tables import read_csv
from tests.supply import LICENCES, TESTS_ONLY, VERSIONS, closure, extras, found

INSTALLED = ("", "hub", "lm-eval", "report", "transformers")  # what make test installs; vllm and ray are large

SHUT = """
import sys
def refuse(event, arguments):
    if event.startswith("socket.") and event not in ("socket.gethostname", "socket.__new__"):
        raise RuntimeError(f"the network was asked: {event} {arguments}")
    if event == "socket.__new__" and getattr(arguments[1], "name", arguments[1]) in ("AF_INET", "AF_INET6", 2, 10):
        raise RuntimeError(f"a socket was made: {arguments}")
sys.addaudithook(refuse)
"""


def test_every_package_of_the_tests_has_an_exact_version():
    pinned = {line.split("==")[0] for line in VERSIONS.read_text().splitlines() if "==" in line}
    assert {name for name in closure(extras()[TESTS_ONLY]) if found(name)} <= pinned


def test_every_package_that_the_wheel_pulls_is_in_the_list_of_licences():
    columns, rows = read_csv(LICENCES / "licences.csv")
    table = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    pulled = {name for extra in INSTALLED for name in closure(extras()[extra])}
    assert {name for name in pulled if found(name)} <= set(table)
    assert all(row["licence"] not in ("", "unknown") for row in table.values())
    always = {row["licence"] for row in table.values() if row["extra"] == "always"}
    assert not any("GPL" in licence.upper() for licence in always), always


def run_shut(folder: Path, *commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands of the harness in a process that cannot make a socket of the network."""
    lines = [SHUT, "from harness.cli import main"]
    lines += [f"main({command!r}, standalone_mode=False)" for command in commands]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HARNESS_PLUGINS": ""}
    environment.pop("HF_HUB_OFFLINE", None)
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_shut_process_refuses_the_network(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", SHUT + "\nimport socket\nsocket.create_connection(('127.0.0.1', 9))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "RuntimeError" in done.stderr


@pytest.mark.install
def test_nothing_asks_the_network_at_import_or_in_eval_fit_compare_and_report(tmp_path: Path, nano_store: PointStore):
    store = str(nano_store.path)
    done = run_shut(
        tmp_path,
        ["ls", "tasks"],
        ["eval", "aster:w32l2@100", "-t", "nano_job", "--limit", "3", "-o", "mine"],
        ["fit", store, "--law", "sigmoid", "--task", "nano_addition", "-o", "fits.json"],
        ["predict", "fits.json", "--params", "1e6", "--tokens", "1e9"],
        ["compare", store, "-o", "tables"],
        ["report", store, "-o", "report.html"],
        ["check", store],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "report.html").stat().st_size > 10**5
