"""Run a suite: score and store every missing cell (checkpoint x task), independent of failures of other cells.

A cell is locked, scored, and written atomically; its lock is released when the process dies. A suite can therefore be
killed and restarted, and several processes can work on one store without scoring a cell twice.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, zip_longest

from filelock import Timeout

from harness.errors import DamagedFile, EngineError, PluginError, StoreError, SuiteError, UsageError
from harness.evaluation.encoder_pool import Encoded, EncoderPool
from harness.evaluation.engine_contract import provenance_of
from harness.evaluation.engine_slot import EngineSlot
from harness.evaluation.plan import Failure, Job, Plan, Setup, cell_label
from harness.evaluation.sample_runs import SampleRun
from harness.evaluation.scoring import Claim, Tally, added, check_all_came, requests_of
from harness.evaluation.tokens import EncodedPrompts, EncodedTask
from harness.evaluation.vocabulary import expect_known
from harness.evaluation.writing import CellWriter
from harness.host.origins import PLUGIN_ERRORS, clear_frames, is_interrupt
from harness.store.cells import Store
from harness.store.identity import CellId
from harness.types import Checkpoint, Engine, Task
from harness.types.json import JsonObject


class Progress:
    """Progress of a suite; this class reports nothing."""

    def start(self, plan: Plan) -> None:
        """Report the start, with the plan."""

    def documents(self, checkpoint: Checkpoint, n: int) -> None:
        """Report that n documents were scored."""

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:
        """Report that a cell was written."""

    def failed(self, failure: Failure) -> None:
        """Report that a checkpoint or a cell failed."""

    def note(self, text: str) -> None:
        """Report anything else."""


@dataclass
class Summary:
    """Result of a suite: cells written, cells already stored, and failures."""

    written: int = 0
    already_stored: int = 0
    failures: list[Failure] = field(default_factory=list)

    def check(self) -> None:
        """Raise SuiteError if anything failed."""
        if self.failures:
            raise SuiteError(
                f"{len(self.failures)} failed, {self.written} cells written, {self.already_stored} already stored; "
                f"first failure: {self.failures[0]}"
            ) from self.failures[0].error


def nothing_written() -> SuiteError:
    """Return the error of a cell that is missing at the end without another reason."""
    return SuiteError("no record was written, and no error was raised")


class Suite:
    """Execution of a plan on one store."""

    def __init__(self, plan: Plan, setup: Setup, store: Store, progress: Progress) -> None:
        self.plan, self.store, self.progress = plan, store, progress
        self.slot = EngineSlot(setup)
        self.pool = EncoderPool()
        self.writer = CellWriter(store)
        self.summary = Summary(already_stored=len(plan.already_stored), failures=list(plan.failures))
        self.failed = {failure.where for failure in plan.failures}
        self.told: set[str] = set()

    def run(self) -> Summary:
        """Compute all missing cells; return cells written and failures."""
        for failure in self.plan.failures:
            self.progress.failed(failure)
        for note in self.slot.setup.sampling.notes if self.slot.setup.sampling else ():
            self.progress.note(note)
        self.keep_names()
        try:
            self._pass([job for job in self.plan.jobs if self._open_cells(job)])
            self._wait_for_others()
            self._expect_all()
        finally:
            self.slot.close()
        return self.summary

    def serve(self, job: Job, after: Job | None) -> None:
        """Do the missing cells of one job, and leave the engine open; `after` may be read ahead."""
        self.plan.jobs = [job]
        self.failed = set()  # an earlier order for other cells of the checkpoint may have failed
        self._do_unclaimed(job, after)
        self._wait_for_others()
        self._expect_all()

    def keep_names(self) -> None:
        """Write the names of tasks, checkpoints and settings before the records that need them."""
        tasks = {task.fingerprint: task for job in self.plan.jobs for task, _ in job.cells}
        for task in tasks.values():
            self.store.put_task(task)
        for job in self.plan.jobs:
            self.store.put_checkpoint(job.digest, job.checkpoint)
        used = {cell.settings: (job, task) for job in self.plan.jobs for task, cell in job.cells}
        for job, task in used.values():
            self.store.put_settings(self.slot.setup.settings_of(job.settings, task))

    def _open_cells(self, job: Job) -> list[tuple[Task, CellId]]:
        """Return the cells of a job that are neither in the store nor failed."""
        return [
            (task, cell)
            for task, cell in job.cells
            if not self._is_stored(cell) and not {job.checkpoint.label, cell_label(job.checkpoint, task)} & self.failed
        ]

    def _is_stored(self, cell: CellId) -> bool:
        """Return whether a cell was stored when the plan was made or since; at most two look-ups."""
        return cell.name in self.plan.already_stored or self._has(cell)

    def _has(self, cell: CellId) -> bool:
        return self.store.has(cell, tokens=self.slot.setup.keep_tokens)

    def _pass(self, jobs: Sequence[Job]) -> None:
        """Compute the cells of each job that no other process has locked."""
        for job, after in zip_longest(jobs, jobs[1:]):
            self._do_unclaimed(job, after)

    def _do_unclaimed(self, job: Job, after: Job | None) -> None:
        with ExitStack() as locks:
            claims = list(self._claim(job, locks))
            if claims:
                self._do(job, claims, after)

    def _claim(self, job: Job, locks: ExitStack) -> Iterator[Claim]:
        for task, cell in self._open_cells(job):
            lock = self.store.lock(cell)
            try:
                locks.enter_context(lock.acquire(timeout=0))
            except Timeout:
                continue  # locked by another process; _wait_for_others retries
            if not self._has(cell):  # written since _open_cells
                yield Claim(task, cell, lock)

    def _encoded(self, job: Job, claims: Sequence[Claim]) -> Iterator[tuple[Claim, Encoded]]:
        """Yield each claim that can be tokenised, with its tokens; the next is tokenised in the background."""
        for claim, after in zip_longest(claims, claims[1:]):
            future = self.pool.ahead(job, claim.task)
            try:
                encoded = future.result()
                expect_known(encoded, claim.task, job.info)
            except EngineError as error:
                self._fail(job.checkpoint.label, error)
                return  # the tokenizer does not load
            except PLUGIN_ERRORS as error:  # a task that fails must not stop the others
                self._fail(cell_label(job.checkpoint, claim.task), error)
            else:
                if after:
                    self.pool.ahead(job, after.task)
                yield claim, encoded

    def _do(self, job: Job, claims: Sequence[Claim], after: Job | None) -> None:
        """Compute all claimed cells of a checkpoint, cells of choices in one stream; failures are reported."""
        claims = sorted(claims, key=lambda claim: claim.task.generation is not None)
        encoded = self._encoded(job, claims)
        try:
            self.slot.expect_planned(job)
            first = next(encoded, None)
            if first is None:
                return
            engine = self.slot.serve(job)
            self.slot.prefetch(after)
            for is_drawn, cells in groupby(chain([first], encoded), lambda cell: cell[0].task.generation is not None):
                if is_drawn:
                    self._draw(job, cells, engine)
                else:
                    self._score(job, cells, engine)
            self._tell(job, engine)
        except StoreError:
            raise  # results that cannot be stored need not be computed
        except PLUGIN_ERRORS as error:  # an engine may raise any error; the other checkpoints continue
            self._fail(job.checkpoint.label, error)
            self.slot.close()
            gc.collect()  # an engine that failed while it was opened may be part of a cycle

    def _score(self, job: Job, cells: Iterable[tuple[Claim, Encoded]], engine: Engine) -> None:
        """Score the choices of cells in one stream."""
        begun: list[Tally] = []
        greedy, keep_tokens = self.slot.setup.greedy, self.slot.setup.keep_tokens
        tallies = (
            Tally(claim, encoded, claim.task.metric in greedy or bool(claim.task.source), keep_tokens)
            for claim, encoded in cells
            if isinstance(encoded, EncodedTask)  # prompts of generated text are not scored
        )
        requests = requests_of(tallies, begun)
        try:
            for score in engine.score(requests):
                tally = added(score, begun)
                self.progress.documents(job.checkpoint, tally.documents)
                if not tally.left:
                    self._write(job, tally, engine)
        finally:  # also what was complete before an engine failed
            self._report_written(job, wait=True)
        check_all_came(begun, requests)

    def _draw(self, job: Job, cells: Iterable[tuple[Claim, Encoded]], engine: Engine) -> None:
        """Generate the text of cells, one after the other; an error of a checker or sampler fails its cell only."""
        for claim, encoded in cells:
            try:
                run = self._sample_run(claim, encoded)
                for documents in run.run(engine):
                    self.progress.documents(job.checkpoint, documents)
                run.seal({**self._provenance(engine), **job.trusted})
            except PluginError as error:
                self._fail(cell_label(job.checkpoint, claim.task), error)
                continue
            finally:
                claim.lock.release()
            self.summary.written += 1
            self.progress.cell(job.checkpoint, claim.task)

    def _sample_run(self, claim: Claim, encoded: Encoded) -> SampleRun:
        """Start a cell, or continue one of an earlier run; damaged parts are drawn again."""
        sampling = self.slot.setup.sampling
        if sampling is None or not isinstance(encoded, EncodedPrompts):
            raise UsageError(f"task {claim.task.name} generates text; expected sampling options")
        while True:
            try:
                return SampleRun(claim, encoded, sampling, self.store)
            except DamagedFile as error:
                self.progress.note(f"{error.problem}; its samples will be drawn again")

    def _provenance(self, engine: Engine) -> JsonObject:
        return provenance_of(engine, self.slot.setup.engine.name)

    def _tell(self, job: Job, engine: Engine) -> None:
        """Report notes of the engine on disabled optimisations, once each."""
        notes = self._provenance(engine).get("notes")
        for note in map(str, notes if isinstance(notes, (list, tuple)) else ()):
            if note not in self.told:
                self.told.add(note)
                self.progress.note(f"{job.checkpoint.label}: {note}")

    def _write(self, job: Job, tally: Tally, engine: Engine) -> None:
        try:
            self.writer.put(tally, tally.records({**self._provenance(engine), **job.trusted}), tally.tokens())
        except EngineError as error:
            self._fail(cell_label(job.checkpoint, tally.task), error)
            tally.claim.lock.release()
        self._report_written(job)

    def _report_written(self, job: Job, *, wait: bool = False) -> None:
        """Report the cells that are on disk by now; raises StoreError where one could not be written."""
        for tally in self.writer.written(wait=wait):
            tally.claim.lock.release()
            self.summary.written += 1
            self.progress.cell(job.checkpoint, tally.task)

    def _fail(self, where: str, error: BaseException) -> None:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        failure = Failure(where, error)
        clear_frames(error)
        self.summary.failures.append(failure)
        self.failed.add(where)
        self.progress.failed(failure)

    def _expect_all(self) -> None:
        """Report cells that are missing without an error, because a run is complete only if every cell is stored."""
        for job in self.plan.jobs:
            for task, _ in self._open_cells(job):
                self._fail(cell_label(job.checkpoint, task), nothing_written())

    def _wait_for_others(self) -> None:
        """Wait for cells that other processes have locked; compute those that a dead process left."""
        for job in self.plan.jobs:
            for task, cell in self._open_cells(job):
                self.progress.note(f"{cell_label(job.checkpoint, task)}: waiting for another process")
                alone = replace(job, cells=((task, cell),))
                while self._open_cells(alone):
                    with self.store.lock(cell).acquire(timeout=-1):
                        pass
                    self._pass([alone])
