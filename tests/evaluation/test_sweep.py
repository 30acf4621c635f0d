"""Sweeps over several workers: no other checkpoint pays for one that vanishes, or that kills its worker."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import harness
from harness.errors import SuiteError
from harness.evaluation.preparation import prepare
from harness.evaluation.suite import Progress, Summary
from harness.evaluation.sweep import Sweep, drive, run_with_executor
from harness.evaluation.workers import Event, Orders, Worker
from harness.host import load_plugins
from harness.store.cells import Store
from tests.evaluation.test_suite import make_task

ENGINE = """
import harness
from harness.testing import inspect_fake, open_fake

def inspect(checkpoint, folder):
    (folder / "config.json").read_text()
    return inspect_fake(checkpoint, folder)

@harness.hookimpl
def register_engines(register):
    register("careful", open_fake, inspect, tokens=True)
"""
TASKS = [make_task("one"), make_task("two"), make_task("three")]
LOG = 'the process ended by signal 11\nTraceback (most recent call last):\n  File "x.py", line 1\nMemoryError: no room'


@dataclass
class HerePool:
    """Workers in this process; a worker dies at every order for a checkpoint whose step is deadly."""

    sweep: Sweep
    size: int
    deadly: frozenset[int]
    waiting: deque[Event] = field(default_factory=deque)
    workers: dict[int, Worker] = field(default_factory=dict)
    started: int = 0

    def start(self, worker: int) -> None:
        self.started += 1
        self.workers[worker] = Worker(
            self.sweep.spec, lambda kind, content: self.waiting.append(Event(worker, kind, content))
        )
        self.waiting.append(Event(worker, "ready"))

    def give(self, worker: int, orders: Orders) -> None:
        if orders.now.checkpoint.step in self.deadly:
            self.waiting.append(Event(worker, "lost", LOG))
            return
        self.workers[worker].do(orders)
        self.waiting.append(Event(worker, "done"))

    def events(self) -> Iterator[Event]:
        yield self.waiting.popleft()

    def stop(self) -> None: ...


class Told(Progress):
    """Keeps what a sweep tells; acts when it starts."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act, self.notes, self.failures, self.started = act, list[str](), list[str](), 0

    def start(self, plan) -> None:
        self.act()

    def failed(self, failure) -> None:
        self.failures.append(str(failure))

    def note(self, text) -> None:
        self.notes.append(text)


def sweep(
    tmp_path: Path, family: harness.Family, act: Callable[[], None] = bool, *, workers: int = 2, deadly: tuple = ()
) -> tuple[Summary, Told]:
    """Evaluate a family with workers in this process."""
    (tmp_path / "careful.py").write_text(ENGINE)
    registries = load_plugins([str(tmp_path / "careful.py")])
    plan, setup = prepare([family], TASKS, engine="careful", registries=registries)
    store, told = Store(tmp_path / "store", create=True), Told(act)
    plan.look_into(store)
    told.start(plan)

    def executor(planned: Sweep) -> None:
        pool = HerePool(planned, workers, frozenset(deadly))
        drive(planned, pool)
        told.started = pool.started

    summary = run_with_executor(executor, plan, setup, store, told, registries=registries, sampling=None)
    return summary, told


@pytest.fixture
def family(tmp_path) -> harness.Family:
    """Return six checkpoints with folders of their own."""
    checkpoints = []
    for step in range(1, 7):
        folder = tmp_path / "models" / str(step)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"step": step}))
        header = json.dumps({"__metadata__": {"step": str(step)}}).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        checkpoints.append(harness.Checkpoint("fam", "s", step, 0, str(folder), params=10, tokens=5.0))
    return harness.Family("fam", tuple(checkpoints))


@pytest.mark.parametrize("files", ["", "config.json"], ids=["folder", "config"])
def test_a_checkpoint_that_vanishes_in_a_sweep_fails_alone_and_once(tmp_path, family, files):
    """Each worker died at it three times, and the sweep ended with a traceback: `all workers failed`."""
    folder = tmp_path / "models" / "3"

    def vanish() -> None:
        shutil.move(folder / files, tmp_path / "aside")

    summary, told = sweep(tmp_path, family, vanish)
    assert summary.written == 5 * len(TASKS)
    (failure,) = told.failures
    assert failure.startswith("fam:s@3: ")
    assert str(folder) in failure
    shutil.move(tmp_path / "aside", folder / files)
    assert sweep(tmp_path, family)[0].written == len(TASKS)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_checkpoint_that_kills_its_workers_does_not_end_the_sweep(tmp_path, family, workers):
    summary, told = sweep(tmp_path, family, workers=workers, deadly=(2, 5))
    assert summary.written == 4 * len(TASKS)
    assert sorted(failure.split(": ")[0] for failure in told.failures) == ["fam:s@2", "fam:s@5"]
    assert all("workers died at it: the process ended by signal 11" in failure for failure in told.failures)
    assert not any("File" in text for text in told.failures + told.notes)
    assert "worker 0 was lost: the process ended by signal 11: MemoryError: no room; " in told.notes[0]
    assert sweep(tmp_path, family)[0].written == 2 * len(TASKS)


def test_no_more_workers_are_started_than_there_are_cells(tmp_path, family):
    """`--workers 1000` started a thousand processes for two cells."""
    few = harness.Family("fam", family.checkpoints[:1])
    assert sweep(tmp_path, few, workers=1000)[1].started == len(TASKS)
    assert sweep(tmp_path, few, workers=1000)[1].started == 0


def test_a_worker_that_dies_at_every_checkpoint_is_not_started_again_and_again(tmp_path, family):
    with pytest.raises(SuiteError, match="all workers failed; the last output of the first was: the process ended by"):
        sweep(tmp_path, family, workers=1, deadly=tuple(range(1, 7)))


def test_cells_without_the_tokens_that_were_asked_for_are_failures(tmp_path, family):
    """The records of an earlier run passed for cells with the log-probabilities of tokens."""
    few = harness.Family("fam", family.checkpoints[:1])
    sweep(tmp_path, few)
    registries = load_plugins([str(tmp_path / "careful.py")])
    plan, setup = prepare([few], TASKS, engine="careful", keep_tokens=True, registries=registries)
    store = Store(tmp_path / "store")
    plan.look_into(store)
    assert not plan.already_stored
    summary = run_with_executor(lambda _: None, plan, setup, store, Progress(), registries=registries, sampling=None)
    why = "no record was written, and no error was raised"
    assert [str(failure) for failure in summary.failures] == [f"fam:s@1 {task.name}: {why}" for task in TASKS]
