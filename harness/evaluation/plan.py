"""The plan of a suite: its cells, which of them are in the store, and the cost of the others."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.checkpoints.adapters import adapter_digest
from harness.checkpoints.digests import (
    DigestCache,
    FileStates,
    checkpoint_digest,
    code_digests,
    config_digest,
    expect_no_pickles,
    state_of,
)
from harness.checkpoints.families import complete, locate, notes_on_counts
from harness.checkpoints.hub import origin_on_hub
from harness.checkpoints.text_ends import own_ends
from harness.errors import DamagedFile, EngineError, HarnessError, UsageError, choose, suggest
from harness.evaluation.chat import Chat
from harness.evaluation.engine_contract import expect_info
from harness.evaluation.sampling import Sampling
from harness.host.distribution import missing
from harness.host.origins import PLUGIN_ERRORS, describe
from harness.store.cells import Store
from harness.store.identity import CellId, Settings
from harness.types import Checkpoint, EngineInfo, EngineType, Json, Task
from harness.types.json import JsonObject


@dataclass(frozen=True)
class Job:
    """One checkpoint to evaluate, with the cell of each task."""

    checkpoint: Checkpoint
    folder: Path
    info: EngineInfo
    settings: Settings
    cells: tuple[tuple[Task, CellId], ...]
    files: FileStates  # state before the digest was computed
    trusted: JsonObject = field(default_factory=dict)  # code and pickles that may run; origin on the hub
    chat: Chat | None = None

    @property
    def digest(self) -> str:
        """Return the digest of the checkpoint."""
        return self.cells[0][1].checkpoint


@dataclass(frozen=True)
class Failure:
    """A checkpoint, or a task of one, that could not be evaluated; its text is made before frames are cleared."""

    where: str
    error: BaseException
    text: str = field(init=False)

    def __post_init__(self) -> None:
        text = str(self.error).removeprefix(f"{self.where}: ")
        told = text if isinstance(self.error, HarnessError) else describe(self.error)
        object.__setattr__(self, "text", f"{self.where}: {told}")

    def __str__(self) -> str:
        return self.text


def cell_label(checkpoint: Checkpoint, task: Task) -> str:
    """Return the name of a cell in messages, and in failures of this cell alone."""
    return f"{checkpoint.label} {task.name}"


@dataclass
class Plan:
    """All jobs of a suite; `already_stored` are the names of cells that are in the store."""

    jobs: list[Job] = field(default_factory=list)
    already_stored: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: int = 1  # largest number per document
    keep_tokens: bool = False  # cells without log-probabilities of tokens are not complete

    def look_into(self, store: Store) -> None:
        """Find the complete cells of the store. A damaged one is set aside, reported in a note, and computed again."""
        names = store.cell_names()
        self.notes += _replaced(self.jobs, store, {CellId.of(name).checkpoint for name in names})
        wanted = {cell.name: cell for job in self.jobs for _, cell in job.cells}
        for name in sorted(wanted.keys() & names):
            try:
                store.check(name)
                if store.has(wanted[name], tokens=self.keep_tokens):
                    self.already_stored.add(name)
            except DamagedFile as error:
                if self.keep_tokens or Path(str(error.path)).parent.name != "tokens":
                    self.notes.append(f"{error.problem}; its cell will be computed again")
                else:
                    self.notes.append(f"{error.problem}; --keep-tokens computes it again")
                    self.already_stored.add(name)

    def missing(self) -> Iterator[tuple[Job, Task, CellId]]:
        """Yield the cells to compute; equal cells once."""
        seen = set(self.already_stored)
        for job in self.jobs:
            for task, cell in job.cells:
                if cell.name not in seen:
                    seen.add(cell.name)
                    yield job, task, cell


@dataclass(frozen=True)
class Setup:
    """How a suite wants its checkpoints to be evaluated; `greedy` names the metrics that ask what is greedy.

    `truncation` is None where each task cuts long contexts in its own way.
    """

    engine: EngineType
    options: JsonObject = field(default_factory=dict)
    truncation: str | None = None
    rehash: bool = False
    greedy: frozenset[str] = frozenset()
    sampling: Sampling | None = None
    pickles: tuple[str, ...] = ()  # names of pickled weights that may be loaded
    chat: Chat | None = None
    keep_tokens: bool = False  # log-probabilities of tokens are stored

    def trusted_of(self, folder: Path) -> dict[str, Json]:
        """Return what a checkpoint's files may run when they are loaded, for the provenance of its cells.

        Raises FamilyError for pickles that nobody allowed.
        """
        trusted: dict[str, Json] = {}
        if self.options.get("trust_remote_code"):
            trusted = {"trust_remote_code": True, "remote_code": code_digests(folder)}
        pickles = expect_no_pickles(folder, self.pickles)
        return trusted | ({"pickles": pickles} if pickles else {})

    def settings_of(self, settings: Settings, task: Task) -> Settings:
        """Return the settings of a task's cell: those of the checkpoint and task, and how texts are drawn."""
        settings = replace(settings, truncation=truncation_of(settings, task))
        if self.sampling is None or task.generation is None:
            return replace(settings, sampling={})
        return replace(settings, sampling={**self.sampling.settings(task), **settings.sampling})


def truncation_of(settings: Settings, task: Task) -> str:
    """Return how long contexts of a task are cut: as the suite says, else as the task says, else on the left."""
    return settings.truncation or task.truncation or "left"


def make_plan(checkpoints: Sequence[Checkpoint], tasks: Sequence[Task], setup: Setup) -> Plan:
    """Inspect every checkpoint; one that cannot be used is a failure of the plan."""
    plan = Plan(samples=setup.sampling.sampler.at_most if setup.sampling else 1, keep_tokens=setup.keep_tokens)
    with DigestCache() as cache:
        for checkpoint in checkpoints:
            try:
                plan.jobs.append(_job(checkpoint, tasks, setup, cache))
            except PLUGIN_ERRORS as error:  # an engine may raise any error for an unsupported model
                plan.failures.append(Failure(checkpoint.label, error))
    plan.jobs = _by_shape(plan.jobs)
    plan.notes += _equal_weights(plan.jobs) + notes_on_counts((job.checkpoint, job.folder) for job in plan.jobs)
    return plan


def _job(checkpoint: Checkpoint, tasks: Sequence[Task], setup: Setup, cache: DigestCache) -> Job:
    located, folder = locate(checkpoint)
    trusted = setup.trusted_of(folder) | origin_on_hub(located, folder)
    known = complete(located, folder)
    if known.adapter and not setup.engine.adapters:
        raise EngineError(
            f"the engine {setup.engine.name!r} serves no adapters; use --engine transformers, or save the merged model "
            f"(merge_and_unload of peft) and evaluate its folder"
        )
    info = expect_info(setup.engine.inspect(known, folder, **setup.options), setup.engine.name)
    settings = Settings(
        engine=setup.engine.name,
        dtype=info.dtype,
        quantisation=info.quantisation,
        bos=known.bos,
        max_length=info.max_length,
        truncation=setup.truncation or "",
        sampling=own_ends(folder) if setup.sampling else {},
    )
    if known.adapter:
        info = replace(info, shape="")  # its weights are not those of a file that a swap could be verified against
        settings = replace(settings, adapter=adapter_digest(Path(known.adapter)))
    if setup.chat:
        settings = replace(settings, **setup.chat.settings(folder))
    adapter = known.adapter
    files = state_of(folder, adapter)
    digest = checkpoint_digest(folder, adapter=adapter, rehash=setup.rehash, cache=cache)
    cells = tuple((task, CellId(digest, task.fingerprint, setup.settings_of(settings, task).digest)) for task in tasks)
    return Job(known, folder, info, settings, cells, files, trusted, setup.chat)


def check_options(setup: Setup) -> None:
    """Raise EngineError if modules of the engine are not installed, and UsageError for what it does not offer."""
    if setup.keep_tokens and not setup.engine.tokens:
        raise UsageError(
            f"the engine {setup.engine.name!r} returns no log-probabilities of single tokens; leave --keep-tokens out, "
            "or use --engine transformers"
        )
    if absent := missing(setup.engine.modules):
        raise EngineError(
            f"engine {setup.engine.name!r} needs {choose(absent)}, not installed here: "
            f"{setup.engine.install() if setup.engine.install else 'pip install ' + ' '.join(absent)}"
        )
    for function in (setup.engine.inspect, setup.engine.open_engine):
        parameters = inspect.signature(function).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            continue
        known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        unknown = set(setup.options) - known
        if unknown:
            raise UsageError(
                f"engine {setup.engine.name!r} has no option {choose(unknown)}; {suggest(min(unknown), known)}"
            )


def _by_shape(jobs: Sequence[Job]) -> list[Job]:
    """Group checkpoints by shape, so that one engine serves them, and within a shape by config."""
    first: dict[Hashable, int] = {}
    keys = [(job.info.shape or number, config_digest(job.folder)) for number, job in enumerate(jobs)]
    for number, (shape, config) in enumerate(keys):
        first.setdefault(shape, number)
        first.setdefault((shape, config), number)
    order = sorted(range(len(jobs)), key=lambda i: (first[keys[i][0]], first[keys[i]]))
    return [jobs[i] for i in order]


def _replaced(jobs: Sequence[Job], store: Store, scored: set[str]) -> list[str]:
    """Return a note on checkpoints whose folders had other files, of the digests `scored`, when evaluated before."""
    others = scored - {job.digest for job in jobs}
    earlier = store.labels_at((job.checkpoint for job in jobs), others)
    if not earlier:
        return []
    names = choose(set(earlier.values()))
    about = f"{names} had other weights, config or tokenizer when evaluated before; the store keeps these scores"
    return [f'{about}: leave them out of tables and fits with --where "checkpoint not in {sorted(earlier)}"']


def _equal_weights(jobs: Sequence[Job]) -> list[str]:
    owners: dict[str, list[str]] = {}
    for job in jobs:
        owners.setdefault(job.digest, []).append(job.checkpoint.label)
    return [f"{' and '.join(labels)} have the same weights" for labels in owners.values() if len(set(labels)) > 1]
