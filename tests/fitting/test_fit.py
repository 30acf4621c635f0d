"""Fits: recovery, uncertainty, held-out points that are never seen, and warnings in words."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from harness import LawError, UsageError
from harness.fitting.fit import fit, fit_families
from harness.fitting.fit_files import PointsFile, fit_file
from harness.fitting.ladder import Ladder, PointSelection
from harness.fitting.laws import curve
from harness.fitting.options import Options
from harness.fitting.resampling import Resamples, point_weights
from harness.fitting.result import LawFit, check_output, load_fits, save_fits
from harness.fitting.summary import prediction_table
from harness.fitting.warnings import rungs
from harness.fitting.wide_points import widen
from harness.host import PluginHost, load_plugins
from harness.reports.back_test import back_test
from harness.store.points import PointStore
from harness.testing import check_law

FLOPS = np.geomspace(1e18, 1e22, 12)


def power(flops, E=1.7, a=7.0, alpha=0.15):
    return E + np.exp(a - alpha * np.log(flops))


def table(y, flops=FLOPS, **columns) -> pd.DataFrame:
    return pd.DataFrame({"flops": flops, "params": np.sqrt(flops), "y": y, **columns})


def quick(points, law, host, **arguments):
    return fit(points, law, registries=host, **{"value": "y", "bootstrap": 50, "resample": "checkpoints", **arguments})


REGISTERED = load_plugins().laws
FORMULAS = [name for name in REGISTERED if hasattr(REGISTERED[name], "formula")]


@pytest.mark.parametrize("name", FORMULAS)
def test_shipped_laws_pass_the_check(host: PluginHost, name):
    """Exact recovery without noise from three seeds and orders, broadcasting, bounds."""
    check_law(host.laws[name])


@pytest.mark.parametrize("objective", ["least_squares", "log_least_squares", "log_huber"])
def test_parameters_are_recovered_exactly_without_noise(host: PluginHost, objective):
    fitted = quick(table(power(FLOPS)), "power", host, objective=objective)
    assert fitted.steps[0].parameters == pytest.approx({"E": 1.7, "a": 7.0, "alpha": 0.15}, rel=1e-4)
    assert fitted.steps[0].cost < 1e-12


def test_held_out_points_are_scored_beside_the_last_value_and_a_constant(host: PluginHost):
    rng = np.random.default_rng(0)
    y = power(FLOPS) * (1 + rng.normal(scale=0.01, size=12))
    fitted = quick(table(y), "power", host, hold_out="flops > 1e21")
    scores, held = fitted.scores, y[FLOPS > 1e21]
    assert (scores.n, scores.covered, scores.unbounded) == (3, sum(row["inside"] for row in fitted.hold_out), 0)
    assert scores.mae == pytest.approx(np.mean([abs(row["error"]) for row in fitted.hold_out]))
    assert scores.last == pytest.approx(np.abs(held - y[FLOPS <= 1e21][-1]).mean())
    assert scores.constant == pytest.approx(np.abs(held - y[FLOPS <= 1e21].mean()).mean())
    assert 0 < scores.crps < scores.mean_width
    assert f"held out: n 3, covered {scores.covered} of 3" in str(fitted)
    assert fitted.to_json()["scores"]["crps"] == scores.crps
    assert LawFit.from_json(json.loads(json.dumps(fitted.to_json())), host).scores == scores


def test_held_out_checkpoints_of_one_run_are_one_case(host: PluginHost):
    """The interval of their coverage, 22 of 26, was that of 26 independent cases."""
    ratio = np.geomspace(1, 20, 6)
    sizes = [
        pd.DataFrame({"size": f"s{i}", "params": 10.0**i, "flops": 6 * ratio * 10.0 ** (2 * i)}) for i in range(7, 12)
    ]
    points = pd.concat(sizes, ignore_index=True).assign(step=lambda t: t.groupby("size").cumcount())
    points = points.assign(y=lambda t: 0.02 * np.log10(t["flops"]) + 0.001 * np.sin(np.arange(len(t))))
    fitted = fit(points, "line", value="y", hold_out="largest", registries=host, bootstrap=50)
    assert (fitted.scores.n, fitted.scores.clusters) == (6, 1)
    assert fitted.scores.coverage_interval[1] - fitted.scores.coverage_interval[0] > 0.75
    assert "held out (1 run): n 6" in str(fitted)


def test_predictions_worse_than_the_mean_of_what_was_measured_are_a_warning(host: PluginHost):
    y = np.where(FLOPS > 1e21, [50.0 + i for i in range(12)], power(FLOPS))
    fitted = quick(table(y), "power", host, hold_out="flops > 1e21")
    assert fitted.scores.r2 < 0
    assert "worse than their mean does" in " ".join(fitted.warnings)
    alone = quick(table(y)[:-2], "power", host, hold_out="flops > 1e21")
    assert np.isnan(alone.scores.r2)
    assert "worse than their mean does" not in " ".join(alone.warnings)


def test_huber_is_not_fooled_by_its_small_delta(host: PluginHost):
    """With delta 1e-3 on logarithms a solver with absolute tolerances stops at once; an outlier must not matter."""
    y = power(FLOPS)
    y[3] *= 1.5
    fitted = quick(table(y), "power", host, objective="log_huber")
    assert fitted.steps[0].parameters == pytest.approx({"E": 1.7, "a": 7.0, "alpha": 0.15}, rel=5e-3)
    spoilt = quick(table(y), "power", host, objective="log_least_squares")
    assert abs(spoilt.steps[0].parameters["alpha"] - 0.15) > 0.02


def test_with_noise_the_error_stated_is_the_error_made(host: PluginHost):
    """Over 60 noisy ladders the spread of the estimates is what each of them says of itself, within a third."""
    rng = np.random.default_rng(0)
    flops = np.geomspace(1e18, 1e22, 40)
    estimates, stated = [], []
    for _ in range(60):
        y = 0.2 + 0.6 / (1 + np.exp(-1.5 * (np.log10(flops) - 20))) + rng.normal(scale=0.02, size=40)
        step = quick(table(y, flops), "sigmoid", host, bootstrap=100).steps[0]
        estimates.append(step.parameters["x0"])
        stated.append(step.stderr["x0"])
    assert np.mean(estimates) == pytest.approx(20, abs=0.03)
    assert np.median(stated) == pytest.approx(np.std(estimates), rel=0.33)


@pytest.mark.soak
def test_prediction_intervals_cover_what_they_say(host: PluginHost):
    """90 % intervals of a new measurement hold it in 90 % of 150 simulated ladders, give or take."""
    rng = np.random.default_rng(1)
    flops = np.geomspace(1e18, 1e21, 30)
    inside = 0
    for seed in range(150):
        y = power(flops) * np.exp(rng.normal(scale=0.01, size=30))
        fitted = quick(table(y, flops), "power", host, objective="log_least_squares", bootstrap=100, seed=seed)
        row = fitted.predict(flops=[3e21]).iloc[0]
        new = power(3e21) * np.exp(rng.normal(scale=0.01))
        inside += row["low"] <= new <= row["high"]
    assert 0.82 <= inside / 150 <= 0.97


@pytest.mark.soak
def test_intervals_of_a_short_ladder_cover_what_they_say(host: PluginHost):
    """Five points, three parameters: 90 % of the resampled curves' range holds the true one; weights gave 75 %."""
    rng, flops, inside = np.random.default_rng(2), np.geomspace(1e18, 1e21, 5), 0
    for seed in range(100):
        y = power(flops) * np.exp(rng.normal(scale=0.01, size=5))
        fitted = quick(table(y, flops), "power", host, objective="log_least_squares", bootstrap=60, starts=8, seed=seed)
        low, high = np.quantile(fitted.draws({"flops": np.array([4e21])}), [0.05, 0.95])
        inside += low <= power(4e21) <= high
    assert 84 <= inside <= 97


@pytest.mark.soak
def test_checkpoints_of_few_runs_are_not_independent(host: PluginHost):
    """Runs that differ more than their checkpoints: 90 % intervals of a new run hold it; they did in 73 %."""
    rng, inside, runs = np.random.default_rng(3), 0, np.repeat(np.arange(5), 10)
    flops = np.geomspace(1e18, 1e21, 5)[runs] * np.tile(np.arange(1, 11) / 10, 5)
    for seed in range(60):
        noise = 0.01 * rng.normal(size=5)[runs] + 0.002 * rng.normal(size=50)
        points = table(power(flops) * np.exp(noise), flops, family="f", size=runs.astype(str))
        fitted = quick(points, "power", host, resample="runs", bootstrap=60, starts=8, seed=seed)
        row = fitted.predict(flops=[4e21]).iloc[0]
        inside += row["low"] <= power(4e21) * np.exp(0.01 * rng.normal()) <= row["high"]
    assert fitted.steps[0].dof == 4
    assert 48 <= inside <= 59


def test_what_points_of_one_run_have_in_common_is_told_from_their_residuals():
    from harness.fitting.resampling import shared

    rng, runs = np.random.default_rng(0), np.repeat(np.arange(200), 5)
    residuals = 3 * rng.normal(size=200)[runs] + 4 * rng.normal(size=1000)
    assert shared(residuals, runs) == pytest.approx(9 / 25, abs=0.05)
    assert shared(residuals, np.arange(1000)) == shared(residuals, 0 * runs) == 0


def test_one_run_says_nothing_of_how_runs_differ(host: PluginHost):
    points = table(power(FLOPS) * np.exp(np.random.default_rng(0).normal(scale=0.01, size=12)), size="s", family="f")
    fitted = quick(points, "power", host, resample="runs")
    assert np.isnan([*fitted.steps[0].stderr.values(), *fitted.predict(flops=[1e23])[["low", "high"]].iloc[0]]).all()
    assert "points of one run or seed only" in "\n".join(fitted.warnings)


def test_many_independent_points_give_the_errors_of_a_bootstrap_of_pairs(host: PluginHost):
    """Scatter that grows along the ladder: the errors stated are those of the estimates, not of an even scatter."""
    flops, rng, estimates, stated = np.geomspace(1e18, 1e22, 60), np.random.default_rng(4), [], []
    scale = np.geomspace(0.001, 0.05, 60)
    for _ in range(40):
        y = power(flops) * np.exp(scale * rng.normal(size=60))
        step = quick(table(y, flops), "power", host, objective="log_least_squares").steps[0]
        estimates.append(step.parameters["E"])
        stated.append(step.stderr["E"])
    assert np.median(stated) == pytest.approx(np.std(estimates), rel=0.35)


def test_held_out_points_are_never_seen(host: PluginHost):
    y = power(FLOPS)
    plain = quick(table(y), "power", host, hold_out="flops > 1e21")
    y[-2:] = 50.0
    spoilt = quick(table(y), "power", host, hold_out="flops > 1e21")
    assert spoilt.steps[0].parameters == plain.steps[0].parameters
    assert (spoilt.steps[0].draws == plain.steps[0].draws).all()
    assert spoilt.steps[0].n == 9
    assert [row["measured"] for row in spoilt.hold_out][-2:] == [50.0, 50.0]
    assert spoilt.hold_out[-1]["error"] == pytest.approx(spoilt.hold_out[-1]["predicted"] - 50)
    assert spoilt.hold_out[-1]["inside"] is False


def test_what_is_held_out(host: PluginHost):
    points = table(power(FLOPS), family=["a"] * 6 + ["b"] * 6)
    assert [row["flops"] for row in quick(points, "power", host, hold_out=0.25).hold_out] == FLOPS[-3:].tolist()
    assert [row["flops"] for row in quick(points, "power", host, hold_out="largest").hold_out] == [FLOPS[5], FLOPS[11]]
    assert len(quick(points, "power", host, hold_out="family == 'b'").hold_out) == 6
    with pytest.raises(LawError, match="holds out all 12 points"):
        quick(points, "power", host, hold_out="flops > 0")
    with pytest.raises(UsageError, match="'flop > 1' cannot be applied"):
        quick(points, "power", host, hold_out="flop > 1")


def two_step_points(n: int = 14) -> pd.DataFrame:
    flops = np.geomspace(1e18, 1e22, n)
    loss = power(flops, E=0.1, a=20.0, alpha=0.45)
    acc = 1.0 - 0.75 / (1 + np.exp(-3.0 * (loss - 1.2)))
    return pd.DataFrame({"flops": flops, "params": flops**0.5, "logp_gold": -loss, "acc": acc})


def trained(noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Eight runs of four checkpoints: loss is 20 % above the law before a run ends; accuracy follows loss."""
    rng, ends = np.random.default_rng(seed), np.geomspace(1e19, 1e22, 8)
    flops, step = np.repeat(ends, 4) * np.tile([0.25, 0.5, 0.75, 1.0], 8), np.tile([1, 2, 3, 4], 8)
    runs = np.repeat(rng.normal(scale=noise, size=8), 4)
    loss = power(flops, E=0.1, a=20.0, alpha=0.45) * np.where(step < 4, 1.2, 1.0) * np.exp(runs)
    acc = 1.0 - 0.75 / (1 + np.exp(-3.0 * (loss - 1.2))) + rng.normal(scale=noise / 4, size=32)
    sizes = np.repeat(np.arange(8), 4)
    return pd.DataFrame(
        {"size": sizes, "step": step, "params": 1e8 * 2.0**sizes, "flops": flops, "logp_gold": -loss, "acc": acc}
    )


def test_steps_are_fitted_to_rows_of_their_own(host: PluginHost):
    """Checkpoints inside runs mislead the first step, and help the second."""
    truth = pytest.approx({"E": 0.1, "a": 20.0, "alpha": 0.45}, rel=1e-2)
    asked = {"value": "acc", "resample": "runs"}
    fitted = quick(trained(), "two_step", host, step1_where="ends", **asked)
    assert (fitted.steps[0].n, fitted.steps[1].n, fitted.runs) == (8, 32, 8)
    assert fitted.steps[0].parameters == truth
    assert fitted.steps[1].parameters == pytest.approx({"p": -0.75, "x0": 1.2, "k": 3.0, "q": 1.0}, rel=1e-2)
    assert quick(trained(), "two_step", host, **asked).steps[0].parameters != truth
    other = quick(trained(), "two_step", host, step1_where="step == 4", step2_where="step > 1", **asked)
    assert other.steps[0].parameters == fitted.steps[0].parameters
    assert other.steps[1].n == 24
    assert "step 1 is fitted where: ends" in str(fitted)
    assert LawFit.from_json(json.loads(json.dumps(fitted.to_json())), host).options == fitted.options


def test_intervals_of_steps_with_their_own_rows_cover_the_truth(host: PluginHost):
    """Both steps share the resampled runs, so that one interval holds the error of both."""
    flops = 4e22
    truth = 1.0 - 0.75 / (1 + np.exp(-3.0 * (power(flops, E=0.1, a=20.0, alpha=0.45) - 1.2)))
    rows = [
        quick(trained(0.04, seed), "two_step", host, value="acc", resample="runs", step1_where="ends")
        .predict(flops=[flops])
        .iloc[0]
        for seed in range(10)
    ]
    assert sum(row["low"] <= truth <= row["high"] for row in rows) >= 8
    assert max(row["high"] - row["low"] for row in rows) < 0.5


def test_options_of_steps_are_for_laws_of_two_steps(host: PluginHost):
    with pytest.raises(UsageError, match="law 'power' does not have two steps"):
        quick(table(power(FLOPS)), "power", host, step1_where="ends")
    with pytest.raises(LawError, match="step2_where='step > 9' selects 0 of 32 points"):
        quick(trained(), "two_step", host, value="acc", step2_where="step > 9")
    plain, chosen = (
        quick(trained(), "two_step", host, value="acc", step1_where="ends", step1_objective=name).steps
        for name in (None, "log_least_squares")
    )
    assert plain[0].objective != "log_least_squares"
    assert [step.objective for step in chosen] == ["log_least_squares", plain[1].objective]


def test_a_fit_says_how_often_its_intervals_covered_earlier_sizes(tmp_path, host: PluginHost):
    """The same predictions as a back-test; a prediction far beyond the points is told so in words."""
    sizes = np.arange(8)
    rng = np.random.default_rng(0)
    flops = 1e18 * 10.0**sizes
    points = table(power(flops) * (1 + rng.normal(scale=0.01, size=8)), flops, size=sizes)
    points.to_csv(tmp_path / "points.csv", index=False)
    source, options = PointsFile(tmp_path / "points.csv", value="y"), Options(bootstrap=50)
    (fitted,), _ = fit_file(source, "power", earlier=True, options=options, registries=host)
    tested = back_test(points, ["power"], value="y", bootstrap=50, registries=host).rows
    assert [row["inside"] for row in fitted.earlier] == tested["inside"].tolist()
    assert [row["beyond"] for row in fitted.earlier] == pytest.approx([10.0] * 5)
    bounded = [row["inside"] for row in fitted.earlier if row["inside"] is not None]
    said = f"back-test on this ladder: 90% intervals covered {sum(bounded)} of {len(bounded)} earlier sizes, 10 times"
    assert said in str(fitted)
    save_fits([fitted], tmp_path / "fit.json")
    notes = " ".join(prediction_table(load_fits(tmp_path / "fit.json", host), {"flops": 988e25}).notes)
    assert "the target lies 988 times beyond the fitted range (flops 1e+18 to 1e+25)" in notes
    assert f"{said} beyond the fitted range; none lay as far as 988 times" in notes
    near = " ".join(prediction_table([fitted], {"flops": 9e25}).notes)
    assert "the target lies" not in near
    assert said in near
    assert "none lay as far" not in near
    (plain,), _ = fit_file(source, "power", options=options, registries=host)
    assert "no back-test: no earlier size" in prediction_table([plain], {"flops": 9e25}).notes[0]


def test_a_composed_law_chains_its_steps(host: PluginHost):
    fitted = quick(two_step_points(), "two_step", host, value="acc", hold_out="largest")
    assert fitted.negated
    assert fitted.steps[0].parameters == pytest.approx({"E": 0.1, "a": 20.0, "alpha": 0.45}, rel=1e-2)
    assert fitted.steps[1].parameters == pytest.approx({"p": -0.75, "x0": 1.2, "k": 3.0, "q": 1.0}, rel=5e-2)
    assert abs(fitted.hold_out[0]["error"]) < 1e-3


def test_the_uncertainty_of_the_first_step_goes_through_the_second(host: PluginHost):
    points = two_step_points(30)
    rng = np.random.default_rng(0)
    exact = quick(points, "two_step", host, value="acc").predict(flops=[3e20]).iloc[0]
    points["logp_gold"] *= np.exp(rng.normal(scale=0.1, size=30))
    fitted = quick(points, "two_step", host, value="acc")
    noisy = fitted.predict(flops=[3e20]).iloc[0]
    assert exact["high"] - exact["low"] < 0.02
    assert noisy["high"] - noisy["low"] > 0.05
    assert fitted.draws({"flops": np.array([3e20])}).shape == (50, 1)


def test_a_loss_column_can_stand_between_the_steps(host: PluginHost):
    points = two_step_points().rename(columns={"logp_gold": "loss"}).assign(loss=lambda t: -t["loss"])
    fitted = quick(points, "two_step", host, value="acc", via="loss")
    assert (fitted.via, fitted.negated) == ("loss", False)
    with pytest.raises(LawError, match="no column 'logp_gold'"):
        quick(points, "two_step", host, value="acc")


def test_pass_at_many_k_of_one_set_of_samples_is_one_run(host: PluginHost):
    """34 values of k were fitted as 34 runs, with an interval that 57 of 67 later points missed."""
    from harness.fitting.resampling import units_of

    k = np.unique(np.geomspace(1, 100, 20).round())
    of_one_set = pd.DataFrame({"k": k, "y": np.exp(-3.5 * k**-0.35) * (1 + 0.01 * np.sin(k))})
    fitted = quick(of_one_set, "pass_at_k", host, value="y", resample="runs")
    assert fitted.runs == 1
    assert fitted.predict(k=[1000.0])[["low", "high"]].isna().all(axis=None)
    assert "no residual degrees of freedom" in " ".join(fitted.warnings)
    two = pd.concat([of_one_set.assign(model="a", trials=200), of_one_set.assign(model="b", trials=300)])
    assert set(units_of(two, "runs")) == {0, 1}
    assert len(set(units_of(of_one_set, "checkpoints"))) == len(of_one_set)


def rates(seed: int, n: int = 400) -> pd.DataFrame:
    """Return 12 budgets where n documents each are right or wrong, and nothing else varies."""
    flops = np.geomspace(1e18, 1e22, 12)
    p = 0.2 + 0.7 / (1 + np.exp(-1.5 * (np.log10(flops) - 20)))
    y = np.random.default_rng([seed, 3]).binomial(n, p) / n
    return pd.DataFrame({"flops": flops, "y": y, "y_stderr": np.sqrt(y * (1 - y) / n), "y_n": n})


def test_joint_resamples_count_the_noise_of_documents_once(host: PluginHost):
    """On a ladder whose only noise is that of documents, errors were 1.4 times as wide as the spread of fits."""
    at, intervals = {"flops": np.array([1e19, 1e20, 1e21])}, []
    for seed in range(40):
        fitted = quick(rates(seed), "sigmoid", host, value="y", resample="joint", bootstrap=60, starts=2, seed=seed)
        draws = fitted.draws(at)
        intervals.append((fitted.curve(at), draws.std(axis=0)))
    curves, errors = (np.array(columns) for columns in zip(*intervals, strict=True))
    assert 0.75 < np.mean(errors.mean(axis=0) / curves.std(axis=0, ddof=1)) < 1.25


def test_a_prediction_of_an_accuracy_is_not_narrower_than_its_binomial_limit(host: PluginHost):
    """400 documents at the ceiling gave [0.99999999999, 1]; Wilson's 90 % interval of 400 of 400 begins at 0.9933."""
    flops = np.geomspace(1e18, 1e22, 12)
    y = 0.2 + 0.8 / (1 + np.exp(-3 * (np.log10(flops) - 19)))
    points = pd.DataFrame({"flops": flops, "y": y, "y_stderr": np.sqrt(y * (1 - y) / 400), "y_n": 400})
    fitted = quick(points, "sigmoid", host, value="y", resample="checkpoints")
    ends = fitted.predict(flops=[1e24]).iloc[0]
    assert ends["low"] == pytest.approx(0.9933, abs=2e-4)
    assert ends["high"] == pytest.approx(1)
    again = LawFit.from_json(json.loads(json.dumps(fitted.to_json())), host)
    assert again.predict(flops=[1e24]).equals(fitted.predict(flops=[1e24]))


def test_resampling_units():
    from harness.fitting.resampling import point_weights, units_of

    points = pd.DataFrame(
        {"family": ["a"] * 4, "size": ["s", "s", "t", "t"], "seed": [0, 1, 0, 1], "step": [1, 2, 1, 2]}
    )
    assert units_of(points, "runs").tolist() == [0, 1, 2, 3]
    assert units_of(points.assign(seed=0), "runs").tolist() == [0, 0, 1, 1]
    assert units_of(points, "seeds").tolist() == [0, 1, 0, 1]
    assert units_of(points, "checkpoints").tolist() == [0, 1, 2, 3]
    weights = point_weights(units_of(points.assign(seed=0), "runs"), 2000, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights > 0).all()
    assert weights.mean() == pytest.approx(1, abs=0.05)
    with pytest.raises(UsageError, match="resample='rows'; expected one of"):
        units_of(points, "rows")


def test_weights_vary_more_where_a_unit_holds_the_fit():
    """About as 1 / (1 - h)^2; points of one unit alike, and the mean of every resample is 1."""
    units, leverage = np.arange(400) // 2, np.append(np.zeros(199), 0.5)
    drawn = point_weights(units, 20_000, np.random.default_rng(0))
    raised = Resamples(drawn, {}, units, power=1.0).raised(leverage)
    assert (raised[:, 0] == raised[:, 1]).all()
    assert np.allclose(raised.mean(axis=1), 1)
    assert raised[:, 0].var() == pytest.approx(1, rel=0.1)
    assert raised[:, -1].var() == pytest.approx(5, rel=0.2)  # (1 / (1 - h))^2 = 4, and Weibull's 5
    assert (Resamples(drawn, {}, units).raised(leverage) == drawn).all()


def test_documents_are_resampled_from_the_store(nano_store: PointStore, host: PluginHost):
    """The spread of accuracy over resampled documents is its standard error, and checkpoints share the resamples."""
    points = nano_store.points("nano_birthplace", "aster", metrics=["acc", "logp_gold"])
    wide = widen(points)
    drawn = nano_store.replicates(wide, ["acc", "logp_gold", "loss"], 2000, np.random.default_rng(0))
    assert set(drawn) == {"acc", "logp_gold"}
    assert drawn["acc"].std(axis=0) == pytest.approx(wide["acc_stderr"], rel=0.1, abs=1e-3)
    assert drawn["logp_gold"].mean(axis=0) == pytest.approx(wide["logp_gold"], abs=0.05)
    last_two = np.corrcoef(drawn["logp_gold"][:, 3:5].T)[0, 1]
    assert last_two > 0.5


def test_a_store_resamples_runs_and_documents_by_default(nano_store: PointStore, host: PluginHost):
    points = nano_store.points("nano_birthplace", "aster", metrics=["acc"])
    both = fit(points, "sigmoid", value="acc", store=nano_store, registries=host, bootstrap=200)
    runs = fit(points, "sigmoid", value="acc", registries=host, bootstrap=200)
    assert (both.options.resample, runs.options.resample) == ("joint", "runs")
    assert both.steps[0].stderr["lo"] > 0


def test_without_a_store_documents_are_drawn_from_standard_errors(host: PluginHost):
    points = table(power(FLOPS), y_stderr=0.01)
    fitted = quick(points, "power", host, resample="documents", bootstrap=300)
    assert fitted.steps[0].stderr["E"] > 1e-3
    with pytest.raises(LawError, match="needs a store, or a column y_stderr"):
        quick(points.drop(columns="y_stderr"), "power", host, resample="documents")


def test_the_same_input_gives_the_same_fit(host: PluginHost):
    points = table(power(FLOPS) + np.random.default_rng(0).normal(scale=0.01, size=12))
    first, second = (quick(points, "power", host, seed=3).to_json() for _ in range(2))
    assert first == second
    assert quick(points, "power", host, seed=4).to_json() != first


@dataclass(frozen=True)
class OneAtATime:
    """y = a + b x, written so that it takes one set of parameters at a time."""

    name: str = "one_at_a_time"
    features: tuple[str, ...] = ("x",)

    @property
    def parameters(self):
        return {"a": (-9.0, 9.0), "b": (-9.0, 9.0)}

    def guess(self, y, x):
        return {"a": 0.0, "b": 0.0}

    def formula(self, x, a, b):
        return float(a) + float(b) * x


def test_a_formula_that_does_not_broadcast_is_called_row_by_row(host: PluginHost):
    x = np.linspace(1, 2, 6)
    fitted = quick(pd.DataFrame({"x": x, "y": 3 - 2 * x}), OneAtATime(), host, bootstrap=10)
    assert fitted.steps[0].parameters == pytest.approx({"a": 3, "b": -2})
    assert curve(OneAtATime(), np.array([[1.0, 2.0], [0.0, 1.0]]), {"x": x}).shape == (2, 6)
    with pytest.raises(AssertionError, match="expected \\(3, 12\\)"):
        check_law(OneAtATime(), params={"a": 1.0, "b": 2.0})


def warnings_of(points, law, host, **arguments) -> str:
    return "\n".join(quick(points, law, host, **arguments).warnings)


def test_a_parameter_at_its_bound_is_a_warning(host: PluginHost):
    text = warnings_of(table(power(FLOPS, E=0.0)), "power", host)
    assert "power: E lies at its bound 0" in text


def test_directions_that_the_points_do_not_determine_are_a_warning(host: PluginHost):
    points = pd.DataFrame({"params": np.geomspace(1e7, 1e9, 8), "tokens": np.geomspace(1e7, 1e9, 8)})
    points["y"] = 2 + 1e3 * points["params"] ** -0.5
    assert "determine" in warnings_of(points, "chinchilla", host)


def test_few_runs_and_no_freedom_are_warnings(host: PluginHost):
    points = table(power(FLOPS[:3]), FLOPS[:3])
    fitted = quick(points, "power", host)
    assert "3 runs: intervals from so few runs are approximate" in "\n".join(fitted.warnings)
    assert "as many free parameters as points, or" in "\n".join(fitted.warnings)
    row = fitted.predict(flops=[1e23]).iloc[0]
    assert np.isnan(row["low"])
    assert np.isnan(list(fitted.steps[0].stderr.values())).all()


def test_a_trend_that_turns_back_is_a_warning(host: PluginHost):
    y = np.array([0.3, 0.5, 0.7, 0.8, 0.5, 0.3])
    points = pd.DataFrame({"flops": FLOPS[:6], "params": FLOPS[:6], "y": y, "y_stderr": 0.02})
    assert "the trend is not monotone: y goes from 0.8 to 0.3 between sizes 4 and 6" in warnings_of(
        points, "sigmoid", host
    )
    points["y_stderr"] = 0.4
    assert "monotone" not in warnings_of(points, "sigmoid", host)


def test_a_value_that_never_changes_is_a_warning(host: PluginHost):
    assert "there is no trend to extrapolate" in warnings_of(table(np.full(12, 0.25)), "sigmoid", host)


def test_a_break_at_the_largest_rung_is_a_warning(host: PluginHost):
    y = power(FLOPS)
    y[-1] *= 1.1
    assert "the largest size is +0.2" in warnings_of(table(y), "power", host)


def test_far_extrapolation_is_a_warning(host: PluginHost):
    text = warnings_of(table(power(FLOPS)), "power", host, hold_out="flops > 1e20")
    assert "times beyond the fitted range" in text


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (table(power(FLOPS[:2]), FLOPS[:2]), "has 3 parameters, but there are 2 points"),
        (table(-power(FLOPS)), "needs values above 0, found -"),
        (table(power(FLOPS)).drop(columns="flops"), "no column 'flops'; there are: params, y"),
        (table([*power(FLOPS[:-1]), np.nan], family="f", size="s", step=7), "y is missing or not a number for f:s@7"),
        (table(["much"] * 12), "y is missing or not a number"),
        (table(power(FLOPS), [*FLOPS[:-1], 0.0], family="a", size="s2"), "flops must be above 0, but is not for a:s2"),
    ],
)
def test_bad_points_stop_with_a_reason(host: PluginHost, points, message):
    with pytest.raises(LawError, match=message):
        quick(points, "power", host)


def test_two_points_of_one_checkpoint_are_refused(host: PluginHost):
    long = pd.DataFrame({"family": "f", "size": "s", "metric": "acc", "value": [0.1, 0.2], "flops": 1.0})
    with pytest.raises(LawError, match="two points of acc for f:s"):
        quick(long, "sigmoid", host, value="acc")


def test_families_are_fitted_by_themselves_and_one_that_fails_is_an_error_of_its_own(host: PluginHost):
    points = pd.concat(
        [
            table(power(FLOPS)).assign(family="a"),
            table(power(FLOPS, E=2.5)).assign(family="b"),
            table(power(FLOPS[:2]), FLOPS[:2]).assign(family="c"),
        ]
    )
    fits = dict(fit_families(points, "power", value="y", registries=host, bootstrap=20))
    assert fits["a"].steps[0].parameters["E"] == pytest.approx(1.7, rel=1e-3)
    assert fits["b"].steps[0].parameters["E"] == pytest.approx(2.5, rel=1e-3)
    assert isinstance(fits["c"], LawError)
    assert fits["a"].labels["family"] == "a"


def test_a_fit_comes_back_from_its_file(tmp_path, host: PluginHost):
    fitted = quick(two_step_points(), "two_step", host, value="acc", hold_out="largest")
    save_fits([fitted], tmp_path / "fit.json")
    (again,) = load_fits(tmp_path / "fit.json", host)
    assert json.dumps(again.to_json()) == json.dumps(fitted.to_json())
    pd.testing.assert_frame_equal(again.predict(flops=[1e23]), fitted.predict(flops=[1e23]))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(LawError, match="is not a file of fits"):
        load_fits(tmp_path / "other.json", host)


def test_a_fit_prints_itself(host: PluginHost):
    points = two_step_points().assign(family="fam", size=[f"s{i}" for i in range(14)], seed=0)
    text = str(quick(points, "two_step", host, value="acc", hold_out="largest"))
    assert text.splitlines()[0] == "two_step: acc from flops via -logp_gold  (family fam)"
    assert "power: L(C) = E + e^a / C^alpha" in text
    assert "starts agree" in text
    assert "held out fam:s13: measured" in text


def test_predictions_say_how_far_they_lie_beyond(host: PluginHost):
    fitted = quick(table(power(FLOPS)), "power", host)
    assert fitted.predict(flops=[1e20, 1e23, 1e17])["beyond"].tolist() == pytest.approx([1, 10, 10])


def test_nothing_left_to_fit_and_nothing_held_out_are_said(host: PluginHost, tmp_path):
    points = table(power(FLOPS), family="a")
    with pytest.raises(LawError, match="no points to fit: 'flops > 1e30' selects 0 of 12 rows"):
        list(fit_families(points, "power", value="y", registries=host, where="flops > 1e30"))
    with pytest.raises(LawError, match="no points to fit: the table is empty"):
        list(fit_families(points[:0], "power", value="y", registries=host))
    for none in ("flops < 0", 0.01):
        with pytest.raises(LawError, match=f"hold_out='?{none}'? holds out 0 of 12 points"):
            quick(points, "power", host, hold_out=none)
    save_fits([], tmp_path / "fit.json")
    with pytest.raises(LawError, match="has no fits"):
        load_fits(tmp_path / "fit.json", host)


def test_predictions_at_impossible_compute_are_refused(host: PluginHost):
    with pytest.raises(LawError, match="flops must be above 0, but is not for row 0"):
        quick(table(power(FLOPS)), "power", host).predict(flops=[-1.0])


@pytest.mark.parametrize("option", [{"level": 95}, {"level": 1.0}, {"bootstrap": 1}, {"starts": 0}])
def test_impossible_options_are_refused(host: PluginHost, option):
    with pytest.raises(UsageError, match=f"{next(iter(option))}={next(iter(option.values()))}"):
        quick(table(power(FLOPS)), "power", host, **option)


def test_values_that_a_law_cannot_take_are_named(host: PluginHost):
    with pytest.raises(LawError, match=r"'power' describes values from 0 to inf; found values -3.* to -2"):
        quick(table(-power(FLOPS)), "power", host, objective="least_squares")
    with pytest.raises(LawError, match="from 0 to 1; found values 25 to 49; divide percentages by 100"):
        quick(table(np.linspace(25, 49, 12)), "sigmoid", host)


def test_a_ladder_of_one_size_is_refused(host: PluginHost):
    points = table(power(FLOPS)).assign(params=1e9, tokens=FLOPS / 6e9)
    with pytest.raises(LawError, match=r"params is 1e\+09 at all 12 points; add points with other values"):
        quick(points, "chinchilla", host)


def test_most_generic_starts_reach_the_best_fit(host: PluginHost):
    """Variable projection leaves only the exponents to be searched."""
    flops, rng = np.geomspace(1e18, 1e22, 20), np.random.default_rng(0)
    step = quick(table(power(flops) * np.exp(rng.normal(scale=0.01, size=20)), flops), "power", host).steps[0]
    assert step.agree >= 30


def test_what_follows_from_parameters_has_errors_too(host: PluginHost):
    y = power(FLOPS) * np.exp(np.random.default_rng(0).normal(scale=0.003, size=12))
    fitted = quick(table(y), "power", host)
    value, draws = fitted.steps[0].derived["A"]
    assert value == np.exp(fitted.steps[0].parameters["a"])
    assert draws == pytest.approx(np.exp(fitted.steps[0].draws[:, 1]))
    low, high = fitted.steps[0].intervals(0.9)["A"]
    assert low < value < high
    step = fitted.to_json()["steps"][0]
    assert (step["derived"]["A"], step["intervals"]["A"]) == (value, [low, high])
    assert "A      " in str(fitted)


def test_published_starts_are_those_of_the_source(host: PluginHost):
    rng, points = np.random.default_rng(0), pd.DataFrame({"params": np.geomspace(1e7, 1e10, 8)})
    points["tokens"] = 1e11 * rng.permutation(8) + 1e9
    points["y"] = 1.8 + 170 * points["params"] ** -0.27 + 290 * points["tokens"] ** -0.27
    fitted = quick(points, "over_trained", host, starts="published")
    assert fitted.steps[0].starts == 128
    assert fitted.steps[0].cost == pytest.approx(quick(points, "over_trained", host).steps[0].cost, abs=1e-12)
    with pytest.raises(UsageError, match="'power' has no published starts; give a number"):
        quick(table(power(FLOPS)), "power", host, starts="published")


def test_families_that_are_fitted_as_one_are_a_warning(host: PluginHost):
    """The command fits each family; the function pooled them without a word."""
    points = pd.concat([table(power(FLOPS, E=e), family=name) for name, e in (("a", 1.7), ("b", 2.5))])
    assert quick(points, "power", host).warnings[0].startswith("points of 2 families (a, b) were fitted together")
    fits = fit_families(points, "power", value="y", registries=host, bootstrap=20)
    separate = [quick(points[points["family"] == "a"], "power", host), *(fitted for _, fitted in fits)]
    assert not [said for fitted in separate for said in fitted.warnings if "fitted together" in said]


@pytest.mark.parametrize(("name", "bad"), [("y_stderr", -0.1), ("y_n", 0)])
def test_errors_and_counts_that_cannot_be_are_refused(host: PluginHost, name: str, bad: float):
    points = table(power(FLOPS), **{name: [bad, *[100] * 11]})
    with pytest.raises(LawError, match=f"{name} is less than . for row 0"):
        quick(points, "power", host)


def test_a_point_without_a_family_is_an_error(host: PluginHost):
    points = table(power(FLOPS), family=["a"] * 11 + [None])
    with pytest.raises(LawError, match="family is missing in rows 11"):
        list(fit_families(points, "power", value="y", registries=host))


def test_a_missing_standard_error_is_not_taken_for_none(host: PluginHost):
    points = table(power(FLOPS), y_stderr=[0.01] * 11 + [np.nan])
    with pytest.raises(LawError, match="y_stderr is missing or not a number for row 11"):
        quick(points, "power", host, resample="documents")


def test_a_fit_is_strict_json_whatever_is_unknown(tmp_path, host: PluginHost):
    """Three points leave no freedom: standard errors and intervals are not known, null in the file, NaN when read."""
    fitted = quick(table(power(FLOPS[:4]), FLOPS[:4]), "power", host, hold_out="largest")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    save_fits([fitted], tmp_path / "fit.json")
    (row,) = json.loads((tmp_path / "fit.json").read_text(), parse_constant=refuse)[0]["hold_out"]
    assert (row["stderr"], row["low"], row["inside"]) == (None, None, None)
    (again,) = load_fits(tmp_path / "fit.json", host)
    assert np.isnan([*again.steps[0].stderr.values(), again.hold_out[0]["stderr"]]).all()
    assert str(again) == str(fitted)


def test_a_place_where_no_fits_can_be_written_is_refused_before_the_fit(tmp_path):
    for place, message in ((tmp_path, "is a folder"), (tmp_path / "not" / "fit.json", "not does not exist")):
        with pytest.raises(UsageError, match=message):
            check_output(place)
    check_output(tmp_path / "fit.json")


def test_trends_are_looked_for_along_sizes_only(host: PluginHost):
    """Three sizes with near-equal counts of parameters and unlike budgets are no ladder of nine that turns back."""
    points = pd.DataFrame({"params": np.repeat([1e8, 1e9, 1e10], 3) * (1 + 1e-9 * np.arange(9))})
    points["tokens"] = np.tile([1e11, 1e10, 1e9], 3)
    points["y"] = 1.8 + 500 * points["params"] ** -0.35 + 2000 * points["tokens"] ** -0.37
    assert "monotone" not in warnings_of(points, "chinchilla", host)
    rows = pd.DataFrame({"x": np.tile([1.0, 2.0, 3.0], 3), "seed": np.repeat([0, 1, 2], 3)}).assign(
        y=lambda t: 3 - 2 * t["x"]
    )
    assert "monotone" not in warnings_of(rows, OneAtATime(), host)
    sizes = pd.DataFrame({"flops": FLOPS, "y": power(FLOPS), "size": np.repeat(["s", "m", "l"], 4)})
    ladder = Ladder.of(sizes, host.laws["power"], Options(resample="runs"), PointSelection("y"))
    assert len(rungs(ladder, np.arange(len(sizes)))[0]) == 3


def turning(last: float) -> pd.DataFrame:
    """Return eight points, the loss of the last of which is so far below the turn at 1.2."""
    flops = np.geomspace(1e18, 1e21, 8)
    loss = np.geomspace(4.0, last, 8)
    noise = np.random.default_rng(0).normal(scale=0.01, size=8)
    acc = 1 - 0.75 / (1 + np.exp(-3 * (loss - 1.2))) + noise
    return pd.DataFrame({"flops": flops, "params": flops**0.5, "logp_gold": -loss, "acc": acc})


def test_a_turn_that_no_point_has_seen_is_a_warning(host: PluginHost):
    before = warnings_of(turning(2.6), "two_step", host, value="acc")
    assert "of 8 points have left" in before
    after = warnings_of(turning(0.5), "two_step", host, value="acc")
    assert "have left" not in after
    held = warnings_of(turning(0.9), "two_step", host, value="acc", hold_out="flops > 2e20")
    assert "predicted change beyond the last fitted value" in held


def test_a_bound_that_an_anchor_implies_is_no_warning(host: PluginHost):
    fitted = quick(turning(0.5), "two_step", host, value="acc")
    assert fitted.steps[1].parameters["q"] == 1.0
    assert "q lies at its bound" not in "\n".join(fitted.warnings)


def test_points_to_leave_out_are_named_with_the_expression_that_leaves_them_out(host: PluginHost):
    points = table([*power(FLOPS[:-1]), np.nan])
    with pytest.raises(LawError, match="for row 11; correct it, or select points with where 'y == y'"):
        quick(points, "power", host)
    assert quick(points, "power", host, where="y == y").steps[0].n == 11


def test_points_that_say_no_more_than_a_constant_are_a_warning(host: PluginHost):
    y = 0.25 + np.random.default_rng(0).normal(scale=0.01, size=12)
    assert "acc: a constant fits as well as the law" in warnings_of(
        table(y).rename(columns={"y": "acc"}), "sigmoid", host, value="acc"
    )
    known = table(y, chance=0.25, y_stderr=0.02)
    assert "y lies within 2 standard errors of chance at every point" in warnings_of(known, "sigmoid", host)
    trend = warnings_of(table(power(FLOPS) + 0.01 * y), "power", host)
    assert "constant" not in trend
    assert "chance" not in trend


def test_a_target_inside_the_ladder_is_a_warning(host: PluginHost):
    inside = f"flops == {FLOPS[5]}"
    assert "inside the fitted range" in warnings_of(table(power(FLOPS)), "power", host, hold_out=inside)
    assert "inside the fitted range" not in warnings_of(table(power(FLOPS)), "power", host, hold_out=0.2)


def test_four_points_for_five_parameters_are_refused(host: PluginHost):
    points = pd.DataFrame({"params": [1e7, 1e8, 1e9, 1e8], "tokens": [1e9, 1e10, 1e11, 1e9], "y": [4.0, 3, 2, 3.5]})
    with pytest.raises(LawError, match="'chinchilla' has 5 parameters, but there are 4 points"):
        quick(points, "chinchilla", host)


def test_resamples_of_ones_own_take_the_place_of_ours(host: PluginHost):
    """A point drawn twice is a point that stands there twice."""
    y = power(FLOPS) * np.exp(np.random.default_rng(0).normal(scale=0.01, size=12))
    counts = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), size=3)
    fitted = quick(table(y), "power", host, weights=counts, objective="log_least_squares")
    assert fitted.steps[0].draws.shape == (3, 3)
    for draw, count in zip(fitted.steps[0].draws, counts, strict=True):
        rows = np.repeat(np.arange(12), count)
        again = quick(table(y[rows], FLOPS[rows], seed=np.arange(12)), "power", host, objective="log_least_squares")
        assert curve(host.laws["power"], draw[None], {"flops": FLOPS})[0] == pytest.approx(
            again.curve({"flops": FLOPS}), rel=1e-4
        )
    with pytest.raises(UsageError, match=r"weights of shape \(3, 4\): expected \(resamples, 12\)"):
        quick(table(y), "power", host, weights=np.ones((3, 4)))


def test_a_warning_of_the_trend_does_not_depend_on_the_order_of_seeds(host: PluginHost):
    """The last row of a size was compared, whichever seed it was of; their mean is."""
    sizes = [f"s{i}" for i in range(6)]
    y = np.array([0.3, 0.5, 0.7, 0.8, 0.8, 0.9])
    first = pd.DataFrame({"flops": FLOPS[:6], "params": FLOPS[:6], "size": sizes, "y": y, "y_stderr": 0.01, "seed": 0})
    second = first.assign(seed=1, y=y - 0.5 * (np.arange(6) == 4))
    texts = [warnings_of(pd.concat(order), "sigmoid", host) for order in ((first, second), (second, first))]
    assert texts[0] == texts[1]
    assert "y goes from 0.8 to 0.55 between sizes 4 and 5" in texts[0]


def test_a_trend_is_looked_for_in_each_family_by_itself(host: PluginHost):
    """Two families that rise, one above the other, do not turn back."""
    rising = pd.DataFrame({"flops": FLOPS[:6], "params": FLOPS[:6], "y": np.linspace(0.2, 0.5, 6), "y_stderr": 0.01})
    both = pd.concat([rising.assign(family="a"), rising.assign(family="b", params=3 * FLOPS[:6], y=rising["y"] + 0.3)])
    assert "monotone" not in warnings_of(both, "sigmoid", host)
    fallen = both.assign(y=both["y"].where((both["family"] != "b") | (both["flops"] < FLOPS[5]), 0.5))
    assert "b: the trend is not monotone: y goes from 0.74 to 0.5" in warnings_of(fallen, "sigmoid", host)


def test_one_point_off_the_law_is_not_called_a_break(host: PluginHost):
    y = power(FLOPS)
    y[-1] *= 1.1
    alone = warnings_of(table(y), "power", host)
    assert "off the law, the others " in alone
    assert "one point cannot distinguish a break from noise" in alone
    seeds = pd.concat([table(y, seed=seed, size=[f"s{i}" for i in range(12)]) for seed in (0, 1)])
    assert "the law breaks there" in warnings_of(seeds, "power", host)


@pytest.mark.parametrize(
    ("domain", "x", "beyond"),
    [
        ((-5.0, -1.0), [-3, -1, 1, -9], [1, 1, 1.5, 2]),
        ((-1.0, 1.0), [0, 2, -3], [1, 1.5, 2]),
        ((1.0, 10.0), [5, 100, 0.1, 0, -1, np.nan], [1, 10, 10, np.inf, np.inf, 1]),
        ((0.0, 0.0), [0, 1], [1, np.inf]),
    ],
)
def test_how_far_beyond_the_range_is_right_for_negative_features(domain, x, beyond):
    from harness.fitting.result import _beyond

    assert _beyond(np.array(x, dtype=float), domain).tolist() == pytest.approx(beyond)


def test_anchors_keep_their_weight_in_every_resample(host: PluginHost):
    """A resample without its anchors is fitted to other data than the points."""
    from harness.fitting.objectives import objective_of
    from harness.fitting.problem import Sampled, StepData

    law = host.laws["accuracy_from_loss"]
    x, y = np.linspace(1, 4, 8), np.linspace(0.9, 0.3, 8)
    data = StepData.of(law, objective_of(law, None), {law.features[0]: Sampled(x)}, Sampled(y))
    weights = data.of_resamples(np.full((3, 8), 0.5)).weights
    assert weights is not None
    assert weights.shape == (3, 8 + len(law.anchors))
    assert (weights[:, 8:] == 1).all()
    assert len(law.anchors) > 0
