"""Progress of `harness eval`: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

from harness.cli.eta import TimeEstimate
from harness.evaluation.plan import Failure, Plan
from harness.evaluation.suite import Progress
from harness.tables import printable
from harness.types import Checkpoint, Task

EVERY = 10.0  # seconds between lines without a terminal; HARNESS_PROGRESS_SECONDS replaces it
BURST = 0.05  # seconds within which the first batch's documents arrive; their time includes the engine's start


class Counting(Progress):
    """Count cells and documents, and measure the time of documents; `say` prints a line."""

    def __init__(self) -> None:
        self.cells = self.cells_total = self.docs = self.docs_total = 0
        self.left: dict[int, int] = {}  # remaining documents, by the parameters of their checkpoint
        self.estimate = TimeEstimate()
        self.begun = self.last = time.monotonic()
        self.first: float | None = None

    def say(self, line: str) -> None:
        """Print a line."""
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201  # this is the display

    def start(self, plan: Plan) -> None:
        """Report the numbers of stored and missing cells."""
        missing = list(plan.missing())
        self.cells_total = len(missing)
        for job, task, _ in missing:
            params = job.checkpoint.params or 0
            self.left[params] = self.left.get(params, 0) + len(task.docs)
        self.docs_total = sum(self.left.values())
        self.begun = self.last = time.monotonic()
        self.say(f"{len(plan.already_stored)} of {len(plan.already_stored) + len(missing)} cells are already stored")
        for note in plan.notes:
            self.say(f"note: {note}")

    def documents(self, checkpoint: Checkpoint, n: int) -> None:
        """Count documents and the time since the last ones; the first batch's time includes the engine's start."""
        now, params = time.monotonic(), checkpoint.params or 0
        self.first = now if self.first is None else self.first
        if now > self.first + BURST:
            self.estimate.add(params, n, now - self.last)
        self.docs += n
        self.left[params] = max(self.left.get(params, 0) - n, 0)
        self.last = now

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:  # noqa: ARG002  # used by subclasses
        """Count a cell."""
        self.cells += 1

    def failed(self, failure: Failure) -> None:
        """Report a failure at once."""
        self.say(f"failed: {failure}")

    def note(self, text: str) -> None:
        """Print a note."""
        self.say(f"note: {text}")

    @property
    def pace(self) -> str:
        """Return documents per second and the time left, which is a range until two sizes are measured."""
        measured, seconds = self.estimate.documents.values(), self.estimate.seconds.values()
        if not sum(measured) or not sum(seconds):
            return f"{self.docs / max(time.monotonic() - self.begun, 1e-9):.0f} documents/s, start included"
        low, high = self.estimate.left(self.left)
        left = _clock(low) if _clock(low) == _clock(high) else f"{_clock(low)} to {_clock(high)}"
        return f"{sum(measured) / sum(seconds):.0f} documents/s, {left} left"


class Lines(Counting):
    """For logs: print a line for the first cell, the last cell, and at most every EVERY seconds between them."""

    def __init__(self) -> None:
        super().__init__()
        self.every = float(os.environ.get("HARNESS_PROGRESS_SECONDS", EVERY))
        self.printed = -float("inf")

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:
        """Print the cell, the rate and the time left, unless a line was printed just before."""
        super().cell(checkpoint, task)
        self._line(f"{checkpoint.label} {task.name}", due=self.cells == self.cells_total)

    def documents(self, checkpoint: Checkpoint, n: int) -> None:
        """Print a line within long cells too."""
        super().documents(checkpoint, n)
        if self.printed >= 0 and self.every:
            self._line(checkpoint.label)

    def _line(self, subject: str, *, due: bool = False) -> None:
        now = time.monotonic() - self.begun
        if due or now - self.printed >= self.every:
            self.printed = now
            self.say(f"{self.cells}/{self.cells_total} {subject}  {self.pace}")


class Live(Counting):
    """Show a bar of documents, with cells, rate and time left."""

    def __init__(self, bar: RichProgress) -> None:
        super().__init__()
        self.bar, self.task = bar, bar.add_task("", total=None, cells="", pace="")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.bar.console.print(printable(line), highlight=False, markup=False)

    def start(self, plan: Plan) -> None:
        """Set the length of the bar."""
        super().start(plan)
        self.bar.update(self.task, total=self.docs_total)
        self._show("")

    def documents(self, checkpoint: Checkpoint, n: int) -> None:
        """Move the bar."""
        super().documents(checkpoint, n)
        self.bar.update(self.task, advance=n, pace=self.pace)

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:
        """Show which cell was written last."""
        super().cell(checkpoint, task)
        self._show(f"{checkpoint.label} {task.name}")

    def _show(self, subject: str) -> None:
        self.bar.update(self.task, description=printable(subject), cells=f"{self.cells}/{self.cells_total} cells")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:.0f}:{minutes:02.0f}:{seconds:02.0f}"


@contextmanager
def shown() -> Iterator[Progress]:
    """Yield the display that fits standard error: live for a terminal, else lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    columns = (
        TextColumn("{task.fields[cells]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TextColumn("{task.description}", markup=False),
    )
    with RichProgress(*columns, console=console) as bar:
        yield Live(bar)
