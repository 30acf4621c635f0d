"""Estimates from few documents: selection is unbiased, intervals cover, and the commands work in sequence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import harness
from harness import Checkpoint, Doc, Family, StoreError, Task, UsageError
from harness.cli import main
from harness.host import PluginHost
from harness.store.points import PointStore
from harness.tasks.loading import fingerprint
from harness_plugins.analyses import selection
from harness_plugins.analyses.active import choose, estimate
from harness_plugins.analyses.finite_populations import proportion, stratified_mean
from harness_plugins.analyses.selection import ACQUISITIONS, METHODS, PredictedLosses
from harness_plugins.analyses.subset_errors import measure_subsets
from tests.evaluation.test_sampling import host_with, make_task

SMALL = "size == 'w32l2'"


def drawn(
    method: str, predicted: PredictedLosses, size: int, count: int, rng: np.random.Generator
) -> selection.Selection:
    if method == "strata":
        return selection.draw_strata(selection.quintiles(predicted.mean), size, count=count, rng=rng)
    first = selection.probabilities(ACQUISITIONS[method](predicted), 0.2)
    return selection.draw(first, size, count=count, rng=rng)


@pytest.fixture(scope="module")
def simulated() -> tuple[np.ndarray, PredictedLosses]:
    """Return losses of 0 and 1 (300,) and what three small checkpoints expect of them, right by more than chance."""
    rng = np.random.default_rng(5)
    chance = rng.beta(0.4, 1.2, size=300)
    seen = np.clip(chance + rng.normal(scale=0.15, size=(3, 300)), 0, 1)
    return (rng.random(300) < chance).astype(float), PredictedLosses(seen, np.ones(300))


@pytest.mark.parametrize("method", METHODS)
def test_every_selection_method_is_unbiased_and_its_intervals_cover(method, simulated):
    """4,000 subsets of 60 of 300 documents: the mean within 3 standard errors, 95 % intervals hold 90 % or more."""
    losses, predicted = simulated
    estimates = drawn(method, predicted, 60, 4000, np.random.default_rng(0))
    assert all(len(set(row)) == 60 for row in estimates.documents[:20])
    value, low, high = selection.estimate(losses[estimates.documents], estimates, 300, by=method, level=0.95)
    assert abs(value.mean() - losses.mean()) < 3 * value.std() / np.sqrt(4000)
    assert 0.9 <= np.mean((low <= losses.mean()) & (losses.mean() <= high)) <= 0.985


def test_predicted_losses_save_documents_and_the_plain_mean_would_be_biased(simulated):
    losses, predicted = simulated
    rng = np.random.default_rng(1)
    even, active = (drawn(method, predicted, 60, 4000, rng) for method in ("random", "loss"))
    errors = [selection.estimate(losses[d.documents], d, 300, by="loss", level=0.95)[0].std() for d in (even, active)]
    assert errors[1] < 0.9 * errors[0]
    assert losses[active.documents].mean() > losses.mean() + 0.1


def test_the_first_pick_is_as_probable_as_it_says():
    first = np.array([0.5, 0.3, 0.2])
    selections = selection.draw(first, 2, count=20_000, rng=np.random.default_rng(0))
    assert np.bincount(selections.documents[:, 0]) / 20_000 == pytest.approx(first, abs=0.012)
    after = selections.documents[:, 0] == 0
    assert np.mean(selections.documents[after, 1] == 1) == pytest.approx(0.6, abs=0.02)
    assert set(selections.q[after & (selections.documents[:, 1] == 1), 1].round(9)) == {0.6}


def test_the_share_of_even_picks_is_exact_and_does_not_collapse():
    """Every possible number of ones among 40: a 90 % interval covers the truth at least as often."""
    from scipy.stats import hypergeom

    every = np.tril(np.ones((11, 10)), -1)  # 0 to 10 ones in samples of 10
    _, low, high = proportion(every, 40, level=0.9)
    for ones in range(41):
        held = (low <= ones / 40) & (ones / 40 <= high)
        assert hypergeom.pmf(np.arange(11), 40, ones, 10)[held].sum() >= 0.9
    assert (low[0], high[-1]) == (0, 1)
    assert high[0] == pytest.approx(0.225)


@pytest.mark.parametrize("method", ["loss", "strata"])
def test_where_nothing_was_lost_the_interval_is_open_upwards(method, simulated):
    """6 of 300 documents have a loss, so that most subsets of 30 see none."""
    _, predicted = simulated
    losses = np.zeros(300)
    losses[::50] = 1
    estimates = drawn(method, predicted, 30, 500, np.random.default_rng(2))
    value, low, high = selection.estimate(losses[estimates.documents], estimates, 300, by=method, level=0.95)
    blind = value == 0
    assert blind.mean() > 0.3
    assert (low[blind] == 0).all()
    assert high[blind] == pytest.approx(1 - 0.025 ** (1 / (1 / (1 / 30 - 1 / 300))), abs=1e-6)
    assert np.mean((low <= 0.02) & (high >= 0.02)) > 0.9


def test_strata_without_differences_inside_leave_no_error():
    value, low, high = stratified_mean(np.array([[1.0, 1, 3, 3]]), np.array([0, 0, 1, 1]), np.array([30, 10]))
    assert (value[0], low[0], high[0]) == (1.5, 1.5, 1.5)


def test_few_documents_for_many_strata_are_refused():
    assert selection.allocate(np.array([50, 30, 1]), 20).tolist() == [12, 7, 1]
    with pytest.raises(UsageError, match="3 strata need 5 documents, two per stratum; found --n 4"):
        selection.allocate(np.array([50, 30, 1]), 4)


def test_one_checkpoint_disagrees_with_none():
    with pytest.raises(UsageError, match="found 1; raise --rungs"):
        selection.disagreement(PredictedLosses(np.ones((1, 5)), np.ones(5)))


def model(path: Path) -> Family:
    """Return a checkpoint for the engine without a model."""
    folder = path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(len(b"{}").to_bytes(8, "little") + b"{}")
    return Family("f", (Checkpoint("f", "s", 1, 0, str(folder), params=10, tokens=5.0),))


@pytest.mark.parametrize("by", METHODS)
def test_from_a_store_to_an_estimate(tmp_path: Path, nano_store: PointStore, by: str):
    """Choose by the small size, score the picks with the next one, and compare with all documents."""
    store, file = str(shutil.copytree(nano_store.path, tmp_path / "store")), str(tmp_path / "subset.json")
    options = ["--task", "nano_addition", "--where", SMALL, "--n", "30", "--by", by, "-o", file]
    steps = [
        ["choose", store, *options],
        ["eval", "aster:w64l2@last", "--tasks", "nano_addition", "--limit", "60", "--subset", file, "-o", store],
        ["estimate", store, file, "--format", "csv", "-o", str(tmp_path)],
    ]
    for step in steps:
        result = CliRunner().invoke(main, step)
        assert result.exit_code == 0, (result.output, result.exception)
    row = pd.read_csv(tmp_path / "estimates.csv").iloc[0]
    points = nano_store.points("nano_addition", "aster", metrics=["acc"])
    measured = points.query("size == 'w64l2' and step == 1600")["value"].iloc[0]
    assert (row["documents"], row["of"], row["size"], row["by"]) == (30, 60, "w64l2", by)
    assert row["all"] == pytest.approx(measured, abs=1e-6)
    assert row["off by"] == pytest.approx(row["estimate"] - measured, abs=2e-6)
    assert row["estimate low"] < row["estimate"] < row["estimate high"]
    assert row["estimate low"] - 0.1 < measured < row["estimate high"] + 0.1
    assert not any("#" in cell.task for cell in harness.open_store(store).select())  # no table mixes it in
    again = choose(harness.open_store(store), 30, by=by, task="nano_addition", where=SMALL)
    assert again == harness.load_subsets(file)  # the subset in the store is none to choose from


def test_all_documents_in_any_order_give_the_whole_exactly(tmp_path: Path, nano_store: PointStore):
    path = shutil.copytree(nano_store.path, tmp_path / "store")
    for by in METHODS:
        subsets = choose(nano_store, 60, by=by, task="nano_saying", metric="logp_gold", where=SMALL)
        part = {"subset": subsets, "limit": 60, "registries": nano_store.registries}
        harness.evaluate(["aster:w64l2@last"], ["nano_saying"], path, **part).check()
        row = estimate(harness.open_store(path), subsets)[0].rows[0]
        assert row[8].low == pytest.approx(row[9])
        assert row[8].high == pytest.approx(row[9])


def test_groups_of_different_sizes_count_alike(tmp_path: Path, fake_host: PluginHost):
    """The value of a task with groups is the mean of their means, and so is what its subsets tell."""
    docs = tuple(
        Doc(str(i), (f"question {i}",), (" yes", " no"), ("yes", "no"), (i % 2,), group="ab"[i < 30]) for i in range(40)
    )
    task = Task("grouped", "choice", docs, fingerprint("choice", False, docs))
    run = {"engine": "fake", "registries": fake_host}
    harness.evaluate([model(tmp_path)], [task], tmp_path / "store", **run).check()
    store = harness.open_store(tmp_path / "store", registries=fake_host)
    value = store.points(metrics=["p_choices"])["value"].iloc[0]
    documents = store.points(metrics=["p_choices"], unit="document").set_index("doc_id")
    for n, by, strata in ((12, "strata", "group"), (40, "loss", None)):
        subsets = choose(store, n, by=by, strata=strata, metric="p_choices")
        assert set(subsets[0].weights) == {40 / (2 * 30), 40 / (2 * 10)}
        harness.evaluate([model(tmp_path)], [task], tmp_path / "store", subset=subsets, **run).check()
        row = estimate(harness.open_store(store.path, registries=fake_host), subsets)[0].rows[0]
        picked = documents.loc[list(subsets[0].doc_ids)]
        assert row[8].value == pytest.approx(picked.groupby("group")["value"].mean().mean())
        assert row[9] == pytest.approx(value)


def test_texts_are_drawn_of_the_picked_documents_only(tmp_path: Path):
    family = model(tmp_path)
    host, task = host_with(), make_task(9)
    run = {"engine": "fake", "registries": host, "sampling": {"options": {"n": 20}}}
    harness.evaluate([family], [task], tmp_path / "store", **run).check()
    store = harness.open_store(tmp_path / "store", registries=host)
    subsets = choose(store, 4, metric="pass_rate")
    harness.evaluate([family], [task], tmp_path / "store", subset=subsets, **run).check()
    store = harness.open_store(tmp_path / "store", registries=host)
    assert len(store.samples(subsets[0].name)) == 4 * 20
    row = estimate(store, subsets)[0].rows[0]
    assert row[9] == pytest.approx(store.points("texts", metrics=["pass_rate"])["value"].iloc[0])
    assert row[8].low < row[9] < row[8].high


def test_the_effective_size_of_uniform_selection_is_its_size(nano_store: PointStore):
    tables = measure_subsets(
        nano_store, (20, 40, 60), where=SMALL, target="size == 'w64l2'", draws=400, task="nano_addition"
    )
    rows = {(row[0], row[1]): row for row in tables[0].rows}
    assert set(rows) == {(size, method) for size in (20, 40) for method in METHODS}  # 60 are all
    assert all(rows[size, "random"][6] == pytest.approx(size, rel=0.15) for size in (20, 40))
    assert all(rows[size, "random"][4].value > 0.93 for size in (20, 40))
    assert {row[1] for row in tables[1].rows} == {"aster w64l2", "birch w64l2"}
    assert all(row[5] == pytest.approx(30, abs=5) for row in tables[1].rows)


def test_what_cannot_be_chosen_or_estimated_is_said(nano_store: PointStore):
    with pytest.raises(UsageError, match="nano_birthplace has 60 documents, fewer than --n 61"):
        choose(nano_store, 61, task="nano_birthplace")
    with pytest.raises(UsageError, match=r"mean over documents; found nano_text \(bits_per_byte\)"):
        choose(nano_store, 10, task="nano_text")
    with pytest.raises(UsageError, match="documents have no 'colour'; expected one of digits, group, or omit --strata"):
        choose(nano_store, 10, by="strata", strata="colour", task="nano_addition")
    with pytest.raises(UsageError, match="--strata group needs --by strata; found --by loss"):
        choose(nano_store, 10, strata="group", task="nano_addition")
    with pytest.raises(UsageError, match="below the number of documents of a task, at most 60; found --n 60, 80"):
        measure_subsets(nano_store, (60, 80), where=SMALL, target="size == 'w64l2'", task="nano_addition")
    with pytest.raises(UsageError, match="no checkpoint that scored the task matches"):
        choose(nano_store, 10, where="params < 5", task="nano_addition")
    with pytest.raises(StoreError, match="no records of task 'nano_flag'"):
        choose(nano_store, 10, task="nano_flag")
    with pytest.raises(UsageError, match="has scored these subsets; run harness eval FAMILY --tasks"):
        estimate(nano_store, choose(nano_store, 10, task="nano_addition"))
