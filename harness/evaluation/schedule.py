"""Assign cells to workers: whole checkpoints, the longest first, those of one shape to the same worker.

A worker prefers checkpoints of the shape that its engine serves, because their weights can be swapped. If there are
none, it changes to the shape with the most work per worker. It gets all cells of a checkpoint while much work is left.
Near the end, a checkpoint whose cells exceed half of the remaining work per worker is split by task. Cells of a lost
worker are assigned again. Costs are in seconds; they affect only order and splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOST_LOSSES = 5  # number of workers lost at one cell after which the cell fails
LOADS = 4.0  # smallest ratio of the time of a part of a checkpoint to the time of loading the checkpoint


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
    """The waiting, running and finished work. `workers` is the number of workers, who are numbered from 0."""

    works: Sequence[Work]
    workers: int
    waiting: dict[int, dict[str, float]] = field(init=False)  # cells by checkpoint, the longest first
    under_way: dict[int, Assignment] = field(init=False, default_factory=dict)
    shapes: dict[int, str] = field(init=False, default_factory=dict)  # of the engines of workers
    hints: dict[int, int] = field(init=False, default_factory=dict)  # checkpoints that workers read ahead
    losses: dict[str, int] = field(init=False, default_factory=dict)  # number of workers lost, by the cell in progress
    left: float = field(init=False)  # seconds of waiting work

    def __post_init__(self) -> None:
        self.waiting = {job: _longest_first(work.cells) for job, work in enumerate(self.works) if work.cells}
        self.left = sum(sum(cells.values()) for cells in self.waiting.values())

    @property
    def is_done(self) -> bool:
        """Tell whether no work is waiting or running."""
        return not self.waiting and not self.under_way

    def take(self, worker: int) -> Assignment | None:
        """Mark a worker's assignment as done; return its next one, or None if no work is waiting."""
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
        shape = self.shapes.get(worker)
        free = (job for job in self.waiting if job not in taken and self.works[job].shape == shape)
        job = max(free, key=self._seconds, default=None)
        if job is not None:
            self.hints[worker] = job
        return job

    def done(self, worker: int) -> None:
        """Mark a worker's assignment as done."""
        self.under_way.pop(worker, None)

    def lost(self, worker: int, unfinished: Sequence[str]) -> str | None:
        """Return the unfinished cells of a lost worker to the waiting work.

        The worker was computing the first of them. If too many workers were lost at this cell, return it and do not
        assign it again.
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

    def drop(self, job: int) -> list[str]:
        """Remove the waiting cells of a checkpoint, and return them."""
        cells = self.waiting.pop(job, {})
        self.left -= sum(cells.values())
        return list(cells)

    def _seconds(self, job: int) -> float:
        return sum(self.waiting[job].values())

    def _choose(self, worker: int) -> int | None:
        """Return the longest checkpoint of the worker's shape, or of the one with the most work per worker."""
        reserved = set(self.hints.values())
        free = [job for job in self.waiting if job not in reserved] or list(self.waiting)
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
        """Return the cells of a checkpoint for one worker: all of them, unless little work is left."""
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
    """Return the checkpoints of shard `number` (from 1) of `of`; the longest go first, to the shard with least work.

    The result depends only on `works`, so independent processes agree on it without communication.
    """
    totals = [0.0] * of
    jobs = []
    for job in sorted(range(len(works)), key=lambda job: (-works[job].seconds, job)):
        least = totals.index(min(totals))
        totals[least] += works[job].seconds + works[job].load
        if least == number - 1:
            jobs.append(job)
    return sorted(jobs)
