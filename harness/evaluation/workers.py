"""A worker: compute cells, one checkpoint after another, in a separate process, and send events to the sweep.

It receives only values that can be pickled (`WorkerSpec` once, then `Orders`). The process that made the plan computes
digests; workers do not repeat this, but compare the files' states to detect changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from harness.checkpoints.digests import FileStates
from harness.errors import EngineError, HarnessError, StoreError, SuiteError
from harness.evaluation.chat import Chat
from harness.evaluation.plan import Failure, Job, Plan, Setup
from harness.evaluation.sampling import SamplingOptions, make_sampling
from harness.evaluation.suite import Progress, Suite
from harness.host import load_plugins
from harness.host.distribution import version
from harness.host.origins import PLUGIN_ERRORS
from harness.host.registries import Registries
from harness.store.cells import Store
from harness.store.identity import CellId, Settings
from harness.types import Checkpoint, Task
from harness.types.json import JsonObject

SECONDS = 0.5  # between two events for documents
Kind = Literal["ready", "documents", "cell", "failed", "note", "done", "lost", "fatal"]
Content = str | int | Failure | None  # of an event: text, a number of documents, a fingerprint, a failure


class Event(NamedTuple):
    """An event of a worker."""

    worker: int
    kind: Kind
    content: Content = None


Tell = Callable[[Kind, Content], None]


@dataclass(frozen=True)
class WorkerSpec:
    """The data from which all workers of a sweep are made."""

    store: Path
    tasks: Mapping[str, Task]  # by fingerprint
    engine: str
    options: JsonObject
    truncation: str | None
    greedy: frozenset[str]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    plugins: tuple[str, ...] = ()
    chat: Chat | None = None
    keep_tokens: bool = False
    version: str = field(default_factory=version)


@dataclass(frozen=True)
class Order:
    """Cells of one checkpoint: (fingerprint, cell) pairs."""

    checkpoint: Checkpoint
    folder: Path
    settings: Settings
    files: FileStates
    cells: tuple[tuple[str, CellId], ...]
    trusted: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Orders:
    """A worker's current order, and the checkpoint that it may read ahead."""

    now: Order
    after: Order | None = None


class Worker:
    """Carry out orders; call `tell(kind, content)` for every event."""

    def __init__(self, spec: WorkerSpec, tell: Tell) -> None:
        _expect_version_and_store(spec)
        self.spec, self.tell = spec, tell
        host = load_plugins(spec.plugins)
        host.check()
        self.messages = _Messages(tell)
        self.suite = Suite(Plan(), setup_of(spec, host), Store(spec.store), self.messages)

    def do(self, orders: Orders) -> None:
        """Compute the cells of an order; report failures and continue. Raises StoreError if the store is unwritable."""
        try:
            job = self._job(orders.now)
        except PLUGIN_ERRORS as error:  # an engine may raise any error; the checkpoint may have vanished
            self.messages.failed(Failure(orders.now.checkpoint.label, error))
            return
        self.suite.serve(job, self._ahead(orders.after))
        self.messages.flush()

    def close(self) -> None:
        """Free the engine."""
        self.suite.slot.close()

    def _ahead(self, order: Order | None) -> Job | None:
        """Return the job of a checkpoint to read ahead, which is only a hint: its errors are reported by its order."""
        try:
            return self._job(order) if order else None
        except PLUGIN_ERRORS:
            return None

    def _job(self, order: Order) -> Job:
        setup = self.suite.slot.setup
        info = setup.engine.inspect(order.checkpoint, order.folder, **setup.options)
        planned = (order.settings.dtype, order.settings.quantisation, order.settings.max_length)
        if planned != (info.dtype, info.quantisation, info.max_length):
            actual = f"{info.dtype}, {info.quantisation}, {info.max_length}"
            raise EngineError(
                f"{order.checkpoint.label}: this worker would compute with dtype, quantisation and max_length "
                f"{actual}; expected {', '.join(map(str, planned))} as planned; use equal devices, or pass -O dtype=..."
            )
        cells = tuple((self.spec.tasks[fingerprint], cell) for fingerprint, cell in order.cells)
        details = (order.files, order.trusted, setup.chat)
        return Job(order.checkpoint, order.folder, info, order.settings, cells, *details)


def _expect_version_and_store(spec: WorkerSpec) -> None:
    """Raise SuiteError if a worker runs a different version or cannot access the store."""
    if spec.version != version():
        raise SuiteError(
            f"this worker has harness {version()}, the sweep {spec.version}; install the same version everywhere"
        )
    if not (spec.store / "store.json").is_file():
        raise SuiteError(f"this worker cannot access the store {spec.store}; use a folder that all nodes share")


def setup_of(spec: WorkerSpec, registries: Registries) -> Setup:
    """Return the setup of a sweep, rebuilt from its values."""
    engine = registries.engines[spec.engine]
    setup = Setup(
        engine, spec.options, spec.truncation, greedy=spec.greedy, chat=spec.chat, keep_tokens=spec.keep_tokens
    )
    drawn = [task for task in spec.tasks.values() if task.generation]
    return replace(setup, sampling=make_sampling(drawn, registries, **spec.sampling)) if drawn else setup


class _Messages(Progress):
    """Send events of a suite; documents are counted and reported together."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self.count, self.told = tell, 0, time.monotonic()

    def documents(self, checkpoint: Checkpoint, n: int) -> None:  # noqa: ARG002  # a worker computes one checkpoint at a time
        """Count documents."""
        self.count += n
        if time.monotonic() - self.told > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Report the number of documents scored since the last report."""
        if self.count:
            self.tell("documents", self.count)
        self.count, self.told = 0, time.monotonic()

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:  # noqa: ARG002
        """Report a written cell."""
        self.flush()
        self.tell("cell", task.fingerprint)

    def failed(self, failure: Failure) -> None:
        """Report a failure as text, because errors of libraries cannot always be pickled."""
        text = str(failure).removeprefix(f"{failure.where}: ")
        self.tell("failed", Failure(failure.where, SuiteError(text)))

    def note(self, text: str) -> None:
        """Report a note."""
        self.tell("note", text)


def serve(spec: WorkerSpec, tell: Tell, orders: Callable[[], Orders | None]) -> None:
    """Run a worker: carry out what `orders()` returns until it returns None.

    One that cannot start, for example without a plugin that the sweep has, tells why it is `lost`.
    """
    try:
        worker = Worker(spec, tell)
    except HarnessError as error:
        tell("lost", str(error))
        return
    tell("ready", None)
    try:
        while (order := orders()) is not None:
            try:
                worker.do(order)
            except StoreError as error:
                tell("fatal", str(error))
                return
            tell("done", None)
    finally:
        worker.close()
