"""Simulate the scheduler: the time that workers take for some works, and the useful share of it.

`harness eval --dry-run` prints it for a plan; tests/benchmarks/schedule.py adds wrong estimates and failures.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from harness.evaluation.schedule import Assignment, Schedule, Work

Seconds = Callable[[int, str], float]


@dataclass(frozen=True)
class Faults:
    """Failures of workers: `next_death()` returns the seconds until a worker dies, `restart` the time to replace it."""

    next_death: Callable[[], float] = lambda: float("inf")
    restart: float = 0.0


@dataclass
class SweepOutcome:
    """Seconds of each worker (w,): on finished cells, and on loading and starting; and the end of the sweep."""

    useful: list[float]
    loading: list[float]
    end: float = 0.0
    deaths: int = 0
    failed: list[str] = field(default_factory=list)
    times_done: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Return the share of all workers' time, up to the end of the sweep, that was spent on finished cells."""
        return sum(self.useful) / (self.end * len(self.useful)) if self.end else 1.0


@dataclass
class _Simulation:
    works: Sequence[Work]
    schedule: Schedule
    seconds: Seconds
    start: float
    faults: Faults
    outcome: SweepOutcome
    events: list[tuple[float, int, tuple[str, ...]]] = field(default_factory=list)  # when, who, cells lost by dying
    deaths: dict[int, float] = field(default_factory=dict)
    serves: dict[int, str] = field(default_factory=dict)
    idle: list[int] = field(default_factory=list)

    def run(self) -> None:
        for worker in range(self.schedule.workers):
            self.deaths[worker] = self.faults.next_death()
            heapq.heappush(self.events, (0.0, worker, ()))
        while self.events:
            now, worker, lost = heapq.heappop(self.events)
            if lost:
                self._die(now, worker, lost)
                continue
            assignment = self.schedule.take(worker)
            if assignment is None:
                self.idle.append(worker)
                continue
            self.schedule.read_ahead(worker)
            self._do(now, worker, assignment)

    def _do(self, now: float, worker: int, assignment: Assignment) -> None:
        work, died = self.works[assignment.job], max(self.deaths[worker], now)
        clock = begin = now + work.load + (self.start if self.serves.get(worker) != work.shape else 0.0)
        self.serves[worker] = work.shape
        for number, cell in enumerate(assignment.cells):
            clock += self.seconds(assignment.job, cell)
            if clock > died:
                heapq.heappush(self.events, (died, worker, assignment.cells[number:]))
                return
            self.outcome.useful[worker] += self.seconds(assignment.job, cell)
            self.outcome.times_done[cell] = self.outcome.times_done.get(cell, 0) + 1
            self.outcome.end = max(self.outcome.end, clock)
        self.outcome.loading[worker] += begin - now
        heapq.heappush(self.events, (clock, worker, ()))

    def _die(self, now: float, worker: int, unfinished: tuple[str, ...]) -> None:
        self.outcome.deaths += 1
        if failed := self.schedule.lost(worker, unfinished):
            self.outcome.failed.append(failed)
        back = now + self.faults.restart
        self.serves.pop(worker, None)
        self.deaths[worker] = back + self.faults.next_death()
        heapq.heappush(self.events, (back, worker, ()))
        for other in self.idle:  # there may be work again
            heapq.heappush(self.events, (now, other, ()))
        self.idle.clear()


def simulate(
    works: Sequence[Work],
    workers: int,
    *,
    start: float = 0.0,
    seconds: Seconds | None = None,
    faults: Faults | None = None,
) -> SweepOutcome:
    """Return the outcome of a simulated sweep; an engine of another shape starts in `start` seconds.

    `seconds(job, cell)` returns the actual time of a cell (default: the estimate).
    """
    outcome = SweepOutcome([0.0] * workers, [0.0] * workers)
    real = seconds or (lambda job, cell: works[job].cells[cell])
    _Simulation(works, Schedule(works, workers), real, start, faults or Faults(), outcome).run()
    return outcome
