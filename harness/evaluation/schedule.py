"""Which worker does which cells next: whole checkpoints, those of a shape together, the longest first.

A worker keeps to checkpoints of the shape that its engine serves, since these are swapped in, and changes to the shape
with the most work per worker otherwise. While there is much to do, it gets all cells of a checkpoint. At the end, a
checkpoint whose cells exceed half of what is left for each worker is split by task. Cells of a worker that was lost
are given out again. Costs are seconds; they decide about order and splits only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOST_LOSSES = 5  # workers that may be lost at one cell before it counts as failed
LOADS = 4.0  # a part of a checkpoint takes at least so many times as long as loading it


@dataclass(frozen=True)
class Work:
    """One checkpoint: the seconds of its missing cells by name, and the seconds to load it."""

    shape: str
    cells: Mapping[str, float]
    load: float = 0.0

    @property
    def seconds(self) -> float:
        """Return the seconds of all its cells."""
        return sum(self.cells.values())


@dataclass(frozen=True)
class Assignment:
    """Cells of one checkpoint, by their names, for one worker."""

    job: int
    cells: tuple[str, ...]


@dataclass
class Schedule:
    """What is waiting, under way and done. `workers` is their number; they are known by their own."""

    works: Sequence[Work]
    workers: int
    waiting: dict[int, dict[str, float]] = field(init=False)  # cells by checkpoint, the longest first
    under_way: dict[int, Assignment] = field(init=False, default_factory=dict)
    shapes: dict[int, str] = field(init=False, default_factory=dict)  # of the engines of workers
    hints: dict[int, int] = field(init=False, default_factory=dict)  # what workers were told to read ahead
    losses: dict[str, int] = field(init=False, default_factory=dict)  # workers, by the cell that they were at
    left: float = field(init=False)  # seconds that wait

    def __post_init__(self) -> None:
        self.waiting = {job: _longest_first(work.cells) for job, work in enumerate(self.works) if work.cells}
        self.left = sum(sum(cells.values()) for cells in self.waiting.values())

    @property
    def is_done(self) -> bool:
        """Tell whether nothing waits and nothing is under way."""
        return not self.waiting and not self.under_way

    def take(self, worker: int) -> Assignment | None:
        """Return what a worker does next, or None where nothing waits; what it did before is done."""
        self.done(worker)
        hint = self.hints.pop(worker, None)
        job = hint if hint in self.waiting else self._choose(worker)
        if job is None:
            return None
        self.shapes[worker] = self.works[job].shape
        self.under_way[worker] = assignment = Assignment(job, self._part(job))
        for cell in assignment.cells:
            self.left -= self.waiting[job].pop(cell)
        if not self.waiting[job]:
            del self.waiting[job]
        return assignment

    def read_ahead(self, worker: int) -> int | None:
        """Return the checkpoint that a worker should read ahead and will get next, if it is of the same shape."""
        taken = set(self.hints.values())
        own = self.shapes.get(worker)
        free = (job for job in self.waiting if job not in taken and self.works[job].shape == own)
        job = max(free, key=self._seconds, default=None)
        if job is not None:
            self.hints[worker] = job
        return job

    def done(self, worker: int) -> None:
        """Note that a worker did what it was given."""
        self.under_way.pop(worker, None)

    def lost(self, worker: int, unfinished: Sequence[str]) -> str | None:
        """Let the unfinished cells of a lost worker wait again.

        The first of them is what it was at; it is returned, and waits no more, if it has cost too many workers.
        """
        self.hints.pop(worker, None)
        self.shapes.pop(worker, None)
        assignment = self.under_way.pop(worker, None)
        cells = [cell for cell in assignment.cells if cell in set(unfinished)] if assignment else []
        if assignment is None or not cells:
            return None
        self.losses[cells[0]] = self.losses.get(cells[0], 0) + 1
        fails = cells.pop(0) if self.losses[cells[0]] >= MOST_LOSSES else None
        costs = self.works[assignment.job].cells
        again = {cell: costs[cell] for cell in cells} | self.waiting.get(assignment.job, {})
        if cells:
            self.left += sum(costs[cell] for cell in cells)
            self.waiting[assignment.job] = _longest_first(again)
        return fails

    def _seconds(self, job: int) -> float:
        return sum(self.waiting[job].values())

    def _choose(self, worker: int) -> int | None:
        """Return the longest checkpoint of the worker's shape, or of the one with the most work per worker."""
        kept = set(self.hints.values())
        free = [job for job in self.waiting if job not in kept] or list(self.waiting)
        if not free:
            return None
        seconds = {job: self._seconds(job) for job in free}
        by_shape: dict[str, float] = {}
        for job in free:
            shape = self.works[job].shape
            by_shape[shape] = by_shape.get(shape, 0.0) + seconds[job]
        serving = list(self.shapes.values())
        shape = self.shapes.get(worker, "")
        if shape not in by_shape:
            shape = max(sorted(by_shape), key=lambda name: by_shape[name] / (serving.count(name) + 1))
        return max((job for job in free if self.works[job].shape == shape), key=lambda job: (seconds[job], -job))

    def _part(self, job: int) -> tuple[str, ...]:
        """Return the cells of a checkpoint that one worker should do: all of them until little is left."""
        most = max(self.left / (2 * self.workers), LOADS * self.works[job].load)
        part, seconds = list[str](), 0.0
        for cell, cost in self.waiting[job].items():
            if part and seconds + cost > most:
                continue
            part.append(cell)
            seconds += cost
        return tuple(part)


def _longest_first(cells: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(cells.items(), key=lambda cell: (-cell[1], cell[0])))


def shard(works: Sequence[Work], number: int, of: int) -> list[int]:
    """Return the checkpoints of shard `number` (from 1) of `of`: the longest first, each to the shard with the least.

    It depends on the works alone, so that processes that know nothing of each other share them out alike.
    """
    totals = [0.0] * of
    own = []
    for job in sorted(range(len(works)), key=lambda job: (-works[job].seconds, job)):
        least = totals.index(min(totals))
        totals[least] += works[job].seconds + works[job].load
        if least == number - 1:
            own.append(job)
    return sorted(own)
