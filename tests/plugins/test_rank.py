"""Families at equal compute: intervals cover simulated truths, and impossible comparisons are errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import LawError, UsageError
from harness.cli import main
from harness.fitting.crossings import gain
from harness.fitting.fit import fit
from harness.fitting.point_source import table_points
from harness.host import PluginHost
from harness.store.points import PointStore
from harness_plugins.analyses.equal_compute import best, ranking
from harness_plugins.analyses.rank import places, rank
from tests.benchmarks import equal_compute

FAST = {"bootstrap": 50}


def named(tables):
    return {table.name: table for table in tables}


def test_the_order_and_the_best_come_from_paired_draws():
    values, draws = np.array([0.2, 0.5, 0.4]), np.array([[0.1, 0.6, 0.5], [0.2, 0.3, 0.4], [0.1, 0.5, 0.5]])
    order, chance = ranking(values, draws)
    assert order == [1, 2, 0]
    assert chance == pytest.approx(1.5 / 4)  # one of three; half a resample is added, so that none is certain
    assert best(draws) == pytest.approx((np.array([0, 1.5, 1.5]) + 0.5) / 4)


def test_intervals_of_simulated_families_cover_their_truth(host: PluginHost):
    """A small version of the committed table: tables of noisy points, where 90 % is nominal."""
    simulations = [equal_compute.simulate(seed, stores=False, resamples=60) for seed in range(6)]
    for kind in ("table: score of a family", "table: difference of two families", "table: compute-equivalent gain"):
        inside = [is_inside for simulation in simulations for is_inside in simulation[kind]]
        assert np.mean(inside) > 0.7, kind
    orders = [simulation["table: order"][0] for simulation in simulations]
    assert np.mean([right for _, right in orders]) >= np.mean([chance for chance, _ in orders]) - 0.3


def test_a_simulated_store_is_ranked_with_paired_documents(host: PluginHost, tmp_path: Path):
    store = equal_compute.write_store(tmp_path / "store", np.random.default_rng(1))
    tables = named(rank(store, at={"flops": equal_compute.AT}, reference="beech", host=host, **FAST))
    assert list(tables) == ["scores", "ranking", "differences", "gains", "crossovers"]
    truth = {family: float(equal_compute.accuracy(family, equal_compute.AT)) for family in equal_compute.TRUTH}
    for row in tables["scores"].rows:
        assert abs(row[3].value - truth[row[2]]) < 0.08
    paired = {row[2:4]: row[4].high - row[4].low for row in tables["differences"].rows}
    alone = {row[2]: row[3].high - row[3].low for row in tables["scores"].rows}
    assert paired["ash", "beech"] < np.hypot(alone["ash"], alone["beech"])
    assert {row[2] for row in tables["gains"].rows} == {"beech"}


def two_laws(host: PluginHost, factor: float, noise: float = 0.0):
    """Two power laws without noise; the second needs `factor` times the compute of the first."""
    flops, rng = np.geomspace(1e18, 1e22, 8), np.random.default_rng(0)
    for number, budgets in enumerate((flops, flops / factor)):
        y = 1.5 + 3e3 * budgets**-0.16 * np.exp(noise * rng.normal(size=8))
        points = pd.DataFrame({"flops": flops, "y": y})
        yield fit(points, "power", value="y", registries=host, bootstrap=50, seed=number, resample="checkpoints")


def test_the_gain_of_a_law_is_exact_without_noise(host: PluginHost):
    first, second = two_laws(host, 4.0)
    factor = gain(first, second, 1e20, rises=False)
    assert factor.value == pytest.approx(4.0, rel=0.02)
    assert gain(second, first, 1e20, rises=False).value == pytest.approx(0.25, rel=0.02)
    assert gain(first, first, 1e20, rises=False).value == pytest.approx(1.0, rel=0.01)


def test_a_gain_without_end_is_open(host: PluginHost):
    """A reference that never reaches the score has no factor; one that is always ahead has 0."""
    flops = np.geomspace(1e18, 1e22, 8)
    options = {"value": "y", "registries": host, "bootstrap": 50, "resample": "checkpoints"}
    high, low = (fit(pd.DataFrame({"flops": flops, "y": e + 3e3 * flops**-0.16}), "power", **options) for e in (9, 0.1))
    assert gain(low, high, 1e22, rises=False).value == np.inf
    assert gain(high, low, 1e22, rises=False).value == 0
    with pytest.raises(LawError, match="is a function of params, tokens"):
        gain(low, fit(grid(), "chinchilla", **options), 1e20, rises=False)


def grid() -> pd.DataFrame:
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    return pd.DataFrame({"params": n, "tokens": d, "y": 1.7 + 400 * n**-0.34 + 410 * d**-0.28})


def losses() -> pd.DataFrame:
    """A table of two families over params and tokens, the second with more of an irreducible loss."""
    tables = [grid().assign(family=name) for name in ("ash", "beech")]
    tables[1]["y"] += 0.2
    return pd.concat(tables, ignore_index=True)


def test_families_are_compared_at_equal_params_and_tokens(host: PluginHost):
    asked = {"metric": "y", "lower_is_better": True, "host": host, **FAST}
    tables = named(rank(losses(), at={"params": 2e8, "tokens": 5e10}, **asked))
    assert list(tables) == ["scores", "ranking", "differences"]
    apart = tables["differences"].rows[0][4]
    assert apart.value == pytest.approx(-0.2, abs=0.01)
    assert tables["ranking"].rows[0][2] == "ash > beech"


def test_equal_size_uses_the_last_checkpoint_of_each_run(host: PluginHost):
    table = losses()
    table = table.assign(size=table["params"].map("{:.0f}".format), step=table["tokens"], flops=0.0).drop(
        columns="flops"
    )
    tables = named(rank(table, at={"params": 1e8}, metric="y", lower_is_better=True, host=host, **FAST))
    last = 1.7 + 400 * 1e8**-0.34 + 410 * 1e11**-0.28
    assert tables["scores"].rows[0][3].value == pytest.approx(last, abs=0.02)
    assert any("own ratio of tokens" in note for note in tables["scores"].notes)


def test_pareto_fits_cross_where_their_laws_do(host: PluginHost):
    table = equal_compute.frontiers(np.random.default_rng(0))
    asked = {"metric": "error", "lower_is_better": True, "pareto": True, "host": host, **FAST}
    tables = named(rank(table, at={"flops": 1e19}, **asked))
    (row,) = tables["crossovers"].rows
    assert 1e18 < row[3].value < 1e20  # 9.3e18
    assert {row[5] for row in tables["scores"].rows} == {"Pareto power"}


def test_families_that_do_not_cross_are_said_not_to(host: PluginHost):
    flops = np.geomspace(1e18, 1e22, 8)
    table = pd.concat(
        pd.DataFrame({"family": name, "flops": flops, "y": e + 3e3 * flops**-0.16}) for name, e in (("a", 1), ("b", 2))
    )
    tables = named(rank(table, at={"flops": 1e20}, metric="y", lower_is_better=True, host=host, **FAST))
    assert tables["crossovers"].rows[0][-1] == "none within the measured range"


def test_a_place_outside_what_was_measured_is_marked(host: PluginHost):
    tables = named(
        rank(equal_compute.table(np.random.default_rng(0)), at={"flops": 1e22}, metric="acc", host=host, **FAST)
    )
    assert {row[-1] for row in tables["scores"].rows} == {"31.6x"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"at": {"flops": 1e19}}, "pass the column of the scores with --metric"),
        ({"at": {"width": 3.0}}, "expected flops, loss, params, tokens"),
        ({"at": {"flops": -1.0}}, "expected numbers above 0"),
        ({"at": {"flops": 1e19}, "metric": "acc", "law": "chinchilla"}, "is a function of params, tokens"),
        ({"at": {"flops": 1e19}, "metric": "acc", "law": "last"}, "is a procedure"),
        ({"at": {"flops": 1e19}, "metric": "acc", "reference": "elm"}, "elm has no fit; expected one of"),
        ({"at": {"flops": 1e19}, "metric": "acc", "where": "family == 'ash'"}, "no task has two families"),
        ({"at": {"loss": 2.0}, "metric": "acc", "law": "power"}, "no task has two families"),
    ],
)
def test_what_cannot_be_compared_is_said(host: PluginHost, asked, said):
    with pytest.raises(UsageError, match=said):
        rank(equal_compute.table(np.random.default_rng(0)), host=host, **FAST, **asked)


def test_places_are_read_from_the_command_line():
    assert places(["params=1e9,tokens=2e10"]) == {"params": 1e9, "tokens": 2e10}
    for wrong in ("flops", "flops=many", "width=3"):
        with pytest.raises(UsageError, match="--at"):
            places([wrong])


def test_the_command_ranks_a_table_with_foreign_columns(tmp_path: Path):
    table = equal_compute.table(np.random.default_rng(0)).rename(columns={"family": "recipe"})
    table.to_csv(tmp_path / "points.csv", index=False)
    asked = [*("rank", str(tmp_path / "points.csv"), "--at", "flops=2.5e19", "--metric", "acc"),
             *("--map", "recipe=family", "--bootstrap", "50", "-o", str(tmp_path / "out"))]  # fmt: skip
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv(tmp_path / "out" / "scores.csv")["family"]) == set(equal_compute.TRUTH)


def test_the_command_ranks_a_store_and_names_families_without_a_law(nano_store: PointStore):
    asked = ["rank", str(nano_store.path), "--at", "flops=1e13", "--task", "nano_birthplace", "--bootstrap", "20"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2  # birch has three points, too few for a sigmoid
    assert "nano_birthplace, birch: law 'sigmoid' has 4 parameters" in result.stderr


def test_a_family_without_degrees_of_freedom_is_not_ranked(host: PluginHost):
    """Four points fit four parameters exactly, which says nothing about the error: no interval of zero width."""
    flops = np.geomspace(1e20, 1e23, 8)
    score = 0.25 + 0.5 / (1 + np.exp(-1.5 * (np.log10(flops) - 21.5))) + 0.01 * np.cos(np.arange(8))
    table = pd.DataFrame({"family": list("aaaaaaaabbbbbbbbcccc"), "flops": [*flops, *flops, *flops[::2]]})
    table["acc"] = [*score, *(score - 0.02), *score[::2]]
    table["size"] = table["flops"].map("{:.3g}".format)
    scores = named(rank(table, at={"flops": 1e22}, metric="acc", host=host, **FAST))["scores"]
    assert [row[2] for row in scores.rows] == ["a", "b"]
    assert all(row[3].high > row[3].low for row in scores.rows)
    assert any("c: 4 points leave sigmoid no degree of freedom" in note for note in scores.notes)


def test_checkpoints_of_one_run_are_called_so(host: PluginHost):
    """The message on 8 points of one run was that they are too few for 4 parameters."""
    flops = np.geomspace(1e20, 1e23, 8)
    score = 0.25 + 0.5 / (1 + np.exp(-1.5 * (np.log10(flops) - 21.5))) + 0.01 * np.cos(np.arange(8))
    table = pd.DataFrame({"family": ["a"] * 8 + ["b"] * 8, "flops": [*flops, *flops], "size": "1b"})
    table["acc"] = [*score, *(score - 0.02)]
    told = "8 points of one run, as runs are distinguished by family, size, leave sigmoid no .*several runs.*--run"
    with pytest.raises(UsageError, match=told):
        rank(table, at={"flops": 1e22}, metric="acc", host=host, **FAST)
    assert rank(table.assign(run=range(16)), at={"flops": 1e22}, metric="acc", host=host, **FAST)


def test_errors_of_imported_families_are_not_paired(host: PluginHost):
    """Point i had the same error in every family, which cancelled: 90 % intervals of differences covered 54 %."""
    flops, rng = np.geomspace(1e18, 1e22, 8), np.random.default_rng(0)
    line = {"flops": flops, "params": np.sqrt(flops / 120), "stderr": 0.02, "metric": "acc"}
    named_by = [{"family": family, "task": task} for family in ("ash", "beech") for task in ("s", "t")]
    rise = 0.2 + 0.05 * np.arange(8)
    frames = [pd.DataFrame({**line, **names, "value": rise + rng.normal(scale=0.02, size=8)}) for names in named_by]
    store = table_points(pd.concat(frames), registries=host)
    tables = named(rank(store, at={"flops": 1e20}, law="line", host=host, bootstrap=1000))
    alone = {row[:3:2]: row[3].high - row[3].low for row in tables["scores"].rows}
    assert len(tables["differences"].rows) == 2
    for row in tables["differences"].rows:
        apart = np.hypot(alone[row[0], "ash"], alone[row[0], "beech"])
        assert row[4].high - row[4].low == pytest.approx(apart, rel=0.15)


def test_a_metric_without_a_default_law_does_not_stop_the_others(host: PluginHost):
    """One task in log-probabilities made `harness rank` of a whole table fail; no document of a table is known."""
    flops = np.tile(np.geomspace(1e18, 1e22, 6), 2)
    wide = pd.DataFrame({"family": np.repeat(["a", "b"], 6), "flops": flops, "params": np.sqrt(flops / 120)})
    table = wide.assign(acc=0.2 + 0.1 * (np.log10(flops) - 18) + 0.01 * np.arange(12), logp=np.log(flops) / 10 - 9)
    tables = named(rank(table_points(table), at={"flops": 1e21}, host=host, **FAST))
    assert {row[0] for row in tables["scores"].rows} == {"acc"}
    assert any("logp, a: score at equal flops has no default law" in note for note in tables["scores"].notes)
    said = " ".join(note for name in ("ranking", "differences") for note in tables[name].notes)
    assert "no document is known" in said
    assert "paired" not in said
