"""How `harness eval` shows its work: one live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

from harness.escaping import printable
from harness.evaluation.plan import Failure, Plan
from harness.evaluation.suite import Progress
from harness.types import Checkpoint, Task

OVERHEAD = 1e6  # work of a document that does not depend on the model, in parameters


class Counting(Progress):
    """Counts cells, documents and work; `say` prints a line.

    Work is documents times parameters, so that the time left is not that of the small checkpoints at the beginning.
    """

    def __init__(self) -> None:
        self.cells = self.cells_total = self.docs = self.docs_total = 0
        self.work = self.work_total = 0.0
        self.begun = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line."""
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201  # this is the display

    def start(self, plan: Plan) -> None:
        """Say what is there and what is to be done."""
        missing = list(plan.missing())
        self.cells_total, self.docs_total = len(missing), sum(len(task.docs) for _, task, _ in missing)
        self.work_total = sum(_work(job.checkpoint, len(task.docs)) for job, task, _ in missing)
        self.begun = time.monotonic()
        self.say(f"{len(plan.there)} of {len(plan.there) + len(missing)} cells were there")
        for note in plan.notes:
            self.say(f"note: {note}")

    def documents(self, checkpoint: Checkpoint, n: int) -> None:
        """Count documents."""
        self.docs += n
        self.work += _work(checkpoint, n)

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:  # noqa: ARG002  # for those that print it
        """Count a cell."""
        self.cells += 1

    def failed(self, failure: Failure) -> None:
        """Say what failed, at once."""
        self.say(f"failed: {failure}")

    def note(self, text: str) -> None:
        """Say it."""
        self.say(f"note: {text}")

    @property
    def pace(self) -> str:
        """Documents a second, and the time left."""
        passed = time.monotonic() - self.begun
        left = passed * (self.work_total - self.work) / self.work if self.work else 0.0
        return f"{self.docs / max(passed, 1e-9):.0f} documents/s, {_clock(left)} left"


def _work(checkpoint: Checkpoint, n: int) -> float:
    return n * ((checkpoint.params or 0) + OVERHEAD)


class Lines(Counting):
    """A line a cell, for logs."""

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:
        """Print the cell, the rate and the time left."""
        super().cell(checkpoint, task)
        self.say(f"{self.cells}/{self.cells_total} {checkpoint.label} {task.name}  {self.pace}")


class Live(Counting):
    """A bar of documents, with cells, rate and time left."""

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

    def _show(self, what: str) -> None:
        self.bar.update(self.task, description=printable(what), cells=f"{self.cells}/{self.cells_total} cells")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:.0f}:{minutes:02.0f}:{seconds:02.0f}"


@contextmanager
def shown() -> Iterator[Progress]:
    """Return the display that fits where standard error goes."""
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
