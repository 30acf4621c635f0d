"""A sweep over several workers: assign cells, collect results, and replace lost workers.

An executor provides a `Pool` of workers, in processes of this machine or elsewhere, and calls `drive`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.errors import StoreError, SuiteError, UsageError
from harness.evaluation.estimates import works_of
from harness.evaluation.plan import Failure, Job, Plan, Setup, cell_label
from harness.evaluation.sampling import SamplingOptions
from harness.evaluation.schedule import Assignment, Schedule, Work
from harness.evaluation.suite import Progress, Suite, Summary, nothing_written
from harness.evaluation.workers import Event, Order, Orders, WorkerSpec
from harness.host import PluginHost
from harness.host.registries import Registries
from harness.store.cells import Store
from harness.store.identity import CellId
from harness.types import Task

ATTEMPTS = 3  # times in a row that a worker may die before its first order, or checkpoints at which it may die


Executor = Callable[..., object]  # called with a sweep, and options as keywords


class Pool(Protocol):
    """Workers, numbered from 0 to size - 1. Each sends `ready` after its start, and `done` after its orders."""

    size: int

    def start(self, worker: int) -> None:
        """Start a worker, or replace a lost one."""
        ...

    def give(self, worker: int, orders: Orders) -> None:
        """Send orders to a ready worker."""
        ...

    def events(self) -> Iterable[Event]:
        """Wait for events of workers; for a worker that died, the event is `lost` with the reason."""
        ...

    def stop(self) -> None:
        """End all workers."""
        ...


@dataclass
class Sweep:
    """A plan that several workers carry out on one store."""

    plan: Plan
    spec: WorkerSpec
    store: Store
    progress: Progress
    device: str = "CPU"
    summary: Summary = field(init=False)
    cells: dict[str, tuple[int, Task, CellId]] = field(init=False)  # missing cells, by name
    failed: set[str] = field(init=False, default_factory=set)
    written: set[str] = field(init=False, default_factory=set)
    told: set[str] = field(init=False, default_factory=set)  # failures

    def __post_init__(self) -> None:
        self.summary = Summary(already_stored=len(self.plan.already_stored), failures=list(self.plan.failures))
        numbers = {id(job): number for number, job in enumerate(self.plan.jobs)}
        self.cells = {cell.name: (numbers[id(job)], task, cell) for job, task, cell in self.plan.missing()}

    def works(self) -> list[Work]:
        """Return the missing work for the scheduler."""
        return works_of(self.plan, self.device)

    def order(self, assignment: Assignment) -> Order:
        """Return an assignment in the form that a worker receives."""
        job = self.plan.jobs[assignment.job]
        named = ((self.cells[name][1].fingerprint, self.cells[name][2]) for name in assignment.cells)
        return Order(job.checkpoint, job.folder, job.settings, job.files, tuple(named), job.trusted)

    def unfinished(self, assignment: Assignment) -> list[str]:
        """Return the cells of a lost worker that are neither in the store nor failed."""
        cells = ((name, self.cells[name][2]) for name in assignment.cells if name not in self.failed)
        return [name for name, cell in cells if not self.store.has(cell, tokens=self.spec.keep_tokens)]

    def fail(self, failure: Failure) -> None:
        """Record and report a failure; one that several workers report counts once."""
        if str(failure) in self.told:
            return
        self.told.add(str(failure))
        self.summary.failures.append(failure)
        self.progress.failed(failure)


@dataclass
class _Drive:
    sweep: Sweep
    pool: Pool
    schedule: Schedule
    deaths: dict[int, list[int | None]] = field(default_factory=dict)  # checkpoints, since a worker did its last order
    idle: set[int] = field(default_factory=set)
    given_up: dict[int, str] = field(default_factory=dict)
    doing: dict[int, Assignment] = field(default_factory=dict)

    def run(self) -> None:
        cells = sum(len(waiting) for waiting in self.schedule.waiting.values())
        size = min(self.pool.size, cells)  # more workers would have nothing to do
        for worker in range(size):
            self.pool.start(worker)
        while not self.schedule.is_done:
            for event in self.pool.events():
                self._hear(event)
            if len(self.given_up) == size:
                why = next(iter(self.given_up.values()))
                raise SuiteError(f"all workers failed; the last output of the first was: {_without_frames(why)}")

    def _hear(self, event: Event) -> None:
        """Act on an event: the method _KIND of this class."""
        hear = getattr(self, f"_{event.kind}")
        hear(event.worker, event.content)

    def _ready(self, worker: int, _: None) -> None:
        self._give(worker)

    def _done(self, worker: int, _: None) -> None:
        self.deaths.pop(worker, None)
        self.doing.pop(worker, None)
        self._give(worker)

    def _give(self, worker: int) -> None:
        assignment = self.schedule.take(worker)
        if assignment is None:
            self.idle.add(worker)
            return
        self.idle.discard(worker)
        self.doing[worker] = assignment
        after = self.schedule.read_ahead(worker)
        ahead = self.sweep.order(Assignment(after, tuple(self.schedule.waiting[after]))) if after is not None else None
        self.pool.give(worker, Orders(self.sweep.order(assignment), ahead))

    def _job(self, worker: int) -> Job:
        return self.sweep.plan.jobs[self.doing[worker].job]

    def _documents(self, worker: int, n: int) -> None:
        self.sweep.progress.documents(self._job(worker).checkpoint, n)

    def _cell(self, worker: int, fingerprint: str) -> None:
        cells = self.sweep.cells
        self._wrote(next(name for name in self.doing[worker].cells if cells[name][1].fingerprint == fingerprint))

    def _wrote(self, name: str) -> None:
        number, task, _ = self.sweep.cells[name]
        self.sweep.written.add(name)
        self.sweep.summary.written += 1
        self.sweep.progress.cell(self.sweep.plan.jobs[number].checkpoint, task)

    def _failed(self, worker: int, failure: Failure) -> None:
        checkpoint = self._job(worker).checkpoint
        for name in self.doing[worker].cells:
            if failure.where in {checkpoint.label, cell_label(checkpoint, self.sweep.cells[name][1])}:
                self.sweep.failed.add(name)
        self.sweep.fail(failure)

    def _note(self, worker: int, text: str) -> None:  # noqa: ARG002  # the signature of all handlers
        self.sweep.progress.note(text)

    def _fatal(self, worker: int, text: str) -> None:  # noqa: ARG002
        raise StoreError(text)

    def _lost(self, worker: int, why: str) -> None:
        """Assign the unfinished cells of a lost worker to others, and replace it."""
        self.idle.discard(worker)
        assignment = self.doing.pop(worker, None)
        unfinished = self.sweep.unfinished(assignment) if assignment else []
        for name in assignment.cells if assignment else ():
            if name not in {*unfinished, *self.sweep.failed, *self.sweep.written}:
                self._wrote(name)  # its report was lost
        told = _without_frames(why).splitlines()
        short = ": ".join(dict.fromkeys((*told[:1], *told[-1:])))
        after = f"; other workers compute its {len(unfinished)} cells" if unfinished else ""
        self.sweep.progress.note(f"worker {worker} was lost: {short}{after}")
        if lost := self.schedule.lost(worker, unfinished):
            self._give_up_cell(lost, why)
        deaths = self.deaths.setdefault(worker, [])
        deaths.append(assignment.job if assignment else None)
        if deaths.count(None) >= ATTEMPTS or len(set(deaths)) >= ATTEMPTS:
            self.given_up[worker] = why
        else:
            self.pool.start(worker)
        for other in sorted(self.idle):
            self._give(other)

    def _give_up_cell(self, name: str, why: str) -> None:
        """Record the failure of a cell at which workers died, or of its checkpoint if none of its cells was written."""
        number, task, _ = self.sweep.cells[name]
        checkpoint = self.sweep.plan.jobs[number].checkpoint
        error = SuiteError(f"{self.schedule.losses[name]} workers died at it: {_without_frames(why)}")
        if any(self.sweep.cells[other][0] == number for other in self.sweep.written):
            self.sweep.failed.add(name)
            self.sweep.fail(Failure(cell_label(checkpoint, task), error))
        else:
            self.sweep.failed |= {name, *self.schedule.drop(number)}
            self.sweep.fail(Failure(checkpoint.label, error))


def _without_frames(log: str) -> str:
    """Return the last output of a worker without the frames of a traceback."""
    return "\n".join(line for line in log.splitlines() if not line.startswith((" ", "\t", "Traceback")))


def drive(sweep: Sweep, pool: Pool) -> Summary:
    """Run a sweep with the workers of a pool.

    Raises StoreError if the store cannot be written, and SuiteError if no worker is left.
    """
    try:
        _Drive(sweep, pool, Schedule(sweep.works(), pool.size)).run()
    finally:
        pool.stop()
    return sweep.summary


def run_with_executor(
    executor: Executor,
    plan: Plan,
    setup: Setup,
    store: Store,
    progress: Progress,
    *,
    registries: Registries,
    sampling: SamplingOptions | None,
) -> Summary:
    """Run a plan with an executor; the counterpart of `Suite.run`, which uses this process."""
    spec = spec_of(plan, setup, store.path, sampling, registries)
    for failure in plan.failures:
        progress.failed(failure)
    for note in setup.sampling.notes if setup.sampling else ():
        progress.note(note)
    Suite(plan, setup, store, progress).keep_names()
    sweep = Sweep(plan, spec, store, progress)
    executor(sweep)
    for name, (number, task, cell) in sweep.cells.items():
        if not store.has(cell, tokens=setup.keep_tokens) and name not in sweep.failed:
            sweep.fail(Failure(cell_label(plan.jobs[number].checkpoint, task), nothing_written()))
    return sweep.summary


def spec_of(
    plan: Plan, setup: Setup, store: Path, sampling: SamplingOptions | None, registries: Registries
) -> WorkerSpec:
    """Return the data for making workers; raise UsageError if a plugin exists only in this process."""
    alone = registries.added() if isinstance(registries, PluginHost) else ["registries"]
    if alone:
        raise UsageError(f"plugin {alone[0]!r} was added from Python; workers load modules and files (-p NAME)")
    tasks = {task.fingerprint: task for job in plan.jobs for task, _ in job.cells}
    extra = registries.extra if isinstance(registries, PluginHost) else ()
    return WorkerSpec(
        store=store.resolve(),
        tasks=tasks,
        engine=setup.engine.name,
        options=setup.options,
        truncation=setup.truncation,
        greedy=setup.greedy,
        sampling=sampling or SamplingOptions(),
        plugins=extra,
        chat=setup.chat,
        keep_tokens=setup.keep_tokens,
    )


def expect_workers(workers: int | None, devices: Sequence[object]) -> int:
    """Return the requested number of workers, or one per device; raise UsageError if there is neither."""
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: expected 1 or more")
    if workers is None and not devices:
        raise UsageError("no GPU is visible; pass the number of processes that share the CPU with --workers")
    return workers or len(devices)
