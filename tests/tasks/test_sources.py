"""Sources of tasks: several tasks of one name, options of the suite, and metrics of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import harness
from harness import Doc, SourceMetric, Task
from harness.errors import MetricError, UsageError
from harness.fitting.wide_points import widen
from harness.host import PluginHost, load_plugins
from harness.tasks.conversations import messages_of
from harness.tasks.finding import find_tasks
from harness.tasks.prompt_options import Prompting
from harness.testing import inspect_fake, open_fake
from harness_plugins.analyses.equal_points import shared_documents


def made(name: str, **settings) -> Task:
    docs = tuple(
        Doc(f"{name}/{i}", (f"Q{i}:",), (" a", " b"), ("a", "b"), (i % 2,), source={"row": i}) for i in range(4)
    )
    return Task(f"mine:{name}", "choice", docs, "", source={"prefix": "mine"}, **settings)


@pytest.fixture
def host() -> PluginHost:
    def source(name: str, *, num_fewshot: int | None = None) -> list[Task]:
        return [made(f"{name}{num_fewshot or ''}"), made("second")]

    def metrics(task: Task, answers: harness.Scores) -> list[SourceMetric]:
        rows = np.array([doc.source["row"] for doc in task.docs], dtype=float)
        return [
            SourceMetric("mine:row", float(rows.mean()), 0.5, len(task.docs), values=rows),
            SourceMetric("mine:whole", float(answers.logprob.sum()), 0.5, len(task.docs)),
        ]

    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_sources(register):
            register("mine", source, lambda: ["one"], metrics)

        @staticmethod
        @harness.hookimpl
        def register_engines(register):
            register("fake", open_fake, inspect_fake)

    host = load_plugins()
    host.add(Plugin, "mine")
    return host


def test_a_name_of_a_source_may_stand_for_several_tasks(host: PluginHost):
    assert [task.name for task in find_tasks(["mine:one"], host)] == ["mine:one", "mine:second"]


def test_a_source_gets_the_options_that_it_takes(host: PluginHost):
    assert find_tasks(["mine:one"], host, prompting=Prompting(num_fewshot=3))[0].name == "mine:one3"


def test_an_option_that_a_source_does_not_take_is_refused(host: PluginHost):
    with pytest.raises(UsageError, match="tasks of the source 'mine' have no option fewshot_seed; leave it out"):
        find_tasks(["mine:one"], host, prompting=Prompting(fewshot_seed=1))


def test_conversations_are_made_for_a_source_that_makes_none(host: PluginHost):
    task = find_tasks(["mine:one"], host, prompting=Prompting(chat=True, system_prompt="Be brief."))[0]
    assert [message["role"] for message in messages_of(task.docs[0].contexts[0])] == ["system", "user"]
    assert task.docs[0].continuations == ("a", "b")


@pytest.fixture
def store(host: PluginHost, tmp_path: Path) -> harness.PointStore:
    harness.evaluate(["aster:w32l2@1600"], ["mine:one"], tmp_path / "store", engine="fake", registries=host).check()
    return harness.open_store(tmp_path / "store", registries=host)


def test_metrics_of_a_source_are_points_beside_ours(store: harness.PointStore):
    points = store.points("mine:one").set_index("metric")
    assert {"acc", "mine:row", "mine:whole"} <= set(points.index)
    assert points.loc["mine:row", ["value", "stderr", "n"]].tolist() == [1.5, 0.5, 4]
    assert points.loc["mine:row", "high"] == pytest.approx(1.5 + 1.96 * 0.5, abs=1e-3)


def test_metrics_of_a_source_have_a_row_a_document_where_they_have_values(store: harness.PointStore):
    rows = store.points("mine:one", metrics=["mine:row", "mine:whole"], unit="document")
    assert rows["metric"].unique().tolist() == ["mine:row"]
    assert rows["value"].tolist() == [0, 1, 2, 3]


def test_a_metric_that_the_source_does_not_have_is_an_error(store: harness.PointStore):
    with pytest.raises(MetricError, match="has no metric mine:none; it has mine:row, mine:whole"):
        store.points("mine:one", metrics=["mine:none"])


def test_errors_of_metrics_that_are_not_means_are_not_paired_between_families(host: PluginHost, tmp_path: Path):
    """Families had the same errors in every resample, as if they came from shared documents: they cancelled."""
    families = ["aster:w32l2,w64l2@1600", "birch:w32l2,w64l2"]
    harness.evaluate(families, ["mine:one"], tmp_path / "store", engine="fake", registries=host).check()
    store = harness.open_store(tmp_path / "store", registries=host)
    shared, names = shared_documents(store, 0), ["mine:row", "mine:whole"]
    points = widen(store.points("mine:one", metrics=names))
    first, second = (
        shared.replicates(family_points, names, 400, np.random.default_rng(number))
        for number, (_, family_points) in enumerate(points.groupby("family"))
    )
    assert (first["mine:row"] == second["mine:row"]).all()
    values = (points.loc[points["family"] == name, "mine:whole"].to_numpy() for name in ("aster", "birch"))
    apart = (first["mine:whole"] - next(values)) - (second["mine:whole"] - next(values))
    assert apart.std() == pytest.approx(0.5 * 2**0.5, rel=0.1)


def test_the_store_returns_a_task_as_it_was_scored(store: harness.PointStore, host: PluginHost):
    task = find_tasks(["mine:one"], host)[0]
    assert store.task(task.fingerprint) == task
