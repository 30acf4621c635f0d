"""The progress display: lines in a log, one live display on a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import TextColumn

from harness.cli.eta import TimeEstimate
from harness.cli.progress import Lines, Live
from harness.evaluation.plan import Failure, Job, Plan
from harness.types import Checkpoint, Doc, Task

DOCS = tuple(Doc(str(i), ("Q",), (" a", " b"), ("a", "b"), (0,)) for i in range(10))
TASK = Task("t", "choice", DOCS, "f")
SMALL = Checkpoint("fam", "s", 1, 0, "", params=0)
LARGE = Checkpoint("fam", "l", 1, 0, "", params=9_000_000)


class Work:
    """A plan of one task on a small and a large checkpoint."""

    jobs = (SMALL, LARGE)
    already_stored = frozenset({"a"})
    notes = ("mind this",)

    def missing(self):
        for checkpoint in self.jobs:
            job = Job.__new__(Job)
            object.__setattr__(job, "checkpoint", checkpoint)
            yield job, TASK, None


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


def test_lines_tell_what_is_there_what_was_done_and_how_long_the_rest_takes(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    lines = Lines()
    lines.start(Work())  # type: ignore[arg-type]  # as much of a plan as is looked at
    for clock.now, documents in ((30.0, 1), (31.0, 9)):  # 30 s until the engine has started are no pace
        lines.documents(SMALL, documents)
    lines.cell(SMALL, TASK)
    lines.failed(Failure("fam:l@1", RuntimeError("no")))
    assert capsys.readouterr().err.splitlines() == [
        "1 of 3 cells are already stored",
        "note: mind this",
        "1/2 fam:s@1 t  9 documents/s, 0:00:01 to 0:00:02 left",  # the large one may take longer
        "failed: fam:l@1: RuntimeError: no",
    ]


def test_a_log_gets_at_most_a_line_every_ten_seconds_and_the_last_one(capsys, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    lines = Lines()
    lines.cells_total = 100
    lines.begun = lines.last = 0.0
    for number in range(100):
        clock.now = 0.5 * number
        lines.documents(SMALL, 10)
        lines.cell(SMALL, TASK)
    shown = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in shown] == ["1/100", "20/100", "40/100", "60/100", "80/100", "100/100"]


def test_the_first_estimate_of_a_ladder_is_not_that_of_its_smallest_size_times_parameters():
    """A sweep of two minutes was once announced as 2:08:20 after its first cell."""
    estimate = TimeEstimate()
    estimate.add(60_000, 400, 2.0)
    low, high = estimate.left({60_000: 400, 2_000_000: 400, 1_000_000_000: 400})
    assert low == 6.0
    assert high < 4100  # 1e9 parameters on a slow core; proportional to parameters it would be 33,400 s


def test_two_measured_sizes_determine_the_time_left():
    estimate = TimeEstimate()
    estimate.add(1_000_000, 100, 100 * (0.01 + 1e-9 * 1e6))
    estimate.add(10_000_000, 100, 100 * (0.01 + 1e-9 * 1e7))
    assert estimate.left({100_000_000: 10}) == pytest.approx((1.1, 1.1), rel=1e-6)


def test_the_live_display_shows_cells_rate_and_time_left():
    screen = io.StringIO()
    columns = [TextColumn("{task.fields[cells]} {task.fields[pace]} {task.description}")]
    with RichProgress(*columns, console=Console(file=screen, force_terminal=True, width=100)) as bar:
        live = Live(bar)
        live.start(Work())  # type: ignore[arg-type]
        live.documents(SMALL, 10)
        live.cell(SMALL, TASK)
        live.note("waiting")
    assert "1 of 3 cells are already stored" in screen.getvalue()
    assert "note: waiting" in screen.getvalue()
    assert "1/2 cells" in screen.getvalue()
    assert "documents/s" in screen.getvalue()
    assert "fam:s@1 t" in screen.getvalue()


@pytest.mark.soak
def test_a_terminal_gets_the_live_display(tmp_path):
    """The real command with a pseudo-terminal for standard error: the bar moves in place."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "harness", "eval", "aster:w32l2@100", "-t", "nano_job", "--limit", "5"]
    with subprocess.Popen([*command, "-o", str(tmp_path / "s")], stderr=slave, stdin=slave) as process:
        os.close(slave)
        seen = b""
        try:
            while part := os.read(master, 4096):
                seen += part
        except OSError:  # how Linux says that the other end is closed
            pass
    assert process.returncode == 0
    assert b"1/1 cells" in seen
    assert b"1 cells written, 0 were already stored" in seen


def test_a_plan_of_nothing_is_shown(capsys):
    Lines().start(Plan())
    assert capsys.readouterr().err == "0 of 0 cells are already stored\n"
