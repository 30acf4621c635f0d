"""Long tests: kills at random moments, and the whole demo."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import harness
from harness.tables import differences, read_csv
from tests.conftest import REPOSITORY, run_together

pytestmark = pytest.mark.soak
KEYS = ["family", "size", "step", "task", "doc_id", "choice"]


def command(store: Path, *families: str, limit: int) -> list[str]:
    tasks = "nano_addition,nano_job,nano_ordering,nano_text"
    return [sys.executable, "-m", "harness", "eval", *families, "-t", tasks, "--limit", str(limit), "-o", str(store)]


def test_a_run_killed_twenty_times_ends_as_an_undisturbed_one(tmp_path: Path):
    """kill -9 at random moments, from start-up to the middle of a cell; then resumed to the end."""
    families, limit = ("aster:w32l2,w64l2", "birch:w96l3"), 200
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    started = time.monotonic()
    subprocess.run(command(calm, *families, limit=limit), check=True, capture_output=True)
    lasted = time.monotonic() - started
    rng, kills = random.Random(0), 0
    while kills < 20:
        process = subprocess.Popen(
            command(killed, *families, limit=limit), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=lasted * rng.uniform(0.3, 0.75))
        except subprocess.TimeoutExpired:
            kills += 1
            process.send_signal(signal.SIGKILL)
            process.wait()
            continue
        if process.returncode == 0 and kills < 20:  # all cells were there: take some away and go on
            for file in rng.sample(sorted((killed / "records").glob("*.parquet")), 20):
                file.unlink()
    subprocess.run(command(killed, *families, limit=limit), check=True, capture_output=True)
    frames = [harness.open_store(path).scores().sort_values(KEYS, ignore_index=True) for path in (calm, killed)]
    pd.testing.assert_frame_equal(frames[0][KEYS], frames[1][KEYS])
    assert (frames[0]["logprob"] - frames[1]["logprob"]).abs().max() <= 1e-6
    assert (frames[0]["is_greedy"] == frames[1]["is_greedy"]).all()


def test_samples_of_runs_that_were_killed_are_those_of_an_undisturbed_one(tmp_path: Path):
    """kill -9 whenever another part is there; what it holds is not drawn again, and the estimates are the same."""
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    asked = "-t nano_addition_gen --sampler pass_until --successes 3 --max-samples 150 --temperature 1 --limit 100 -o"
    often = "from unittest import mock; mock.patch('harness.evaluation.sample_runs.PART_SECONDS', 1).start(); "
    often += "from harness.cli import main; main()"
    drawing = [sys.executable, "-c", often, "eval", "aster:w32l2@1600", *asked.split()]
    subprocess.run([*drawing, str(calm)], check=True, capture_output=True)
    parts: set[Path] = set()
    for _ in range(4):
        process = subprocess.Popen([*drawing, str(killed)], stderr=subprocess.DEVNULL)
        while process.poll() is None and parts == (parts := parts | set(killed.glob("samples/*/*.parquet"))):
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(killed.glob("samples/*/seal.json"))
    before = {path: path.stat().st_mtime_ns for path in parts}
    subprocess.run([*drawing, str(killed)], check=True, capture_output=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    stores = [harness.open_store(path) for path in (calm, killed)]
    columns = ["sample_seed", "text", "outcome"]
    drawn = [store.samples().set_index(["doc_id", "sample"])[columns] for store in stores]
    both = drawn[0].index.intersection(drawn[1].index)  # batches grow otherwise; what is beyond does not count
    assert len(both) > 0.95 * len(drawn[0])
    pd.testing.assert_frame_equal(drawn[0].loc[both], drawn[1].loc[both])
    points = [store.points().drop(columns=["drawn"], errors="ignore") for store in stores]
    pd.testing.assert_frame_equal(*points)


def test_the_demo_gives_the_tables_that_are_committed(tmp_path: Path):
    """`make demo` without its installation: what it evaluates, fits and compares."""
    text = (REPOSITORY / "Makefile").read_text()
    tasks = next(line.split("= ")[1] for line in text.splitlines() if line.startswith("TASKS = "))
    store = tmp_path / "store"
    harness.evaluate(["aster", "birch", "cedar"], tasks.split(","), store, limit=400).check()
    for laws, folder in ((None, "demo"), (("two_step", "sigmoid"), "demo/laws")):
        for table in harness.compare(harness.open_store(store), laws=laws):
            assert list(differences(table, read_csv(REPOSITORY / "results" / folder / f"{table.name}.csv"))) == []


def test_four_processes_on_one_store(tmp_path: Path):
    """Started at once and at random; together they do every cell once."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HARNESS_PROGRESS_SECONDS": "0"}
    arguments = command(tmp_path / "s", "aster:w32l2,w64l2", limit=100)
    late = ["sh", "-c", 'sleep "$0"; exec "$@"']
    waits = [random.Random(number).uniform(0, 2) for number in range(4)]
    statuses, logs = run_together([[*late, f"{wait:.2f}", *arguments] for wait in waits], env=environment)
    assert statuses == [0] * 4, logs
    written = [line.split()[1:3] for log in logs for line in log.splitlines() if "documents/s" in line]
    assert len(written) == len({tuple(cell) for cell in written}) == 40


def test_random_faults_lose_double_and_falsify_nothing():
    """Kills, signals, full disks, engines, two drivers, clocks, files: python -m tests.soak runs more of them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--faults", "21", "--seed", "7"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
