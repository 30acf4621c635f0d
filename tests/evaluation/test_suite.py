"""Suites: only missing cells are scored, failures stay local, and no result is lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import (
    Checkpoint,
    ChoiceScore,
    Doc,
    EngineError,
    Family,
    LawError,
    StoreError,
    SuiteError,
    Task,
    UsageError,
)
from harness.checkpoints.families import select
from harness.evaluation.costs import costs
from harness.evaluation.evaluate import evaluate
from harness.evaluation.plan import Failure, Plan, Setup, make_plan
from harness.evaluation.preparation import prepare
from harness.evaluation.suite import Progress, Suite
from harness.host import load_plugins
from harness.store.cells import Store
from harness.store.check import check_store
from harness.tasks.loading import fingerprint
from harness.testing import FakeEngine, inspect_fake, open_fake
from harness.types import Request
from tests.conftest import run_together


def make_task(name: str, n: int = 3, **settings) -> Task:
    docs = tuple(Doc(str(i), (f"{name} {i}",), (" yes", " no"), ("yes", "no"), (i % 2,)) for i in range(n))
    return Task(name, "choice", docs, fingerprint("choice", False, docs), **settings)


@pytest.fixture
def family(tmp_path) -> Family:
    """Three checkpoints with folders of their own; the engine without a model does not read them."""
    checkpoints = []
    for step in (1, 2, 3):
        folder = tmp_path / "models" / str(step)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"step": step}))
        header = json.dumps({"__metadata__": {"step": str(step)}}).encode()
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
        checkpoints.append(Checkpoint("fam", "s", step, 0, str(folder), params=10, tokens=5.0))
    return Family("fam", tuple(checkpoints))


class Recorder(Progress):
    """Writes down what a suite tells."""

    def __init__(self) -> None:
        self.cells: list[tuple[str, str]] = []
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.docs = 0
        self.already_stored = 0

    def start(self, plan: Plan) -> None:
        self.already_stored = len(plan.already_stored)
        self.notes += plan.notes

    def cell(self, checkpoint: Checkpoint, task: Task) -> None:
        self.cells.append((checkpoint.label, task.name))

    def failed(self, failure: Failure) -> None:
        self.failures.append(str(failure))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def documents(self, checkpoint: Checkpoint, n: int) -> None:
        self.docs += n


def host_with(engine: str, open_engine, inspect=inspect_fake) -> harness.PluginHost:
    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_engines(register):
            register(engine, open_engine, inspect)

    host = load_plugins()
    host.add(Plugin, engine)
    return host


def run(families, tasks, store: Path, host, engine: str = "fake", **settings):
    progress = Recorder()
    summary = evaluate(families, tasks, store, engine=engine, registries=host, progress=progress, **settings)
    return summary, progress


def test_every_choice_of_every_document_is_stored(tmp_path, family, fake_host):
    summary, progress = run([family], [make_task("a"), make_task("b")], tmp_path / "s", fake_host)
    assert (summary.written, summary.already_stored, summary.failures) == (6, 0, [])
    assert progress.docs == 18
    frame = harness.open_store(tmp_path / "s").scores()
    assert len(frame) == 3 * 2 * 3 * 2
    assert sorted(set(frame["step"])) == [1, 2, 3]


def test_stored_scores_are_those_of_the_engine(tmp_path, family, fake_host):
    run([family], [make_task("a")], tmp_path / "s", fake_host)
    frame = harness.open_store(tmp_path / "s").scores()
    row = frame[(frame["step"] == 2) & (frame["doc_id"] == "1") & (frame["choice"] == 1)].iloc[0]
    engine = FakeEngine("fam:s@2")
    ids = [256, *b"a 1", *b" no"]
    expected = sum(engine.table(before)[after] for before, after in pairwise(ids[3:]))
    assert row["logprob"] == pytest.approx(expected)
    assert row["n_tokens"] == 3


def test_resume_scores_only_missing_cells(tmp_path, family, fake_host):
    store = tmp_path / "s"
    run([family], [make_task("a")], store, fake_host)
    before = {file: file.stat().st_mtime_ns for file in (store / "records").iterdir()}
    summary, progress = run([family], [make_task("a"), make_task("b")], store, fake_host)
    assert (summary.written, summary.already_stored, progress.already_stored) == (3, 3, 3)
    assert {task for _, task in progress.cells} == {"b"}
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in before.items())


def test_nothing_is_opened_when_nothing_is_missing(tmp_path, family, fake_host):
    run([family], [make_task("a")], tmp_path / "s", fake_host)

    @contextmanager
    def refuse(*_, **__):
        raise AssertionError("an engine was opened")
        yield

    summary, _ = run([family], [make_task("a")], tmp_path / "s", host_with("fake", refuse))
    assert (summary.written, summary.already_stored) == (0, 3)


def test_another_setting_is_another_cell(tmp_path, family, fake_host):
    run([family], [make_task("a")], tmp_path / "s", fake_host)
    summary, _ = run([family], [make_task("a")], tmp_path / "s", fake_host, options={"max_length": 99})
    assert summary.written == 3
    summary, _ = run([family], [make_task("a")], tmp_path / "s", fake_host, truncation="lm_eval")
    assert summary.written == 3
    summary, _ = run([family], [make_task("a", 4)], tmp_path / "s", fake_host)
    assert summary.written == 3


def test_one_engine_serves_checkpoints_of_one_shape(tmp_path, family):
    engines: list[FakeEngine] = []

    @contextmanager
    def remember(checkpoint, folder, **options):
        with open_fake(checkpoint, folder, **options) as engine:
            engines.append(engine)
            yield engine

    run([family], [make_task("a"), make_task("b")], tmp_path / "s", host_with("one", remember), "one")
    assert [engine.served for engine in engines] == [["fam:s@1", "fam:s@2", "fam:s@3"]]


def test_checkpoints_of_one_architecture_follow_each_other(host):
    """Whatever the order in which they are named: a swap within one architecture only copies weights."""
    names = ["aster:w32l2@100", "birch:w32l2", "aster:w64l2@100", "aster:w32l2@1600", "cedar:w32l2", "aster:w64l2@200"]
    checkpoints = [checkpoint for name in names for checkpoint in select(name, host)]
    plan = make_plan(checkpoints, [make_task("a")], Setup(host.engines["transformers"]))
    order = [job.checkpoint.label.removesuffix("@1600") for job in plan.jobs]
    assert order == [names[0], "aster:w32l2", names[1], names[2], names[5], names[4]]


def test_a_failing_checkpoint_is_reported_and_the_others_go_on(tmp_path, family):
    @contextmanager
    def moody(checkpoint, folder, **options):
        if checkpoint.step == 2:
            raise RuntimeError("cannot open this one")
        with open_fake(checkpoint, folder, **options) as engine:
            engine.swap = lambda checkpoint, folder: (_ for _ in ()).throw(RuntimeError("cannot swap this one"))
            yield engine

    summary, progress = run([family], [make_task("a")], tmp_path / "s", host_with("moody", moody), "moody")
    assert progress.failures == ["fam:s@2: plugin 'moody', engine 'moody': RuntimeError: cannot swap this one"]
    assert [label for label, _ in progress.cells] == ["fam:s@1", "fam:s@3"]
    with pytest.raises(SuiteError, match="1 failed, 2 cells written"):
        summary.check()


def test_an_engine_that_failed_is_out_of_memory_before_the_next_one_is_opened(tmp_path, family):
    """Its error, which the summary keeps, held the variables of all frames, and so the model on the GPU."""

    class Model:
        """Stands for weights in memory."""

    models: list[weakref.ref[Model]] = []
    alive: list[int] = []

    class Failing(FakeEngine):
        def score(self, requests):
            model, cause = self.model, ValueError("bad number")
            try:
                raise cause
            except ValueError as error:
                raise RuntimeError(f"{type(model).__name__} failed") from error
            yield

    @contextmanager
    def open_failing(checkpoint, folder):
        alive.append(sum(model() is not None for model in models))
        engine = Failing(checkpoint.label)
        engine.model = Model()
        models.append(weakref.ref(engine.model))
        yield engine
        engine.model = None

    host = host_with("failing", open_failing)
    summary, progress = run([family], [make_task("a")], tmp_path / "s", host, "failing")
    assert alive == [0, 0, 0]
    assert progress.failures[0] == "fam:s@1: plugin 'failing', engine 'failing': RuntimeError: Model failed"
    assert [str(failure) for failure in summary.failures] == progress.failures


def test_a_checkpoint_without_files_is_reported_and_the_others_go_on(tmp_path, family, fake_host):
    broken = Family("fam", (*family.checkpoints, Checkpoint("fam", "s", 9, 0, str(tmp_path / "nowhere"))))
    summary, progress = run([broken], [make_task("a")], tmp_path / "s", fake_host)
    assert summary.written == 3
    assert "fam:s@9: no config.json" in progress.failures[0]


def test_a_task_that_cannot_be_tokenised_fails_alone(tmp_path, family, fake_host):
    long = Task("long", "choice", (Doc("0", ("Q",), (" a", " b" * 300), ("a", "b"), (0,)),), "f" * 16)
    summary, progress = run([family], [long, make_task("a")], tmp_path / "s", fake_host)
    assert summary.written == 3
    assert len(progress.failures) == 3
    assert "fam:s@1 long: task long, document 0: a continuation of 600 tokens does not fit" in progress.failures[0]


class Broken(FakeEngine):
    """An engine whose third document is wrong in some way."""

    how = ""

    def score(self, requests):
        for n, score in enumerate(super().score(requests)):
            if n != 2:
                yield score
            elif self.how == "nan":
                yield ChoiceScore(score.key, np.full(2, np.nan), None)
            elif self.how == "dies":
                raise RuntimeError("the device fell off")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "fam:s@1 a: document 2, choice 0: the log-probability is nan"),
        ("dies", "fam:s@1: plugin 'broken', engine 'broken': RuntimeError: the device fell off"),
        ("forgets", "fam:s@1: a: 1 of 3 results are missing"),
    ],
)
def test_wrong_scores_are_not_stored(tmp_path, family, how, message):
    @contextmanager
    def open_broken(checkpoint, folder):
        engine = Broken(checkpoint.label)
        engine.how = how
        yield engine

    first = Family("fam", family.checkpoints[:1])
    summary, progress = run([first], [make_task("a")], tmp_path / "s", host_with("broken", open_broken), "broken")
    assert progress.failures[0].startswith(message)
    assert summary.written == 0
    assert Store(tmp_path / "s").cell_names() == set()


def test_cells_written_before_an_engine_dies_are_kept(tmp_path, family):
    class Dies(FakeEngine):
        def score(self, requests):
            for n, score in enumerate(super().score(requests)):
                if n == 4:
                    raise EngineError("the device fell off")
                yield score

    @contextmanager
    def open_dying(checkpoint, folder):
        yield Dies(checkpoint.label)

    first = Family("fam", family.checkpoints[:1])
    summary, _ = run([first], [make_task("a"), make_task("b")], tmp_path / "s", host_with("dying", open_dying), "dying")
    assert summary.written == 1
    assert len(Store(tmp_path / "s").cell_names()) == 1


def test_a_damaged_cell_is_said_and_computed_again(tmp_path, family, fake_host):
    store = tmp_path / "s"
    run([family], [make_task("a")], store, fake_host)
    victim = sorted((store / "records").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:100])
    summary, progress = run([family], [make_task("a")], store, fake_host)
    assert (summary.written, summary.already_stored) == (1, 2)
    assert f"{victim} is damaged" in progress.notes[0]
    assert len(harness.open_store(store).scores()) == 18


def test_equal_weights_are_said_and_scored_once(tmp_path, family, fake_host):
    twin = Family("twin", (Checkpoint("twin", "s", 1, 0, family.checkpoints[0].source),))
    summary, progress = run([family, twin], [make_task("a")], tmp_path / "s", fake_host)
    assert summary.written == 3
    assert progress.notes == ["fam:s@1 and twin:s@1 have the same weights"]


def test_a_cell_that_another_process_holds_is_waited_for(tmp_path, family, fake_host):
    """The other process dies without writing it; the cell is then done here."""
    store = Store(tmp_path / "s", create=True)
    plan, _ = prepare([family], [make_task("a")], engine="fake", registries=fake_host)
    lock = store.lock(plan.jobs[1].cells[0][1])
    lock.acquire()
    progress = Recorder()
    done: list = []
    thread = threading.Thread(
        target=lambda: done.append(
            evaluate([family], [make_task("a")], store.path, engine="fake", registries=fake_host, progress=progress)
        )
    )
    thread.start()
    while not progress.notes:
        thread.join(0.01)
    assert [label for label, _ in progress.cells] == ["fam:s@1", "fam:s@3"]
    assert progress.notes == ["fam:s@2 a: waiting for another process"]
    lock.release()
    thread.join(30)
    assert done[0].written == 3
    assert progress.cells[-1] == ("fam:s@2", "a")


def test_a_cell_that_another_process_wrote_is_not_done_again(tmp_path, family, fake_host):
    store = Store(tmp_path / "s", create=True)
    plan, _ = prepare([family], [make_task("a")], engine="fake", registries=fake_host)
    other = tmp_path / "other"
    run([family], [make_task("a")], other, fake_host)
    cell = plan.jobs[0].cells[0][1]
    lock = store.lock(cell)
    lock.acquire()
    progress = Recorder()
    progress.note = lambda text: (  # type: ignore[method-assign]
        (other / "records" / f"{cell.name}.parquet").rename(store.path / "records" / f"{cell.name}.parquet"),
        lock.release(),
    )
    summary = evaluate([family], [make_task("a")], store.path, engine="fake", registries=fake_host, progress=progress)
    assert summary.written == 2
    assert len(store.cell_names()) == 3


@pytest.mark.soak
def test_two_processes_share_a_store_and_do_no_cell_twice(tmp_path):
    """Real processes with a real engine: every cell is written by exactly one of them."""
    command = [
        sys.executable, "-m", "harness", "eval", "aster:w32l2", "-t", "nano_job,nano_flag,nano_addition",
        "--limit", "40", "-o", str(tmp_path / "s"),
    ]  # fmt: skip
    environment = {**os.environ, "HARNESS_PROGRESS_SECONDS": "0"}  # a line for every cell
    statuses, logs = run_together([command, command], env=environment)
    assert statuses == [0, 0], logs
    lines = [line for log in logs for line in log.splitlines() if "documents/s" in line]
    written = [line.split()[1] + line.split()[2] for line in lines]
    already_stored = [int(log.split()[0]) for log in logs]
    assert len(set(written)) == len(written) <= 15
    assert len(Store(tmp_path / "s").cell_names()) == 15
    assert max(already_stored) + len(written) >= 15


def test_options_that_the_engine_does_not_have_are_refused(tmp_path, family, fake_host):
    with pytest.raises(UsageError, match="engine 'fake' has no option max_lenght; did you mean 'max_length'"):
        run([family], [make_task("a")], tmp_path / "s", fake_host, options={"max_lenght": 5})


def test_a_dry_run_counts_cells_documents_tokens_and_flops(tmp_path, family, fake_host):
    run([Family("fam", family.checkpoints[:1])], [make_task("a")], tmp_path / "s", fake_host)
    plan, _ = prepare([family], [make_task("a"), make_task("b", 2)], engine="fake", registries=fake_host)
    plan.look_into(Store(tmp_path / "s"))
    a, b = costs(plan)
    tokens = 3 * ((4 + 4) + (4 + 3))  # BOS and "a 0", then " yes" or " no"
    assert (a.task, a.cells, a.documents, a.tokens, a.flops) == ("a", 2, 6, 2 * tokens, 2 * 10 * 2 * tokens)
    assert (b.cells, b.documents) == (3, 6)


def test_requests_of_a_cell_carry_its_number(tmp_path, family):
    seen: list[Request] = []

    class Watching(FakeEngine):
        def score(self, requests):
            for request in requests:
                seen.append(request)
                yield from super().score([request])

    @contextmanager
    def open_watching(checkpoint, folder):
        yield Watching(checkpoint.label)

    first = Family("fam", family.checkpoints[:1])
    run([first], [make_task("a"), make_task("b")], tmp_path / "s", host_with("watching", open_watching), "watching")
    assert [request.cell for request in seen] == [0, 0, 0, 1, 1, 1]


class Then(FakeEngine):
    """An engine that does something at its fifth document."""

    def __init__(self, label: str, then) -> None:
        super().__init__(label)
        self.then = then

    def score(self, requests):
        for n, score in enumerate(super().score(requests)):
            if n == 4:
                self.then()
            yield score


def host_then(then) -> harness.PluginHost:
    @contextmanager
    def open_then(checkpoint, folder):
        yield Then(checkpoint.label, then)

    return host_with("then", open_then)


def test_a_full_disk_stops_the_suite_and_keeps_what_was_written(tmp_path, family, monkeypatch):
    """What cannot be kept need not be computed."""
    import os

    def full(*_):
        raise OSError(28, "No space left on device")

    def fill() -> None:
        while not Store(store).cell_names():
            time.sleep(0.01)  # the first cell is written meanwhile
        monkeypatch.setattr(os, "fsync", full)

    host = host_then(fill)
    store = tmp_path / "s"
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        run([family], [make_task("a"), make_task("b")], store, host, "then")
    monkeypatch.undo()
    assert len(Store(store).cell_names()) == 1
    assert not list(store.rglob("*.tmp"))


def disguised() -> None:
    """Ctrl-C as compiled modules pass it on while they are imported."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", [interrupt, disguised])
def test_an_interrupt_ends_the_suite_and_is_no_failure_of_a_checkpoint(tmp_path, family, fake_host, how):
    store = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        run([family], [make_task("a"), make_task("b")], store, host_then(how), "then")
    assert len(Store(store).cell_names()) == 1
    summary, _ = run([family], [make_task("a"), make_task("b")], store, fake_host)
    assert summary.written == 6  # cells of another engine; nothing is locked any more


def test_a_place_that_cannot_be_a_store_is_known_before_weights_are_read(tmp_path, family, fake_host):
    (tmp_path / "file").write_text("")
    (Path(family.checkpoints[0].source) / "model.safetensors").unlink()
    with pytest.raises(StoreError, match="no store can be made at .*file/s: .*file is not a folder"):
        run([family], [make_task("a")], tmp_path / "file" / "s", fake_host)


@pytest.mark.parametrize(
    ("families", "tasks", "settings", "message"),
    [
        ([], ["nano_job"], {}, "0 checkpoints and 1 tasks are named"),
        (["aster"], [], {}, "checkpoints and 0 tasks are named"),
        (["aster"], ["nano_job"], {"truncation": "right"}, "truncation 'right'; expected one of"),
        (["aster"], [make_task("a", metric="accc")], {}, "task a: there is no metric 'accc'; did you mean 'acc'"),
        (["aster"], [make_task("a", metric="acc_norm")], {}, "no metric 'acc_norm'; .* called 'acc_char' here"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_is_made(
    tmp_path, fake_host, families, tasks, settings, message
):
    with pytest.raises(UsageError, match=message):
        run(families, tasks, tmp_path / "s", fake_host, **settings)
    assert not (tmp_path / "s").exists()


def test_an_engine_that_breaks_its_contract_is_named(tmp_path, family):
    @contextmanager
    def open_nothing(checkpoint, folder):
        yield 3

    _, progress = run([family], [make_task("a")], tmp_path / "s", host_with("odd", open_nothing), "odd")
    assert progress.failures[0] == "fam:s@1: engine 'odd' opened 3; expected a harness.Engine"
    host = host_with("odder", open_nothing)
    object.__setattr__(host.engines["odder"], "inspect", lambda *_: 3)
    _, progress = run([family], [make_task("a")], tmp_path / "t", host, "odder")
    assert progress.failures[0] == "fam:s@1: inspect of engine 'odder' returned 3; expected a harness.EngineInfo"


def test_a_tokenizer_that_does_not_load_is_said_once_a_checkpoint(tmp_path, family):
    host = host_with("fake", open_fake)

    def inspect(checkpoint, folder):
        return replace(inspect_fake(checkpoint, folder), load_tokenizer=lambda: {}["added_tokens"])

    object.__setattr__(host.engines["fake"], "inspect", inspect)
    _, progress = run([family], [make_task("a"), make_task("b")], tmp_path / "s", host)
    assert len(progress.failures) == 3
    assert "fam:s@1: the tokenizer in" in progress.failures[0]
    assert "does not load: KeyError: 'added_tokens'" in progress.failures[0]


def test_notes_of_an_engine_are_told_once(tmp_path, family):
    class Noting(FakeEngine):
        def describe(self):
            return {"notes": ["left the fast path"]}

    @contextmanager
    def open_noting(checkpoint, folder):
        yield Noting(checkpoint.label)

    _, progress = run([family], [make_task("a")], tmp_path / "s", host_with("noting", open_noting), "noting")
    assert progress.notes == ["fam:s@1: left the fast path"]


@pytest.mark.parametrize(("metric", "asked"), [("acc", False), ("greedy_match", True)])
def test_engines_are_asked_what_is_greedy_where_a_metric_needs_it(tmp_path, family, metric, asked):
    seen = []

    class Listening(FakeEngine):
        def score(self, requests):
            requests = list(requests)
            seen.extend(request.greedy for request in requests)
            for score in super().score(requests):
                yield score if requests[0].greedy else replace(score, is_greedy=None)

    @contextmanager
    def listening(checkpoint, folder):
        yield Listening(checkpoint.label)

    run([family], [make_task("a", metric=metric)], tmp_path / "s", host_with("ears", listening), "ears")
    assert set(seen) == {asked}
    store = harness.open_store(tmp_path / "s")
    assert all((store.read(cell.id.name).is_greedy is not None) == asked for cell in store.cells())


def test_the_engine_that_a_plugin_prefers_is_used_where_none_is_named(tmp_path, family):
    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_engines(register):
            register("mine", open_fake, inspect_fake, preferred=lambda: True)

    host = load_plugins()
    host.add(Plugin, "mine")
    _, setup = prepare([family], [make_task("a")], registries=host)
    assert setup.engine.name == "mine"
    _, setup = prepare([family], [make_task("a")], registries=host, engine="transformers")
    assert setup.engine.name == "transformers"
    _, setup = prepare(["aster:w32l2"], [make_task("a")], registries=load_plugins())
    assert setup.engine.name == "transformers"


def test_weights_that_change_after_the_plan_are_not_stored_under_the_old_digest(tmp_path, family, fake_host):
    plan, setup = prepare([family], [make_task("a")], store=tmp_path / "s", engine="fake", registries=fake_host)
    weights = Path(family.checkpoints[1].source) / "model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b"2", b"9"))
    summary = Suite(plan, setup, Store(tmp_path / "s", create=True), Recorder()).run()
    (failure,) = summary.failures
    assert summary.written == 2
    assert "changed since the plan was made" in str(failure)


def test_files_that_were_only_touched_after_the_plan_are_scored(tmp_path, family, fake_host):
    plan, setup = prepare([family], [make_task("a")], store=tmp_path / "s", engine="fake", registries=fake_host)
    (Path(family.checkpoints[1].source) / "model.safetensors").touch()
    assert Suite(plan, setup, Store(tmp_path / "s", create=True), Recorder()).run().written == 3


def test_weights_that_change_while_they_are_loaded_are_not_stored(tmp_path, family):
    class Replaced(FakeEngine):
        def swap(self, checkpoint, folder):
            super().swap(checkpoint, folder)
            if checkpoint.step == 2:
                (folder / "config.json").write_text('{"step": 9}')

    @contextmanager
    def open_replaced(checkpoint, folder):
        yield Replaced(checkpoint.label)

    summary, progress = run([family], [make_task("a")], tmp_path / "s", host_with("r", open_replaced), "r")
    assert summary.written == 2
    assert "changed while it was loaded" in progress.failures[0]


def test_a_checkpoint_that_is_deleted_while_another_is_scored_fails_alone(tmp_path, family):
    """Reading ahead finds it gone; that is not the fault of the one that is being scored."""

    class ReadsAhead(FakeEngine):
        def prefetch(self, checkpoint, folder):
            if checkpoint.step == 2:
                (folder / "model.safetensors").unlink(missing_ok=True)
                (folder / "model.safetensors").read_bytes()

    @contextmanager
    def open_ahead(checkpoint, folder):
        yield ReadsAhead(checkpoint.label)

    summary, progress = run([family], [make_task("a")], tmp_path / "s", host_with("ahead", open_ahead), "ahead")
    assert summary.written == 2
    assert [failure.split(": ")[0] for failure in progress.failures] == ["fam:s@2"]


@pytest.mark.parametrize("how", ["python", "hook", "source"])
def test_gold_that_changed_is_another_cell_whatever_fingerprint_its_author_gave(tmp_path, family, how):
    """A task made in Python, by register_tasks or by a source: fingerprints are computed from the content."""

    def summary_of(gold: int):
        doc = Doc("0", ("Q",), (" yes", " no"), ("yes", "no"), (gold,))
        task = Task("own", "choice", (doc,), "f" * 16)

        class Plugin:
            @staticmethod
            @harness.hookimpl
            def register_tasks(register):
                register(task)

            @staticmethod
            @harness.hookimpl
            def register_sources(register):
                register("mine", lambda name: task, lambda: ["own"])

        host = host_with("fake", open_fake)
        host.add(Plugin, "mine")
        asked = {"python": task, "hook": "own", "source": "mine:own"}[how]
        return run([family], [asked], tmp_path / "s", host)[0]

    assert [summary_of(gold).written for gold in (0, 1, 1)] == [3, 3, 0]


def test_claims_do_not_list_the_store(tmp_path, family, fake_host, monkeypatch):
    """Whether a cell is done is a look-up; the store is listed once, for the plan."""
    listed: list[int] = []
    cell_names = Store.cell_names
    monkeypatch.setattr(Store, "cell_names", lambda self: (listed.append(1), cell_names(self))[1])
    run([family], [make_task(name) for name in "abcd"], tmp_path / "s", fake_host)
    assert len(listed) == 1


def test_a_cell_written_before_its_lock_was_taken_is_not_scored_again(tmp_path, family, fake_host, monkeypatch):
    """Another process writes the cell after the plan looked, and frees its lock before this one takes it."""
    run([family], [make_task("a")], tmp_path / "other", fake_host)
    lock = Store.lock

    def lock_after_another_process(self, cell):
        name = f"records/{cell.name}.parquet"
        (self.path / name).write_bytes((tmp_path / "other" / name).read_bytes())
        return lock(self, cell)

    monkeypatch.setattr(Store, "lock", lock_after_another_process)
    summary, progress = run([family], [make_task("a")], tmp_path / "s", fake_host)
    assert (summary.written, progress.docs, progress.failures) == (0, 0, [])


def test_prepare_changes_nothing_on_disk(tmp_path, family, fake_host):
    """It made the store, and moved damaged files away, before anything was evaluated."""
    prepare([family], [make_task("a")], store=tmp_path / "s", engine="fake", registries=fake_host)
    assert not (tmp_path / "s").exists()
    run([family], [make_task("a")], tmp_path / "s", fake_host)
    records = sorted((tmp_path / "s" / "records").glob("*.parquet"))
    records[0].write_bytes(b"")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    plan, _ = prepare([family], [make_task("a")], store=tmp_path / "s", engine="fake", registries=fake_host)
    assert [cell.name for _, _, cell in plan.missing()] == [records[0].stem]
    assert plan.notes == [f"{records[0]} is damaged (it is empty); its cell will be computed again"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_evaluation_opens_the_store_once(tmp_path, family, fake_host, monkeypatch):
    opened: list[Path] = []
    init = Store.__init__
    monkeypatch.setattr(
        Store, "__init__", lambda self, *args, **kw: (opened.append(args[0]), init(self, *args, **kw))[1]
    )
    harness.evaluate([family], [make_task("a")], tmp_path / "s", engine="fake", registries=fake_host)
    assert opened == [tmp_path / "s"]


def test_compare_takes_a_folder_of_which_neither_size_nor_compute_is_known(tmp_path, family, fake_host):
    """TypeError: float() argument must be a string or a real number, not 'NoneType'."""
    folder = Family("model", (Checkpoint("model", "model", None, 0, family.checkpoints[0].source),))
    run([folder], [make_task("a")], tmp_path / "s", fake_host)
    families, ladder, *_ = harness.compare(harness.open_store(tmp_path / "s", registries=fake_host))
    assert families.rows[0][:2] == ("a", "acc")
    assert ladder.rows[0][:4] == ("model", "model", None, None)


def test_two_weights_of_one_name_are_told_apart_by_the_checkpoint(tmp_path, family, fake_host):
    """Where the checkpoint differs, compare does not advise to choose by settings, which are equal.

    To select one checkpoint, as it did, would drop all others.
    """
    retrained = replace(family.checkpoints[0], source=family.checkpoints[1].source)
    for checkpoint in (family.checkpoints[0], retrained):
        run([Family("fam", (checkpoint,))], [make_task("a")], tmp_path / "s", fake_host)
    store = harness.open_store(tmp_path / "s", registries=fake_host)
    with pytest.raises(
        StoreError, match=r"several cells of a \(checkpoint \w+, \w+\); leave the old one out, which harness eval names"
    ):
        harness.compare(store)


def test_scores_of_weights_that_a_second_training_overwrote_are_not_fitted_beside_the_new_ones(
    tmp_path, family, fake_host
):
    """Both were points of the fit. The second evaluation says how to leave the old one out."""
    (first, second), place = family.checkpoints[:2], tmp_path / "place"
    for checkpoint in (first, second):
        shutil.copytree(checkpoint.source, place, dirs_exist_ok=True)
        of_place = replace(first, source=str(place), flops=1e12)
        _, progress = run([Family("fam", (of_place,))], [make_task("a")], tmp_path / "s", fake_host)
    points = harness.open_store(tmp_path / "s", registries=fake_host).points(metrics=["acc"])
    with pytest.raises(LawError, match=r"whose files were replaced \(\w+, \w+\): leave the old one out"):
        harness.fit(points, "line", value="acc", registries=fake_host)
    (note,) = (note for note in progress.notes if "had other weights" in note)
    assert len(points.query(note.split('"')[1])) == 1
    assert len(points) == 2


def test_stores_of_two_machines_are_joined_by_copying_files(tmp_path, family, fake_host):
    for number in (1, 2):
        run([family], [make_task("a")], tmp_path / str(number), fake_host, shard=f"{number}/2")
    shutil.copytree(tmp_path / "1", tmp_path / "2", dirs_exist_ok=True)
    summary, _ = run([family], [make_task("a")], tmp_path / "2", fake_host)
    assert (summary.already_stored, summary.written, check_store(tmp_path / "2")) == (3, 0, [])


def trusting_host() -> harness.PluginHost:
    @contextmanager
    def open_trusting(checkpoint, folder, *, trust_remote_code=False):
        yield FakeEngine(checkpoint.label)

    def inspect_trusting(checkpoint, folder, *, trust_remote_code=False):
        return inspect_fake(checkpoint, folder)

    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_engines(register):
            register("trusting", open_trusting, inspect_trusting)

    host = load_plugins()
    host.add(Plugin, "trusting")
    return host


def test_a_store_says_which_cells_ran_code_of_their_checkpoint(tmp_path, family):
    folder = Path(family.checkpoints[0].source)
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "sub.modeling.Mine"}}))
    (folder / "sub").mkdir()
    (folder / "sub" / "modeling.py").write_text("print(1)")
    settings = {"engine": "trusting", "options": {"trust_remote_code": True}, "registries": trusting_host()}
    evaluate([family], [make_task("one")], tmp_path / "s", **settings).check()
    store = Store(tmp_path / "s")
    ran = [store.provenance(name) for name in sorted(store.cell_names())]
    assert all(provenance["trust_remote_code"] for provenance in ran)
    assert [list(provenance["remote_code"]) for provenance in ran if provenance["remote_code"]] == [["sub/modeling.py"]]
    (finding,) = check_store(tmp_path / "s")
    assert finding.kind == "trusted"
    assert finding.what == "code of the checkpoint ran: sub/modeling.py (fam:s@1)"
    (folder / "sub" / "modeling.py").write_text("print(2)")
    assert evaluate([family], [make_task("one")], tmp_path / "s", **settings).written == 1
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "them/theirs--modeling.Mine"}}))
    with pytest.raises(SuiteError, match="loads the code them/theirs--modeling.Mine from another repository"):
        evaluate([family], [make_task("one")], tmp_path / "s", **settings).check()


def test_pickled_weights_are_refused_unless_they_are_allowed_by_name(tmp_path, family, fake_host):
    folder = Path(family.checkpoints[0].source)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    settings = {"engine": "fake", "registries": fake_host}
    summary = evaluate([family], [make_task("one")], tmp_path / "s", **settings)
    assert summary.written == 2
    assert "pytorch_model.bin is a pickle, which can run code" in str(summary.failures[0])
    assert "--allow-pickle pytorch_model.bin" in str(summary.failures[0])
    assert evaluate([family], [make_task("one")], tmp_path / "s", allow_pickle=["other.bin"], **settings).failures
    evaluate([family], [make_task("one")], tmp_path / "s", allow_pickle=["pytorch_*.bin"], **settings).check()
    assert [finding.what for finding in check_store(tmp_path / "s")] == [
        "weights were read from a pickle: pytorch_model.bin (fam:s@1)"
    ]


def test_the_engine_scores_the_next_cell_while_one_is_written(tmp_path, family, fake_host, monkeypatch):
    """The write of the first cell ends only when the second cell is scored: without a thread it would time out."""
    scored, in_time = threading.Event(), list[bool]()
    write = Store.write

    def slow(self, cell, records, tokens) -> None:
        in_time.append(scored.wait(30))
        write(self, cell, records, tokens)

    class Telling(Progress):
        docs = 0

        def documents(self, checkpoint, n) -> None:
            self.docs += n
            if self.docs > 3:
                scored.set()

    monkeypatch.setattr(Store, "write", slow)
    tasks = [make_task("a"), make_task("b")]
    first = Family("fam", family.checkpoints[:1])
    evaluate([first], tasks, tmp_path / "s", engine="fake", registries=fake_host, progress=Telling()).check()
    assert in_time == [True, True]
    assert len(Store(tmp_path / "s").cell_names()) == 2
