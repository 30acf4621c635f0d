"""Several processes, one store: the same records as with one process, even if workers die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import harness
from harness import SuiteError, UsageError
from harness.errors import StoreError
from harness.evaluation.evaluate import plan_tables
from harness.evaluation.plan import Plan
from harness.evaluation.schedule import Schedule, Work
from harness.evaluation.suite import Progress
from harness.evaluation.sweep import _Drive
from harness.evaluation.workers import Event
from harness.host import load_plugins
from harness_plugins.executors import local_pool

ENGINE = """
import harness
from harness.testing import inspect_fake, open_fake

@harness.hookimpl
def register_engines(register):
    register("mine", open_fake, inspect_fake)
"""
TASKS = ["nano_addition", "nano_job", "nano_saying"]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def rows_of(store: Path) -> dict[str, Any]:
    """Return the rows of every cell, to the bit."""
    opened = harness.open_store(store)
    return {name: opened.files.read_table(f"records/{name}").table.to_pydict() for name in opened.cell_names()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one process computes."""
    store = tmp_path_factory.mktemp("alone") / "store"
    harness.evaluate(["aster:w32l2"], TASKS, store, limit=20).check()
    return rows_of(store)


class Noted(Progress):
    """Keeps the notes of a plan."""

    def start(self, plan: Plan) -> None:
        self.notes = list(plan.notes)


class Kills(Progress):
    """Kills a worker process when the n-th cell was written, each time once."""

    def __init__(self, *at: int) -> None:
        self.at, self.cells, self.notes, self.pool = set(at), 0, list[str](), list[Any]()
        self.seen: list[tuple[str, str]] = []

    def cell(self, checkpoint, task) -> None:
        self.cells += 1
        self.seen.append((checkpoint.label, task.name))
        if self.cells in self.at:
            child = next(iter(self.pool[0].children.values()))
            os.kill(child.process.pid, signal.SIGKILL)

    def note(self, text: str) -> None:
        self.notes.append(text)


def watch(monkeypatch: pytest.MonkeyPatch, progress: Kills) -> None:
    original: Callable[..., None] = local_pool.LocalPool.__init__

    def remember(self, *args) -> None:
        original(self, *args)
        progress.pool.append(self)

    monkeypatch.setattr(local_pool.LocalPool, "__init__", remember)


@pytest.mark.soak
def test_two_local_workers_give_the_records_of_one_process_though_one_is_killed_twice(tmp_path, alone, monkeypatch):
    progress = Kills(3, 9)
    watch(monkeypatch, progress)
    arguments = {"limit": 20, "executor": "local", "executor_options": {"workers": 2}, "progress": progress}
    summary = harness.evaluate(["aster:w32l2"], TASKS, tmp_path / "s", **arguments)
    summary.check()
    assert rows_of(tmp_path / "s") == alone
    assert sum("was lost" in note for note in progress.notes) == 2
    assert len(set(progress.seen)) == len(progress.seen) == summary.written == len(alone)


CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


@pytest.mark.soak
def test_two_local_workers_render_conversations_and_keep_tokens_as_one_process_does(tmp_path):
    (tmp_path / "chat.jinja").write_text(CHAT)
    prompting = {"chat_template": str(tmp_path / "chat.jinja"), "system_prompt": "Be brief."}
    arguments = {"limit": 5, "prompting": prompting, "keep_tokens": True}
    harness.evaluate(["aster:w32l2@400..1600 *2"], TASKS, tmp_path / "one", **arguments).check()
    arguments |= {"executor": "local", "executor_options": {"workers": 2}}
    harness.evaluate(["aster:w32l2@400..1600 *2"], TASKS, tmp_path / "two", **arguments).check()
    assert rows_of(tmp_path / "two") == rows_of(tmp_path / "one")
    of_one_process, of_two_workers = (harness.open_store(tmp_path / name) for name in ("one", "two"))
    assert of_two_workers.tokens().equals(of_one_process.tokens())
    assert all(settings.chat_template and settings.system_prompt for settings in of_two_workers.settings.values())


def expect_ray() -> None:
    """Skip the test without Ray, unless it is required."""
    if os.environ.get("HARNESS_REQUIRE_DATA") != "1":
        pytest.importorskip("ray")


def ray_cluster() -> Any:
    """Return a Ray cluster of two nodes of one CPU on this machine."""
    expect_ray()
    from ray.cluster_utils import Cluster

    quickly = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "object_store_memory": 2**27, "_system_config": quickly, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=2**27)
    return cluster


class LosesANode(Kills):
    """Kills the second node of a cluster when the n-th cell was written, and adds another one."""

    def __init__(self, cluster, at: int) -> None:
        super().__init__()
        self.cluster, self.lost_at = cluster, at

    def cell(self, checkpoint, task) -> None:
        super().cell(checkpoint, task)
        if self.cells == self.lost_at:
            (node,) = self.cluster.worker_nodes
            self.cluster.remove_node(node, allow_graceful=False)
            self.cluster.add_node(num_cpus=1, object_store_memory=2**27)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_ray_nodes_give_the_records_of_one_process_though_one_dies(tmp_path, alone):
    cluster = ray_cluster()
    try:
        progress = LosesANode(cluster, 4)
        options = {"workers": 2, "address": cluster.address}
        arguments = {"limit": 20, "executor": "ray", "executor_options": options, "progress": progress}
        harness.evaluate(["aster:w32l2"], TASKS, tmp_path / "s", **arguments).check()
    finally:
        cluster.shutdown()
    assert rows_of(tmp_path / "s") == alone
    assert len(set(progress.seen)) == len(progress.seen) == len(alone)
    assert any("was lost" in note for note in progress.notes)


def test_workers_that_cannot_start_end_the_sweep_with_what_they_said(tmp_path, monkeypatch):
    monkeypatch.setattr(local_pool, "COMMAND", (local_pool.sys.executable, "-c", "raise SystemExit('no such thing')"))
    arguments = {"limit": 5, "executor": "local", "executor_options": {"workers": 1}}
    with pytest.raises(SuiteError, match=r"(?s)all workers failed; .*no such thing"):
        harness.evaluate(["aster:w32l2@1600"], ["nano_job"], tmp_path / "s", **arguments)


@pytest.mark.soak
@pytest.mark.parametrize("executor", ["local", "ray"])
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_workers_without_a_plugin_of_the_sweep_say_so_in_one_line(tmp_path, executor):
    """The end of a traceback was printed."""
    if executor == "ray":
        expect_ray()
    (tmp_path / "mine.py").write_text(ENGINE)
    registries = load_plugins([str(tmp_path / "mine.py")])
    (tmp_path / "mine.py").unlink()
    arguments = {"engine": "mine", "executor": executor, "executor_options": {"workers": 1}, "registries": registries}
    with pytest.raises(SuiteError) as raised:
        harness.evaluate(["aster:w32l2@1600"], ["nano_job"], tmp_path / "s", limit=2, **arguments)
    why = f"plugin 'mine' does not load: there is no file {tmp_path / 'mine.py'}; correct it, or disable it with"
    assert str(raised.value) == f"all workers failed; the last output of the first was: {why} -p no:mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"executor": "nowhere"}, "there is no 'nowhere' in executors"),
        ({"executor": "local"}, "no GPU is visible; pass the number"),
        ({"executor": "local", "executor_options": {"address": "x"}}, "executor 'local' has no option address"),
        ({"executor_options": {"workers": 2}}, "expected an executor"),
        ({"shard": "0/2"}, "--shard 0/2: expected I/N"),
        ({"shard": "two"}, "--shard two: expected I/N"),
    ],
)
def test_what_an_executor_cannot_do_is_a_usage_error(tmp_path, arguments, message):
    with pytest.raises(UsageError, match=message):
        harness.evaluate(["aster:w32l2@1600"], ["nano_job"], tmp_path / "s", limit=5, **arguments)


@pytest.mark.soak
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999", "auto"])
def test_an_address_without_a_ray_cluster_is_an_error_at_once(tmp_path, address):
    """Ray tried to connect for minutes, and ended the process."""
    expect_ray()
    arguments = {"limit": 2, "executor": "ray", "executor_options": {"workers": 1, "address": address}}
    with pytest.raises(UsageError, match=f"no Ray cluster answers at --address {address}"):
        harness.evaluate(["aster:w32l2@1600"], ["nano_job"], tmp_path / "s", **arguments)


def test_a_plugin_of_this_process_alone_is_refused(tmp_path, fake_host):
    with pytest.raises(UsageError, match="plugin 'fake' was added from Python"):
        harness.evaluate(
            ["aster:w32l2@1600"], ["nano_job"], tmp_path / "s", limit=5, executor="local", registries=fake_host,
            executor_options={"workers": 1},
        )  # fmt: skip


def test_shards_do_every_checkpoint_once(tmp_path, fake_host):
    arguments = {"limit": 5, "engine": "fake", "registries": fake_host}
    names = []
    for shard in ("1/3", "2/3", "3/3"):
        harness.evaluate(["aster:w32l2"], ["nano_job"], tmp_path / shard[0], shard=shard, **arguments).check()
        names += harness.open_store(tmp_path / shard[0]).cell_names()
    harness.evaluate(["aster:w32l2"], ["nano_job"], tmp_path / "all", **arguments).check()
    assert sorted(names) == sorted(harness.open_store(tmp_path / "all").cell_names())


def test_shards_of_a_plan_with_a_failure_are_said_to_differ(tmp_path, fake_host):
    """A checkpoint that one process could not read left others to no shard, and nothing said so."""
    (tmp_path / "gone.toml").write_text('source = "gone"\n[sizes.a]')
    arguments = {"limit": 2, "engine": "fake", "registries": fake_host, "progress": (told := Noted())}
    families = ["aster:w32l2", str(tmp_path / "gone.toml")]
    harness.evaluate(families, ["nano_job"], tmp_path / "s", shard="1/2", **arguments)
    assert "run the command once more without --shard to compute what no shard had" in told.notes[-1]


def test_a_worker_that_cannot_store_stops_the_sweep(tmp_path):
    class Pool:
        size = 1
        orders: Any = None

        def start(self, worker) -> None: ...

        def give(self, worker, orders) -> None:
            self.orders = orders

        def events(self):
            yield Event(0, "fatal", "no space left on device") if self.orders else Event(0, "ready")

        def stop(self) -> None:
            self.orders = None

    sweep = type("S", (), {"order": lambda self, assignment: assignment, "plan": Plan()})()
    with pytest.raises(StoreError, match="no space left"):
        _Drive(sweep, Pool(), Schedule([Work("s", {"a": 1.0})], 1)).run()


def test_a_dry_run_estimates_the_time_of_each_worker(tmp_path, fake_host):
    arguments = {"limit": 5, "engine": "fake", "registries": fake_host, "executor_options": {"workers": 3}}
    _, (_, workers) = plan_tables(["aster:w32l2"], ["nano_job"], store=tmp_path / "s", **arguments)
    assert [row[0] for row in workers.rows] == ["0", "1", "2"]
    assert "CPU" in workers.notes[0]
    assert not (tmp_path / "s").exists()


def test_an_interrupt_ends_all_workers_at_the_same_time(monkeypatch):
    """Each may need five seconds; one after the other, eight needed 40."""
    together, original = Barrier(3, timeout=60), local_pool.Child.stop

    def stop(child) -> None:
        together.wait()
        original(child)

    monkeypatch.setattr(local_pool.Child, "stop", stop)
    pool = local_pool.LocalPool(None, [[]] * 3)
    pool.children |= {worker: local_pool.Child((local_pool.sys.executable, "-c", "pass"), {}) for worker in range(3)}
    pool.stop()
    assert not pool.children
