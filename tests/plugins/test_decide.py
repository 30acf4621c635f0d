"""Agreement of small and large scales: pairs of families, signal to noise, crossings of laws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import LawError, UsageError
from harness.cli import main
from harness.fitting.crossings import crossovers
from harness.fitting.fit import fit
from harness.fitting.point_source import table_points
from harness.host import PluginHost
from harness.store.points import PointStore
from harness_plugins.analyses.decide import decide
from harness_plugins.analyses.decisions import agreement, decision_accuracy, signal_to_noise

FAST = {"bootstrap": 40}


def test_pairs_agree_where_their_order_is_kept():
    small, large = np.array([0.1, 0.2, 0.3, 0.3]), np.array([0.5, 0.7, 0.6, 0.7])
    assert agreement(small, large).tolist() == pytest.approx([1, 1, 1, 0, np.nan, 0.5], nan_ok=True)
    assert decision_accuracy(small, large) == pytest.approx(3.5 / 5)
    draws = np.stack([small, -small])
    assert decision_accuracy(draws, large).tolist() == pytest.approx([0.7, 0.3])
    assert np.isnan(decision_accuracy(small, np.ones(4)))


def test_signal_to_noise_and_its_interval():
    """Noise of relative deviation 0.01 in runs of 5 checkpoints: the 90 % interval holds the true ratio as often."""
    rng, finals = np.random.default_rng(0), np.array([0.5, 0.6, 0.7])
    truth = (0.2 / 0.6) / 0.01
    ratios = [signal_to_noise(finals, 0.5 + 0.005 * rng.normal(size=(2, 5))) for _ in range(400)]
    inside = np.mean([ratio.low <= truth <= ratio.high for ratio in ratios])
    assert 0.86 < inside < 0.94
    assert np.isinf(signal_to_noise(finals, [np.full(3, 0.5)]).value)
    with pytest.raises(LawError, match="2 models, a run with 2 late checkpoints"):
        signal_to_noise(finals, [np.array([0.5])])


def crossing_fits(host: PluginHost, seed: int, *, noise: float = 0.003, resamples: int = 100):
    """Two power laws that cross at 8.2e20, each seen on 12 runs of its own."""
    rng, flops = np.random.default_rng(seed), np.geomspace(1e18, 1e24, 12)
    fits = []
    for number, (a, b) in enumerate(((30, 0.06), (100, 0.085))):
        points = pd.DataFrame({"flops": flops, "y": a * flops**-b * np.exp(rng.normal(scale=noise, size=12))})
        options = {"bootstrap": resamples, "resample": "checkpoints", "seed": number, "starts": 4}
        fits.append(fit(points, "power", value="y", objective="log_least_squares", registries=host, **options))
    return fits


@pytest.mark.soak
def test_the_interval_of_a_crossover_holds_the_truth(host: PluginHost):
    inside = []
    for seed in range(25):
        crossings, share = crossovers(*crossing_fits(host, seed))
        assert share == 1
        inside.append(any(crossing.low <= 8.22526e20 <= crossing.high for crossing in crossings))
    assert 18 <= sum(inside) <= 25


def test_resamples_that_do_not_cross_leave_an_end_open(host: PluginHost):
    """The crossing lies near the end of the compute that both have seen."""
    flops = np.geomspace(1e18, 1e21, 8)
    rng, fits = np.random.default_rng(3), []
    for number, (a, b) in enumerate(((30, 0.06), (100, 0.085))):
        points = pd.DataFrame({"flops": flops, "y": a * flops**-b * np.exp(rng.normal(scale=0.01, size=8))})
        options = {"bootstrap": 100, "resample": "checkpoints", "seed": number}
        fits.append(fit(points, "power", value="y", objective="log_least_squares", registries=host, **options))
    crossings, share = crossovers(*fits)
    assert 0 < share < 1
    assert [crossing.high for crossing in crossings] in ([np.inf], [])


def test_equal_curves_and_curves_without_a_common_range_do_not_cross(host: PluginHost):
    a, _b = crossing_fits(host, 0)
    assert crossovers(a, a) == ([], 0)
    points = pd.DataFrame({"flops": np.geomspace(1e25, 1e27, 5), "y": np.linspace(2, 1.5, 5)})
    later = fit(points, "power", value="y", registries=host, bootstrap=100, resample="checkpoints")
    with pytest.raises(LawError, match="expected overlapping ranges"):
        crossovers(a, later)


@pytest.mark.soak
def test_small_sizes_of_a_store_are_held_against_the_large(nano_store: PointStore):
    small, large = "size == 'w32l2'", "size == 'w64l2'"
    tables = {table.name: table for table in decide(nano_store, small=(small,), large=large, **FAST)}
    assert list(tables) == ["decisions", "pairs", "noise", "crossovers"]
    points = nano_store.points("nano_birthplace", metrics=["acc"]).query("step == 1600").set_index(["family", "size"])
    row = next(row for row in tables["pairs"].rows if row[0] == "nano_birthplace")
    difference = points["value"]["aster", "w64l2"] - points["value"]["birch", "w64l2"]
    assert row[4].value == pytest.approx(difference)
    ahead = "aster" if points["value"]["aster", "w32l2"] > points["value"]["birch", "w32l2"] else "birch"
    assert row[6].strip("()") == ahead
    assert {row[1] for row in tables["decisions"].rows} == {"the metric itself", "p_choices", "brier", "logp_gold"}
    assert all(row[3] <= 3 and 0 <= row[4].low <= row[4].high <= 1 for row in tables["decisions"].rows)
    assert "tasks without choices are excluded: nano_text" in tables["decisions"].notes[0]
    text = next(row for row in tables["noise"].rows if row[0] == "nano_text")
    assert text[4] == "aster w64l2"
    assert any("differ by learning" in note for note in tables["noise"].notes)


def test_losses_are_turned_round(nano_store: PointStore):
    """aster w64l2 reads texts with fewer bits than birch w64l2, so it is ahead."""
    points = nano_store.points("nano_text", metrics=["bits_per_byte"]).query("step == 1600 and size == 'w64l2'")
    aster, birch = (points[points["family"] == family]["value"].iloc[0] for family in ("aster", "birch"))
    tables = decide(nano_store, task="nano_text", small=("size == 'w32l2'",), large="size == 'w64l2'", **FAST)
    assert tables[1].rows[0][4].value == pytest.approx(birch - aster)


def test_what_cannot_be_decided_is_said(nano_store: PointStore):
    with pytest.raises(UsageError, match="only the family aster; ranking needs 2"):
        decide(nano_store, task="nano_birthplace", where="family == 'aster'", **FAST)
    with pytest.raises(UsageError, match="'step > 0' selects w32l2, w64l2 of aster; expected one size per family"):
        decide(nano_store, task="nano_birthplace", small=("step > 0",), **FAST)
    with pytest.raises(UsageError, match="selects none of aster"):
        decide(nano_store, task="nano_birthplace", large="size == 'w96l3'", **FAST)


def test_the_command_counts_rungs_where_no_small_size_is_named(tmp_path, nano_store: PointStore):
    arguments = ["decide", str(nano_store.path), "--task", "nano_birthplace", "--bootstrap", "20", "-o", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    decisions = pd.read_csv(tmp_path / "decisions.csv")
    assert set(decisions["small"]) == {"rung 1 of 2"}
    crossings = pd.read_csv(tmp_path / "crossovers.csv")
    assert len(crossings) == 0  # birch has three points, too few for a sigmoid
    assert "nano_birthplace, birch: law 'sigmoid' has 4 parameters" in result.stdout


def test_pairs_without_known_errors_are_not_clear(tmp_path):
    """A table without standard errors had ± 0 for every difference, which made every pair clear."""
    families = (("a", 0.3), ("b", 0.31), ("c", 0.4))
    sizes = [(f, n, a + 0.1 * i) for f, a in families for i, n in enumerate((1e8, 1e9))]
    table = pd.DataFrame([{"family": f, "params": n, "tokens": 20 * n, "acc": a} for f, n, a in sizes])
    table.to_csv(tmp_path / "none.csv", index=False)
    shown = CliRunner().invoke(main, ["decide", str(tmp_path / "none.csv"), "--bootstrap", "20"]).output
    assert "| a | b | -0.01 ± ?" in shown
    assert "The standard errors of 3 of 3 pairs are unknown: they have no interval and no test." in shown
    assert "1 [?]" in shown
    table.assign(stderr=[0.01, 0.01, 0.01, np.nan, 0.01, 0.01]).to_csv(tmp_path / "some.csv", index=False)
    shown = CliRunner().invoke(main, ["decide", str(tmp_path / "some.csv"), "--bootstrap", "200"]).output
    assert "The standard errors of 2 of 3 pairs are unknown" in shown
    clear = [line for line in shown.splitlines() if "| a | c |" in line]
    assert "| yes " in clear[0]


def test_large_sizes_that_are_not_alike_and_families_of_one_size_are_named(tmp_path):
    """The table of decisions was empty without a word, and a model of 1e8 parameters was held against one of 1e10."""
    sizes = [("a", 1e8, 0.3), ("b", 1e8, 0.3), ("b", 1e9, 0.4), ("b", 1e10, 0.5)]
    table = pd.DataFrame([{"family": f, "params": n, "tokens": 20 * n, "acc": a} for f, n, a in sizes])
    table.to_csv(tmp_path / "sizes.csv", index=False)
    shown = CliRunner().invoke(main, ["decide", str(tmp_path / "sizes.csv"), "--bootstrap", "20"]).output
    assert "acc: no small scale, because a has one size; exclude it with --where" in shown
    assert "acc: the large sizes of families have 1e+08 to 1e+10 parameters" in shown


def test_errors_of_one_benchmark_are_not_those_of_another(tmp_path):
    """A column stderr beside acc and ppl was the error of both."""
    table = pd.DataFrame({"family": "a", "params": [1e8, 1e9], "tokens": 2e10, "acc": [0.3, 0.4], "ppl": [90.0, 20.0]})
    table.assign(stderr=0.01).to_csv(tmp_path / "both.csv", index=False)
    run = CliRunner().invoke(main, ["import", str(tmp_path / "both.csv"), "-o", str(tmp_path / "store")])
    assert (
        "the column stderr would belong to all of acc, ppl; say whose it is with --map stderr=acc_stderr" in run.output
    )
    asked = ["import", str(tmp_path / "both.csv"), "-o", str(tmp_path / "store"), "--map", "stderr=acc_stderr"]
    assert CliRunner().invoke(main, asked).exit_code == 0
    points = PointStore(tmp_path / "store").points()
    errors = points.groupby("task")["stderr"].max()
    assert errors["acc"] == 0.01
    assert np.isnan(errors["ppl"])


def two_tasks(metrics: dict[str, tuple[str, ...]], sizes: dict[str, int]) -> pd.DataFrame:
    """Return long points of the families a and b, of which b is ahead, on the sizes and metrics of each task."""
    rows = [
        {"task": task, "metric": metric, "family": family, "size": f"s{i}", "params": 10.0 ** (7 + i), "tokens": 1e10}
        | {"value": sign * (0.3 + 0.1 * i + 0.02 * (family == "b")), "stderr": 0.001}
        for task, count in sizes.items()
        for family in "ab"
        for i in range(count)
        for metric in metrics[task]
        for sign in [-1.0 if metric == "logp_gold" else 1.0]
    ]
    return pd.DataFrame(rows)


def test_tasks_that_were_evaluated_on_different_sizes_have_rows_of_their_own():
    """A task without the sizes of another ended the command with an IndexError."""
    table = two_tasks({"whole": ("acc",), "part": ("acc",)}, {"whole": 4, "part": 3})
    decisions, pairs, *_ = decide(table_points(table), **FAST)
    rows = {row[0]: (row[2], row[4].value) for row in decisions.rows}
    assert rows == {f"rung {k} of {n}": (1, 1.0) for n in (3, 4) for k in range(1, n)}
    ahead = {row[0]: dict(zip(pairs.columns[6:], row[6:], strict=True)) for row in pairs.rows}
    assert {label: name for label, name in ahead["part"].items() if name} == {"rung 1 of 3": "b", "rung 2 of 3": "b"}


def test_tasks_that_share_no_continuous_metric_are_ranked_by_their_own():
    table = two_tasks({"one": ("acc", "p_choices"), "other": ("acc", "logp_gold")}, {"one": 3, "other": 3})
    decisions, *_ = decide(table_points(table), **FAST)
    assert {row[1:3] for row in decisions.rows} == {("the metric itself", 2)}
