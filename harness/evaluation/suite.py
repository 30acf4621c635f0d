"""Run a suite: every missing cell (checkpoint x task) is scored and stored, whatever happens to the others.

A cell is claimed by a lock that dies with its process, scored, and written whole. So a suite can be killed and started
again, and several processes can work on one store; none does a cell that another does or did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from itertools import chain, groupby, zip_longest
from pathlib import Path
from typing import Any

from filelock import Timeout

from harness.checkpoints.families import check_features, select
from harness.errors import DamagedFile, EngineError, PluginError, StoreError, SuiteError, UsageError, choose
from harness.evaluation.chat import Chat, make_chat
from harness.evaluation.default_engine import default_engine
from harness.evaluation.engine_slot import EngineSlot
from harness.evaluation.plan import EncoderPool, Failure, Job, Plan, Setup, check_options, make_plan
from harness.evaluation.sampling import SampleRun, make_sampling
from harness.evaluation.scoring import Claim, Tally, check_all_came, requests_of
from harness.evaluation.tokens import TRUNCATION
from harness.host import default_host
from harness.origins import PLUGIN_ERRORS, is_interrupt
from harness.registries import Registries
from harness.store.cells import Store
from harness.store.folders import expect_usable
from harness.store.identity import CellId
from harness.store.subsets import Subset, load_subsets, take_all
from harness.tasks.loading import find_tasks, fingerprinted
from harness.tasks.prompting import Prompting, as_chat
from harness.types import Checkpoint, Engine, Family, Task


class Progress:
    """What a suite tells while it runs; this one says nothing."""

    def start(self, plan: Plan) -> None:
        """Begin: the plan is made, the work is known."""

    def documents(self, checkpoint: Checkpoint, n: int) -> None:
        """Say that n documents were scored."""

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:
        """Say that a cell was written."""

    def failed(self, failure: Failure) -> None:
        """Say that a checkpoint or a cell failed."""

    def note(self, text: str) -> None:
        """Say something else worth knowing."""


@dataclass
class Summary:
    """What a suite did: cells written, cells that were there, what failed."""

    written: int = 0
    there: int = 0
    failures: list[Failure] = field(default_factory=list)

    def check(self) -> None:
        """Raise SuiteError when something failed."""
        if self.failures:
            raise SuiteError(
                f"{len(self.failures)} failed, {self.written} cells written, {self.there} were there; "
                f"first failure: {self.failures[0]}"
            ) from self.failures[0].error


class Suite:
    """A plan under way on one store."""

    def __init__(self, plan: Plan, setup: Setup, store: Store, progress: Progress) -> None:
        self.plan, self.store, self.progress = plan, store, progress
        self.slot = EngineSlot(setup)
        self.pool = EncoderPool()
        self.summary = Summary(there=len(plan.there), failures=list(plan.failures))
        self.told: set[str] = set()

    def run(self) -> Summary:
        """Do all missing cells; return what was done and what failed."""
        for failure in self.plan.failures:
            self.progress.failed(failure)
        for note in self.slot.setup.sampling.notes if self.slot.setup.sampling else ():
            self.progress.note(note)
        self._keep_names()
        try:
            self._pass([job for job in self.plan.jobs if self._open_cells(job)])
            self._wait_for_others()
            self._expect_all()
        finally:
            self.slot.close()
        return self.summary

    def _keep_names(self) -> None:
        """Write the names of everything that is about to be used, before any record needs them."""
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
        failed = {failure.where for failure in self.summary.failures}
        return [
            (task, cell)
            for task, cell in job.cells
            if not self._is_there(cell) and not {job.checkpoint.label, _where(job, task)} & failed
        ]

    def _is_there(self, cell: CellId) -> bool:
        """Say whether a cell was there when the plan was made, or has been written since: at most two look-ups."""
        return cell.name in self.plan.there or self.store.has(cell)

    def _pass(self, jobs: Sequence[Job]) -> None:
        """Do the cells of each job that no other process holds."""
        for job, after in zip_longest(jobs, jobs[1:]):
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
                continue  # another process has it; _wait_for_others comes back
            if not self.store.has(cell):  # or it was written meanwhile
                yield Claim(task, cell, lock)

    def _encoded(self, job: Job, claims: Sequence[Claim]) -> Iterator[tuple[Claim, Any]]:
        """Yield each claim that can be tokenised, with its tokens; the next is tokenised meanwhile."""
        for claim, after in zip_longest(claims, claims[1:]):
            encoded = self.pool.ahead(job, claim.task)
            try:
                found = encoded.result()
            except EngineError as error:
                self._fail(job.checkpoint.label, error)
                return  # its tokenizer does not load
            except PLUGIN_ERRORS as error:  # one task that fails must not stop the others
                self._fail(_where(job, claim.task), error)
            else:
                if after:
                    self.pool.ahead(job, after.task)
                yield claim, found

    def _do(self, job: Job, claims: Sequence[Claim], after: Job | None) -> None:
        """Do all claimed cells of a checkpoint, those with choices in one stream; what fails is reported and left."""
        claims = sorted(claims, key=lambda claim: claim.task.generation is not None)
        encoded = self._encoded(job, claims)
        first = next(encoded, None)
        if first is None:
            return
        try:
            engine = self.slot.serve(job)
            self.slot.expect(after)
            for is_drawn, cells in groupby(chain([first], encoded), lambda cell: cell[0].task.generation is not None):
                if is_drawn:
                    self._draw(job, cells, engine)
                else:
                    self._score(job, cells, engine)
            self._tell(job, engine)
        except StoreError:
            raise  # what cannot be kept need not be computed
        except PLUGIN_ERRORS as error:  # an engine may fail in any way; the other checkpoints go on
            self.slot.close()
            self._fail(job.checkpoint.label, error)

    def _score(self, job: Job, cells: Iterable[tuple[Claim, Any]], engine: Engine) -> None:
        """Score the choices of cells in one stream."""
        begun: list[Tally] = []
        greedy = self.slot.setup.greedy
        tallies = (
            Tally(claim, encoded, claim.task.metric in greedy or bool(claim.task.source)) for claim, encoded in cells
        )
        for score in engine.score(requests_of(tallies, begun)):
            key: Any = score.key  # (number, request), as requests_of made it
            tally = begun[key[0]]
            tally.add(key[1], score)
            self.progress.documents(job.checkpoint, tally.documents)
            if not tally.left:
                self._write(job, tally, engine)
        check_all_came(begun)

    def _draw(self, job: Job, cells: Iterable[tuple[Claim, Any]], engine: Engine) -> None:
        """Draw the texts of cells, one cell after the other; a checker or sampler that fails fails its cell alone."""
        for claim, encoded in cells:
            try:
                run = self._sample_run(claim, encoded)
                for documents in run.run(engine):
                    self.progress.documents(job.checkpoint, documents)
                run.seal(engine.describe())
            except PluginError as error:
                self._fail(_where(job, claim.task), error)
                continue
            finally:
                claim.lock.release()
            self.summary.written += 1
            self.progress.cell(job.checkpoint, claim.task)

    def _sample_run(self, claim: Claim, encoded: Any) -> SampleRun:
        """Begin a cell, or go on with what an earlier run left; damaged parts of it are drawn again."""
        sampling = self.slot.setup.sampling
        if sampling is None:
            raise UsageError(f"task {claim.task.name} draws texts, and nothing says how")
        while True:
            try:
                return SampleRun(claim, encoded, sampling, self.store)
            except DamagedFile as error:
                self.progress.note(f"{error.found}; its samples will be drawn again")

    def _tell(self, job: Job, engine: Engine) -> None:
        """Say once where the engine left its usual path."""
        for note in engine.describe().get("notes", ()):
            if note not in self.told:
                self.told.add(note)
                self.progress.note(f"{job.checkpoint.label}: {note}")

    def _write(self, job: Job, tally: Tally, engine: Engine) -> None:
        try:
            self.store.write(tally.claim.cell, tally.records(engine.describe()))
        except EngineError as error:
            self._fail(_where(job, tally.task), error)
            return
        finally:
            tally.claim.lock.release()
        self.summary.written += 1
        self.progress.cell(job.checkpoint, tally.task)

    def _fail(self, where: str, error: BaseException) -> None:
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        failure = Failure(where, error)
        self.summary.failures.append(failure)
        self.progress.failed(failure)

    def _expect_all(self) -> None:
        """Fail what is not in the store although nothing said so: a run is done only when every cell is there."""
        for job in self.plan.jobs:
            for task, _ in self._open_cells(job):
                self._fail(_where(job, task), SuiteError("no record was written, and no error was raised"))

    def _wait_for_others(self) -> None:
        """Wait for cells that other processes hold, one by one; do what a process that died left undone."""
        for job in self.plan.jobs:
            for task, cell in self._open_cells(job):
                self.progress.note(f"{_where(job, task)}: waiting for another process")
                alone = replace(job, cells=((task, cell),))
                while self._open_cells(alone):
                    with self.store.lock(cell).acquire(timeout=-1):
                        pass
                    self._pass([alone])


def _where(job: Job, task: Task) -> str:
    return f"{job.checkpoint.label} {task.name}"


def prepare(
    families: Sequence[str | Family],
    tasks: Sequence[str | Task],
    *,
    store: str | Path | None = None,
    engine: str | None = None,
    options: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    limit: int | None = None,
    subset: str | Path | Sequence[Subset] | None = None,
    truncation: str | None = None,
    rehash: bool = False,
    sampling: Mapping[str, Any] | None = None,
    prompting: Mapping[str, Any] | None = None,
    registries: Registries | None = None,
) -> tuple[Plan, Setup]:
    """Return the plan of `evaluate` with the same arguments; changes nothing on disk.

    With a `store`, the cells that it has are not planned again. Raises StoreError, before weights are read for their
    digests, if no store can be made there.
    """
    registries = registries or default_host()
    chosen = registries.engines[engine or default_engine(registries)]
    greedy = frozenset(name for name in registries.metrics if "greedy" in registries.metrics[name].needs)
    own, chat = take_prompting(prompting or {})
    setup = Setup(chosen, dict(options or {}), truncation, rehash, greedy, chat=chat)
    check_options(setup)
    if truncation is not None and truncation not in TRUNCATION:
        raise UsageError(f"truncation {truncation!r} is none of {choose(TRUNCATION)}")
    checkpoints = [c for f in families for c in (f.checkpoints if isinstance(f, Family) else select(f, registries))]
    check_features(checkpoints, registries)
    found = _tasks(tasks, registries, Path(data) if data else None, limit, own)
    if subset is not None:
        found = take_all(found, load_subsets(subset) if isinstance(subset, (str, Path)) else subset)
    if not checkpoints or not found:
        raise UsageError(f"{len(checkpoints)} checkpoints and {len(found)} tasks are named; expected at least one each")
    if store is not None:
        expect_usable(Path(store))
    drawn = [task for task in found if task.generation]
    if drawn:
        setup = replace(setup, sampling=make_sampling(drawn, registries, **(sampling or {})))
    elif sampling:
        raise UsageError(f"{choose(sampling)}: none of the tasks {choose(task.name for task in found)} draws texts")
    once = list({(c.label, c.source): c for c in checkpoints}.values())
    plan = make_plan(once, found, setup)
    if store is not None and (Path(store) / "store.json").exists():
        plan.look_into(Store(store, sets_aside=False))
    return plan, setup


def take_prompting(asked: Mapping[str, Any]) -> tuple[Prompting, Chat | None]:
    """Return options for prompts, and how conversations are rendered, from one dict; raise UsageError for others."""
    known = {f.name for f in fields(Prompting)} - {"chat"} | {"chat_template"}
    if unknown := set(asked) - known:
        raise UsageError(f"prompting has no option {choose(unknown)}; it has: {choose(known)}")
    template = asked.get("chat_template")
    own = Prompting(chat=template is not None, **{k: v for k, v in asked.items() if k != "chat_template"})
    return own, make_chat(template, system_prompt=own.system_prompt, multiturn=own.multiturn)


def _tasks(
    names: Sequence[str | Task], registries: Registries, data: Path | None, limit: int | None, prompting: Prompting
) -> list[Task]:
    """Return tasks, each once; raise UsageError where one names a metric that nobody registers."""
    found = [
        task
        for item in names
        for task in (
            [as_chat(item, prompting)]
            if isinstance(item, Task)
            else find_tasks([item], registries, data, limit, prompting)
        )
    ]
    for task in found:
        if task.metric not in registries.metrics and not task.source:
            raise UsageError(
                f"task {task.name}: there is no metric {task.metric!r}; there are: {choose(registries.metrics)}"
            )
    return [fingerprinted(task) for task in {task.name: task for task in found}.values()]


def evaluate(
    families: Sequence[str | Family],
    tasks: Sequence[str | Task],
    store: str | Path,
    *,
    progress: Progress | None = None,
    registries: Registries | None = None,
    **settings: Any,
) -> Summary:
    """Score tasks on checkpoints and keep every choice in a store; cells that are there are not done again.

    :param families: FAMILY[:SIZE][@STEPS] by name, family file or checkpoint folder, or `harness.Family` values.
    :param tasks: names, wildcards, prefix:NAME or task folders, or `harness.Task` values.
    :param store: the folder of the store; made if it is not there.
    :param settings: engine, options (a dict for the engine), data, limit, subset (a file of `harness choose`, or its
        Subset values), truncation, rehash; as `harness eval`. For tasks that draw texts, `sampling` is a dict of
        sampler, options (a dict for the sampler), temperature, top_p, seed, keep_texts and allow_code_execution.
        `prompting` is a dict of num_fewshot, fewshot_seed, include_path (folders with further tasks of a source),
        chat_template ("tokenizer", or a file), system_prompt and multiturn.

    Returns a Summary; a checkpoint or task that failed is in `failures`, and the others are done.
    Raises UsageError for names that do not exist, TaskError and FamilyError for files that are wrong, StoreError where
    the store cannot be written; what was written stays.
    """
    expect_usable(Path(store))
    plan, setup = prepare(families, tasks, registries=registries, **settings)
    opened = Store(store, create=True)
    plan.look_into(opened)
    progress = progress or Progress()
    progress.start(plan)
    return Suite(plan, setup, opened, progress).run()
