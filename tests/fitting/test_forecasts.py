"""Forecasts: they cover known truth, abstain if they cannot, and report how well they did before."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import special, stats

import harness
from harness.cli import main
from harness.errors import LawError, PluginError, UsageError
from harness.fitting.forecast_scores import LEVELS, crps, interval_score, normal_scores, score
from harness.fitting.forecast_stack import SHARPER, Cases, combine, rounded
from harness.fitting.point_source import table_points
from harness.fitting.posteriors import pooled, sample
from harness.fitting.result import save_fits
from harness.fitting.rungs import read_ladders
from harness.fitting.verdicts import verdict
from harness.host import load_plugins
from harness.testing import check_forecaster

SIZES = (7e7, 1.4e8, 2.8e8, 5.6e8, 1.1e9)
BIG = {"params": 2.2e9, "tokens": 4.4e10}


def ladder(task="t", family="f", *, a=-1.0, b=0.6, chance=0.25, docs=500, seed=0, sizes=SIZES) -> pd.DataFrame:
    """Points of a sigmoid in ln N, counted on documents."""
    rng = np.random.default_rng(seed)
    params = np.array(sizes)
    p = chance + (1 - chance) * special.expit(a + b * np.log(params / 2.8e8))
    return pd.DataFrame(
        {
            "task": task, "family": family, "size": [f"{x:.0e}" for x in params], "params": params,
            "tokens": 20 * params, "flops": 120 * params**2, "acc": rng.binomial(docs, p) / docs, "acc_n": docs,
            "chance": chance,
        }
    )  # fmt: skip


def several(n=6, **options) -> pd.DataFrame:
    return pd.concat([ladder(f"t{i}", a=-1.5 + 0.5 * i, seed=i, **options) for i in range(n)], ignore_index=True)


def test_draws_are_those_of_a_posterior_that_is_known():
    """A normal mean with a standard normal prior, three observations each: the posterior is known exactly."""
    y = np.array([[0.5, 1.5, 1.0], [-2.0, -2.2, -1.8]])
    variance = 0.25

    def likelihood(z):
        return -0.5 * ((y[:, None, :] - z) ** 2).sum(axis=2) / variance

    draws = sample(likelihood, (2, 2000, 1), np.random.default_rng(0))
    precision = 1 + 3 / variance
    assert draws.z.mean(axis=(1, 2)) == pytest.approx(y.sum(axis=1) / variance / precision, abs=0.03)
    assert draws.z.std(axis=(1, 2)) == pytest.approx(precision**-0.5, rel=0.06)
    assert (draws.distinct > 200).all()


def test_problems_that_share_a_prior_move_it():
    y = np.full((12, 1), 2.0)

    def likelihood(z):
        return -0.5 * ((y[:, None, :] - z) ** 2).sum(axis=2) / 1.0

    alone = sample(likelihood, (12, 500, 1), np.random.default_rng(0))
    draws = pooled(likelihood, (12, 500, 1), np.zeros(12, dtype=int), np.array([True]), np.random.default_rng(0))
    assert alone.z.mean() == pytest.approx(1.0, abs=0.1)
    assert draws.z.mean() > 1.3


def test_a_forecast_covers_what_the_true_law_gives():
    points = several()
    forecast = harness.forecast(points, **BIG)
    truth = 0.25 + 0.75 * special.expit(np.array([-1.5 + 0.5 * i for i in range(6)]) + 0.6 * np.log(2.2e9 / 2.8e8))
    inside = (forecast.frame["low"] <= truth) & (truth <= forecast.frame["high"])
    assert inside.sum() >= 5
    assert (forecast.frame["high"] - forecast.frame["low"]).between(0.02, 0.45).all()
    assert forecast.frame["beyond"].round(2).eq(4.0).all()
    assert not forecast.abstained.any()


def test_the_same_seed_gives_the_same_numbers():
    points = several(2)
    first, second = (harness.forecast(points, **BIG, seed=3) for _ in range(2))
    assert (first.quantiles == second.quantiles).all()
    assert (first.quantiles != harness.forecast(points, **BIG, seed=4).quantiles).any()


def test_the_largest_size_is_held_out_and_scored():
    points = several()
    forecast = harness.forecast(points)
    top = points.groupby("task")["acc"].last()
    assert forecast.frame.set_index("task")["measured"].to_dict() == top.to_dict()
    changed = points.assign(acc=np.where(points["params"] == max(SIZES), 0.99, points["acc"]))
    assert (harness.forecast(changed).quantiles == forecast.quantiles).all(), "a forecast depends on held-out points"
    assert forecast.scores.n == 6
    assert forecast.earlier.n == 6, "three sizes forecast the fourth, in six tasks"
    below = points[points["params"] < max(SIZES)].groupby("task")["acc"]
    assert forecast.scores.last == pytest.approx((top - below.last()).abs().mean())
    assert forecast.scores.constant == pytest.approx((top - below.mean()).abs().mean())
    assert np.isfinite([forecast.earlier.last, forecast.earlier.constant, forecast.earlier.crps]).all()
    assert forecast.to_json()["scores"]["last"] == forecast.scores.last


def test_no_interval_is_narrower_than_documents_allow():
    points = pd.concat([ladder(f"t{i}", a=6.0, seed=i) for i in range(4)])
    forecast = harness.forecast(points, **BIG)
    assert ((forecast.frame["high"] - forecast.frame["low"]) >= 1 / 500 - 1e-9).all()
    steps = forecast.frame[["low", "high"]].to_numpy() * 500
    assert steps == pytest.approx(np.round(steps), abs=1e-6)


def test_intervals_for_all_documents_are_wider():
    points = several(3)
    these, all_of_them = (harness.forecast(points, **BIG, of=of).frame for of in ("documents", "population"))
    assert ((all_of_them["high"] - all_of_them["low"]) > (these["high"] - these["low"])).all()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ((0.35, 0.5, 0.7, 0.45, 0.3), "falls from 0.7 to 0.3"),
        ((0.25, 0.262, 0.244, 0.25, 0.256), "at chance at every size"),
        ((0.2, 0.15, 0.1, 0.06, 0.03), "below chance"),
    ],
)
def test_it_abstains_and_says_why(values, why):
    points = several(3)
    odd = ladder("odd").assign(acc=values)
    frame = harness.forecast(pd.concat([points, odd]), **BIG).frame.set_index("task")
    assert why in frame.loc["odd", "verdict"]
    assert frame.loc[["t0", "t1", "t2"], "verdict"].isin(["forecast", "wide"]).all()


def test_a_leap_from_far_below_chance_is_not_forecast_and_teaches_the_others_nothing():
    odd = [ladder(f"odd{i}", seed=i).assign(acc=(0.02, 0.05, 0.03, 0.9, 0.95)) for i in range(3)]
    frame = harness.forecast(pd.concat([several(), *odd]), **BIG).frame.set_index("task")
    assert frame.loc["odd0", "verdict"].startswith("abstain: 3 of 5 sizes are far below chance, 0.25")
    assert (frame.loc[[f"t{i}" for i in range(6)], "factor"] < 1.2).all(), "its misses do not widen them"


def test_an_interval_that_says_nothing_abstains():
    ladders = read_ladders(ladder(), "acc")[0]
    assert verdict(ladders, 0.3, 0.9).startswith("abstain: the interval is 0.60 wide")
    assert verdict(ladders, 0.6, 0.85) == "wide"
    assert verdict(ladders, 0.7, 0.8) == "forecast"


def test_two_sizes_are_too_few():
    forecast = harness.forecast(several(2, sizes=SIZES[:2]), **BIG)
    assert forecast.frame["verdict"].str.contains("2 sizes, and a curve needs 3").all()
    with pytest.raises(LawError, match="two sizes below the target"):
        harness.forecast(ladder(sizes=SIZES[:1]), **BIG)


def test_rates_that_are_better_when_lower_are_not_forecast_as_accuracies(tmp_path):
    """Error rates of a store were forecast together with accuracies, whose intervals they changed."""
    table = several(2)
    table = table[table["task"] == "t0"].assign(t0=table["acc"], t1=list(table["acc"][table["task"] == "t1"]))
    table = table[["family", "size", "params", "tokens", "t0", "t1"]]
    table.to_csv(tmp_path / "acc.csv", index=False)
    table.assign(err_x=1 - table["t0"]).to_csv(tmp_path / "both.csv", index=False)
    alone, both = (
        harness.forecast_file(tmp_path / name, registries=load_plugins()) for name in ("acc.csv", "both.csv")
    )
    assert list(both.frame["task"]) == ["t0", "t1"]
    assert (both.quantiles == alone.quantiles).all()
    assert (both.value, alone.value) == ("score", "score")
    assert any("x: not forecast, because lower err is better" in note for note in both.notes)
    with pytest.raises(UsageError, match="x: not forecast, because lower err is better"):
        harness.forecast_file(tmp_path / "both.csv", task="x", registries=load_plugins())
    with pytest.raises(LawError, match="lower bpb is better, and a forecast needs accuracies"):
        harness.forecast(ladder().rename(columns={"acc": "bpb"}), value="bpb")


def test_values_that_are_no_accuracies_are_refused():
    with pytest.raises(LawError, match="divide percentages by 100"):
        harness.forecast(ladder().assign(acc=lambda x: 100 * x["acc"]), **BIG)
    with pytest.raises(LawError, match="no column 'brier'"):
        harness.forecast(ladder(), value="brier", **BIG)
    with pytest.raises(UsageError, match="params and tokens, or flops"):
        harness.forecast(ladder(), tokens=1e10)
    with pytest.raises(UsageError, match="params of the model to forecast"):
        harness.forecast(ladder(), params=-1.0)


def test_flops_alone_are_enough():
    points = several(3).drop(columns=["params", "tokens"])
    forecast = harness.forecast(points, flops=4 * float(points["flops"].max()))
    assert forecast.frame["beyond"].round(2).eq(4.0).all()
    assert (forecast.frame["median"] > points.groupby("task")["acc"].last().to_numpy() - 0.05).all()


def test_a_task_loss_adds_the_two_steps():
    points = several(3).assign(bpb=lambda x: 0.4 + 0.6 * (x["params"] / 2.8e8) ** -0.2)
    forecast = harness.forecast(points, via="bpb", **BIG)
    assert all(weights["stepwise"] > 0.2 for weights in forecast.frame["weights"])
    assert all(weights["stepwise"] == 0 for weights in harness.forecast(points, **BIG).frame["weights"])


def test_a_part_that_fails_before_loses_its_weight():
    """Two models of ten past cases: one is near, the other far off."""
    rng = np.random.default_rng(0)
    y = rng.uniform(0.4, 0.6, 20)
    z = stats.norm.ppf(LEVELS)
    near, far = (special.expit(special.logit(y + off)[:, None] + 0.1 * z) for off in (0.0, 0.3))
    count = np.arange(20)
    past = Cases(
        ("near", "far"), count, count * 0 + 3, count * 0 + 4, y * 0 + 1.4, y, y * 0 + 500, np.array([near, far]), count
    )
    combined = combine(past, past.take(np.array([0])), np.ones(2))
    assert combined.weights[0, 0] > 0.8
    assert combined.factors[0] < 1


def test_misses_of_the_past_widen():
    rng = np.random.default_rng(0)
    y = rng.uniform(0.3, 0.7, 40)
    z = stats.norm.ppf(LEVELS)
    off = special.logit(y) + 0.3 * rng.standard_normal(40)
    count = np.arange(40)
    narrow = special.expit(off[:, None] + 0.1 * z)
    past = Cases(("one",), count, count * 0 + 3, count * 0 + 4, y * 0 + 1.4, y, y * 0 + 500, narrow[None], count)
    assert combine(past, past.take(np.array([0, 1])), np.ones(1)).factors == pytest.approx(2.0, abs=0.3)


def test_what_held_before_narrows_by_a_constant_more_and_nothing_known_leaves_the_width():
    """Distributions that were calibrated in 400 cases: the constant of simulations alone is left."""
    rng = np.random.default_rng(0)
    y = special.expit(0.2 * rng.standard_normal(400))
    count = np.arange(400)
    said = np.repeat(special.expit(0.2 * stats.norm.ppf(LEVELS))[None], 400, axis=0)
    past = Cases(("one",), count, count * 0 + 3, count * 0 + 4, y * 0 + 1.4, y, y * 0 + 500, said[None], count)
    new = past.take(np.array([0]))
    assert combine(past, new, np.ones(1)).factors == pytest.approx(SHARPER, abs=0.05)
    assert combine(past.take(count < 0), new, np.ones(1)).factors == pytest.approx(1.0)


def test_ends_are_rounded_outward():
    ends = rounded(np.linspace(0.401, 0.499, len(LEVELS))[None], np.array([20.0]))
    assert ends[0, 0] == pytest.approx(0.4)
    assert ends[0, -1] == pytest.approx(0.5)


def test_scores_of_a_normal_distribution_are_the_known_ones():
    z = stats.norm.ppf(LEVELS)
    assert crps(np.array([0.0]), z[None])[0] == pytest.approx(0.2337, abs=0.005)
    assert interval_score(np.array([2.0]), np.array([-1.0]), np.array([1.0]))[0] == pytest.approx(2 + 20)
    assert normal_scores(np.array([1.0, 9.0]), np.array([z, z])) == pytest.approx([1.0, 3.5], abs=0.01)
    y = np.random.default_rng(0).standard_normal(2000)
    scored = score(y, np.tile(z, (2000, 1)))
    assert scored.coverage == pytest.approx(0.9, abs=0.02)
    assert scored.mean_width == pytest.approx(2 * 1.645, abs=0.01)
    assert score(y[:0], np.empty((0, len(z)))).n == 0


def test_a_law_of_a_plugin_and_a_forecaster_take_part():
    from tests import kitchen_sink

    host = load_plugins()
    host.add(kitchen_sink, "sink")

    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_laws(register):
            class Straight(kitchen_sink.Linear):
                name, value_range = "straight", (0.0, 1.0)

            register(Straight())

    host.add(Plugin, "straight")
    forecast = harness.forecast(several(2), registries=host, **BIG)
    assert set(forecast.frame["weights"][0]) == {"saturating", "stepwise", "walk", "sink_forecaster", "straight"}
    assert all(0 < weights["straight"] < 1 for weights in forecast.frame["weights"])


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (type("Mine", (), {"name": "mine"}), "is a class"),
        (type("Mine", (), {"name": "mine"})(), "lacks draw"),
        (type("Mine", (), {"name": "", "draw": print})(), "has the name ''"),
        (type("Mine", (), {"name": "mine", "draw": print, "untried": 0})(), "untried = 0"),
    ],
)
def test_what_is_no_forecaster_is_refused(what, why):
    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_forecasters(register):
            register(what)

    with pytest.raises(PluginError, match=why):
        load_plugins().add(Plugin, "mine")


def test_the_command_prints_a_row_per_task_and_keeps_quantiles(tmp_path):
    several(2).to_csv(tmp_path / "points.csv", index=False)
    command = ["forecast", str(tmp_path / "points.csv"), "--params", "2.2e9", "--tokens", "4.4e10"]
    shown = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert "| t1" in shown.output
    assert (tmp_path / "out" / "forecast.csv").is_file()
    result = CliRunner().invoke(main, [*command, "--json"])
    table = json.loads(result.stdout)
    assert len(table["rows"][0]["quantiles"]) == len(table["levels"]) == len(LEVELS)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ([], "no model to forecast"),
        (["--at", "smallest"], "expected largest"),
        (["--at", "largest", "--flops", "1e20"], "omit --flops"),
        (["--tokens", "1e10"], "--tokens needs --params"),
        (["--at", "largest", "--metric", "f1"], "'f1' names no column"),
        (["--at", "largest", "--family", "g"], "there is no family 'g'"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, asked, why):
    ladder().to_csv(tmp_path / "points.csv", index=False)
    result = CliRunner().invoke(main, ["forecast", str(tmp_path / "points.csv"), *asked])
    assert result.exit_code == 2
    assert why in result.output


def test_a_store_is_forecast_by_its_own_metrics(nano_store, tmp_path):
    result = CliRunner().invoke(main, ["forecast", str(nano_store.path), "--at", "largest", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    assert {row["family"] for row in rows} == {"birch"}, "aster has two sizes: one is held out, and one is no ladder"
    assert all(row["verdict"].startswith("abstain: 2 sizes") for row in rows)


def test_many_families_are_forecast_from_one_another():
    """Eight families of three sizes: one line in ln FLOPs, an offset per family; the largest of one is held out."""
    rng = np.random.default_rng(0)
    tables = [
        ladder(task, f"f{i}", a=a + skill, b=0.5, chance=0.25, seed=100 * i + t, sizes=SIZES[i % 3 : i % 3 + 3])
        for i, skill in enumerate(0.4 * rng.standard_normal(8))
        for t, (task, a) in enumerate((("t0", -1.0), ("t1", 0.0), ("t2", 0.5)))
    ]
    forecast = harness.forecast(pd.concat(tables, ignore_index=True), family="f2")
    assert set(forecast.frame["weights"][0]) == {"families", "capability"}
    assert forecast.frame["family"].eq("f2").all()
    assert ((forecast.frame["measured"] - forecast.frame["median"]).abs() < 0.1).all()
    assert forecast.earlier.n >= 40
    assert forecast.earlier.coverage > 0.75


def test_help_does_not_import_what_forecasts_need():
    result = subprocess.run(
        [sys.executable, "-c", "import sys, harness.host as h; h.load_plugins(); print('scipy' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["saturating", "stepwise", "walk", "families", "capability"])
def test_models_that_ship_pass_the_check_of_forecasters(host, name):
    check_forecaster(host.forecasters[name])


def wanted(batch):
    return len(batch.ladders), 100, batch.targets("params").shape[1]


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda batch, rng: np.zeros(wanted(batch)[:2]), "of shape"),
        (lambda batch, rng: 1 / 0, "forecaster 'mine' fails: ZeroDivisionError"),
        (lambda batch, rng: sys.exit(0), r"forecaster 'mine' fails: called sys.exit\(0\)"),
        (lambda batch, rng: np.full(wanted(batch), 80.0), "expected 0 to 1"),
        (lambda batch, rng: np.random.default_rng().random(wanted(batch)), "the same seed gives different draws"),
    ],
)
def test_a_forecaster_that_breaks_the_contract_is_named(draw, why):
    class Mine:
        name = "mine"

        def draw(self, batch, rng):
            return draw(batch, rng)

    with pytest.raises(AssertionError, match=why):
        check_forecaster(Mine())


def test_a_plan_expects_the_width_that_the_forecast_has_after_the_run():
    far = {"params": 8.8e9, "tokens": 1.76e11}
    points = several(3)
    forecast = harness.forecast(points, **far)
    rows = {row[1]: row for row in forecast.plan().rows}
    one, two, four = (
        rows[f"a{name}"]
        for name in ("nother seed of the largest size", *(f" size of {n} times the parameters" for n in (2, 4)))
    )
    assert one[5] == pytest.approx((forecast.frame["high"] - forecast.frame["low"]).mean())
    assert four[6].value < two[6].value < one[6].value < one[5]
    assert (four[2], four[4]) == pytest.approx((4 * SIZES[-1], 16 * 120 * SIZES[-1] ** 2))
    run = pd.concat([ladder(f"t{i}", a=-1.5 + 0.5 * i, seed=50 + i, sizes=(4 * SIZES[-1],)) for i in range(3)])
    after = harness.forecast(pd.concat([points, run]), **far).frame
    assert four[6].value == pytest.approx((after["high"] - after["low"]).mean(), rel=0.35)


def test_a_plan_is_printed_for_one_model_at_a_time(tmp_path):
    several(2).to_csv(tmp_path / "points.csv", index=False)
    wanted = ["--params", "2.2e9", "--tokens", "4.4e10", "--plan"]
    result = CliRunner().invoke(main, ["forecast", str(tmp_path / "points.csv"), *wanted])
    assert result.exit_code == 0, result.output
    assert "What to measure next" in result.output
    with pytest.raises(UsageError, match="a plan is for one model"):
        harness.forecast(several(2), params=[2.2e9, 4.4e9], tokens=[4.4e10, 8.8e10]).plan()


def test_a_model_without_tokens_is_not_placed_on_a_ladder_of_flops():
    """ln params was compared with ln FLOPs: a model ten times as large was forecast at chance, without a word."""
    points = ladder()
    with pytest.raises(LawError, match="t, f has training FLOPs.*give its FLOPs"):
        harness.forecast(points, params=2.2e9)
    of_sizes = points.drop(columns=["tokens", "flops"])
    for asked in (BIG, {"flops": 1e21}):
        with pytest.raises(LawError, match="neither tokens nor FLOPs of t, f are known"):
            harness.forecast(of_sizes, **asked)
    frame = harness.forecast(of_sizes, params=2.2e9).frame.iloc[0]
    assert frame["median"] > points["acc"].iloc[-1]
    assert frame["beyond"] == pytest.approx(2)


def test_a_forecast_does_not_depend_on_the_order_of_rows_or_on_a_column_of_sizes():
    one = pd.concat([ladder().assign(seed=0), ladder(seed=1).assign(seed=1)], ignore_index=True)
    early = one.assign(tokens=one["tokens"] / 2, flops=one["flops"] / 2, acc=0.25, step=1)
    points = pd.concat([one.assign(step=2), early], ignore_index=True)
    expected = harness.forecast(points, **BIG).quantiles
    for same in (points.iloc[::-1], points.sample(frac=1, random_state=0), points.drop(columns="size")):
        np.testing.assert_array_equal(harness.forecast(same, **BIG).quantiles, expected)


def test_a_family_of_unknown_size_does_not_stop_the_forecast_of_others():
    """One closed model in a published table, without params, stopped every forecast."""
    table = ladder()
    closed = table.tail(2).assign(family="closed", params=np.nan, tokens=np.nan, flops=np.nan)
    both = harness.forecast(pd.concat([table, closed], ignore_index=True))
    assert both.quantiles.tolist() == harness.forecast(table).quantiles.tolist()
    assert "neither params nor FLOPs are known: closed (not forecast)" in both.notes
    compared = harness.compare(table_points(pd.concat([table, closed.head(1)])), bootstrap=20)[2]
    assert [row[1] for row in compared.rows] == ["f"]
    assert "t, closed: not forecast; neither params nor FLOPs are known" in compared.notes
    with pytest.raises(LawError, match="t, closed: params and flops are missing"):
        harness.forecast(closed)


def test_rows_that_a_forecast_cannot_use_are_refused_or_said():
    points = ladder()
    other = points.tail(1).assign(acc=0.1)
    for twice in (pd.concat([points, other]), pd.concat([other, points])):
        with pytest.raises(LawError, match="two points for f:1e\\+09.*differ in acc"):
            harness.forecast(twice, **BIG)
    with pytest.raises(LawError, match=r"t, f: chance is 0\.25, 0\.5; expected one value"):
        harness.forecast(points.assign(chance=[0.5, *points["chance"][1:]]), **BIG)
    with pytest.raises(LawError, match="acc_n has 0 documents"):
        harness.forecast(points.assign(acc_n=0), **BIG)
    with pytest.raises(LawError, match="no column 'bpp'"):
        harness.forecast(points.assign(bpb=1.0), via="bpp", **BIG)
    empty = points.assign(chance=[np.nan, *points["chance"][1:]])
    np.testing.assert_array_equal(harness.forecast(empty, **BIG).quantiles, harness.forecast(points, **BIG).quantiles)
    lost = harness.forecast(points.assign(acc=[np.nan, *points["acc"][1:]], bpb=[np.nan, 4, 3, 2, np.nan]), via="bpb")
    assert "1 of 5 rows have no acc and were left out" in lost.notes
    assert any("bpb is missing or 0 at some sizes" in note and "t, f" in note for note in lost.notes)


def test_flops_that_are_not_those_of_params_and_tokens_are_refused(tmp_path):
    """The law took the FLOPs and the table showed the params: no model has both."""
    with pytest.raises(UsageError, match=r"times 6 x params x tokens; expected the three of one model"):
        harness.forecast(ladder(), **BIG, flops=1e25)
    assert len(harness.forecast(ladder(), **BIG, flops=6 * 2.2e9 * 4.4e10).frame) == 1
    save_fits([harness.fit(ladder(), "line", value="acc", bootstrap=20)], tmp_path / "fit.json")
    asked = ["predict", str(tmp_path / "fit.json"), "--params", "1e9", "--tokens", "2e10"]
    assert CliRunner().invoke(main, asked).exit_code == 0
    result = CliRunner().invoke(main, [*asked, "--flops", "1e25"])
    assert result.exit_code == 2
    assert "expected the three of one model" in result.stderr
