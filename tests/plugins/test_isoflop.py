"""IsoFLOP curves: minima, their growth, their error, and the bias of parabolas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness import LawError, UsageError
from harness.fitting.fit import fit
from harness.testing import check_law
from harness_plugins.laws.isoflop import IsoFlop, _frontier
from harness_plugins.laws.isoflop_curves import curves, exponent, minimum
from tests.reproductions.targets import read

SURFACE = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.28}


def surface(params, tokens):
    return SURFACE["E"] + SURFACE["A"] / params ** SURFACE["alpha"] + SURFACE["B"] / tokens ** SURFACE["beta"]


def grid(low=-1.0, high=1.0, sizes=9, noise=0.0, rng=None) -> pd.DataFrame:
    """Budgets from 1e18 to 1e20 on the surface; sizes from `low` to `high` around the best, in ln N."""
    c, off = (x.ravel() for x in np.meshgrid(np.geomspace(1e18, 1e20, 6), np.linspace(low, high, sizes)))
    total = SURFACE["alpha"] + SURFACE["beta"]
    best = (SURFACE["alpha"] * SURFACE["A"] / (SURFACE["beta"] * SURFACE["B"])) ** (1 / total)
    params = best * (c / 6) ** (SURFACE["beta"] / total) * np.exp(off)
    loss = surface(params, c / (6 * params))
    loss *= np.exp(noise * rng.normal(size=len(c))) if rng else 1
    return pd.DataFrame({"flops": c, "params": params, "loss": loss})


def test_the_law_passes_the_check():
    check_law(IsoFlop())


@pytest.mark.parametrize("curve", ["parabola", "akima"])
def test_the_exponents_of_a_surface_come_out(curve):
    """Near the minimum a parabola is right: a = beta / (alpha + beta), b = alpha / (alpha + beta)."""
    parameters = fit(grid(-0.3, 0.3), IsoFlop(curve), value="loss", bootstrap=10).steps[0].parameters
    assert parameters["a"] == pytest.approx(0.28 / 0.62, abs=2e-3)
    assert parameters["b"] == pytest.approx(0.34 / 0.62, abs=2e-3)
    assert parameters["a"] + parameters["b"] == pytest.approx(1)


def test_a_held_out_budget_is_predicted():
    fitted = fit(grid(), "isoflop", value="loss", hold_out="flops > 5e19", bootstrap=50)
    assert max(abs(row["relative_error"]) for row in fitted.hold_out) < 0.01


def test_the_bias_of_parabolas_on_these_sizes_is_measured():
    """The same sizes at every budget: the curves are lopsided, each in its own way, and parabolas miss the exponent."""
    sizes, budgets = np.geomspace(1e7, 3e9, 12), np.geomspace(1e18, 1e20, 6)
    points = pd.DataFrame([(c, n, surface(n, c / (6 * n))) for c in budgets for n in sizes])
    fitted = fit(points.set_axis(["flops", "params", "loss"], axis=1), "isoflop", value="loss", bootstrap=10)
    (said,) = [warning for warning in fitted.warnings if "a bias of" in warning]
    off = fitted.steps[0].parameters["a"] - 0.28 / 0.62
    assert abs(off) > 0.02
    stated = float(said.split("a bias of ")[1].split(",")[0])
    assert stated == pytest.approx(off, abs=2e-3)  # the surface is fitted, and budgets end where its grid does


def test_the_error_stated_is_the_error_made():
    rng, estimates, stated = np.random.default_rng(0), [], []
    law = IsoFlop(measure_bias=False)
    for seed in range(16):
        step = fit(grid(noise=0.004, rng=rng), law, value="loss", bootstrap=25, seed=seed).steps[0]
        estimates.append(step.parameters["a"])
        stated.append(step.stderr["a"])
    assert np.median(stated) == pytest.approx(np.std(estimates), rel=0.45)


def test_budgets_without_a_minimum_are_counted():
    points = grid()
    one_sided = pd.concat([points[points["flops"] < 9e19], points[points["flops"] > 9e19].nlargest(4, "params")])
    fitted = fit(one_sided, "isoflop", value="loss", bootstrap=10)
    assert "1 of 6 budgets have no minimum between their sizes and are left out" in str(fitted)
    with pytest.raises(LawError, match="0 of 6 budgets have a minimum between their smallest and largest size"):
        fit(grid(0.5, 2.0), "isoflop", value="loss", bootstrap=10)


def test_tokens_counted_otherwise_give_their_own_exponent():
    """With D that is not C / 6N, D* is read off the points at N*, and a + b is not 1."""
    points = grid(-0.3, 0.3).assign(tokens=lambda t: t["flops"] ** 0.9 / (6 * t["params"]))
    parameters = fit(points, "isoflop", value="loss", bootstrap=10).steps[0].parameters
    assert parameters["a"] + parameters["b"] == pytest.approx(0.9, abs=1e-6)


def test_compute_that_varies_within_a_named_budget_is_said():
    points = grid().assign(budget=lambda t: t["flops"], flops=lambda t: t["flops"] * (1 + 1e7 / t["params"]))
    fitted = fit(points, "isoflop", value="loss", bootstrap=10)
    assert "compute varies by" in str(fitted)
    assert len(curves(points, "loss")) == 6


def test_precise_budgets_count_more():
    rng, errors = np.random.default_rng(0), np.zeros((20, 2))
    for row in errors:
        points = grid(noise=0.001, rng=rng)
        noisy = points["flops"] > 9e19
        points.loc[noisy, "loss"] *= np.exp(0.02 * rng.normal(size=noisy.sum()))
        for i, weighted in enumerate((False, True)):
            law = IsoFlop(weighted=weighted, measure_bias=False)
            row[i] = law.fit(points, "loss", rng).parameters["a"] - 0.4516
    assert np.std(errors[:, 1]) < 0.6 * np.std(errors[:, 0])
    with pytest.raises(LawError, match="weighted=true needs at least four sizes per budget"):
        fit(grid(sizes=3), IsoFlop(weighted=True), value="loss", bootstrap=10)


def test_the_best_use_of_a_budget_has_intervals():
    fitted = fit(grid(-0.3, 0.3, noise=0.0002, rng=np.random.default_rng(0)), "isoflop", value="loss", bootstrap=100)
    best = fitted.optimal(1e21).iloc[0]
    total = SURFACE["alpha"] + SURFACE["beta"]
    ratio = (SURFACE["alpha"] * SURFACE["A"] / (SURFACE["beta"] * SURFACE["B"])) ** (1 / total)
    true = ratio * (1e21 / 6) ** (SURFACE["beta"] / total)
    assert best["params_low"] < true < best["params_high"]
    assert best["params"] == pytest.approx(true, rel=0.3)
    assert best["tokens"] == pytest.approx(1e21 / 6 / best["params"], rel=1e-3)
    assert best["low"] < surface(true, 1e21 / 6 / true) < best["high"]


def test_wrong_options_and_losses_are_named():
    with pytest.raises(UsageError, match="curve='cubic': expected one of parabola, akima"):
        IsoFlop("cubic")
    trajectory = pd.DataFrame({"flops": np.geomspace(1e18, 1e20, 99), "params": 1e8, "loss": 3.0})
    with pytest.raises(LawError, match="one group of points spans a factor of 100 in compute. Expected points"):
        fit(trajectory, "isoflop", value="loss", bootstrap=10)
    with pytest.raises(LawError, match="loss must be above 0"):
        fit(grid().assign(loss=lambda t: t["loss"] - 10), "isoflop", value="loss", bootstrap=10)


@pytest.mark.parametrize("setting", ["rw_cosine", "rw_tuned"])
def test_published_minima_are_those_of_the_interpolated_curves(setting):
    points = read("formll", "isoflop_points.csv").rename(columns={"budget_flop": "flops"})
    pairs = read("formll", "optimal_pairs.csv").query("setting == @setting")
    minima = [minimum(curve, "akima") for curve in curves(points.query("setting == @setting"), "loss")]
    assert np.array([m.n for m in minima]) == pytest.approx(np.log(pairs["n_params_opt"].to_numpy()), abs=0.015)
    slope, _ = exponent(pairs["budget_flop"].to_numpy(), pairs["n_params_opt"].to_numpy())
    assert np.polyfit([m.c for m in minima], [m.n for m in minima], 1)[0] == pytest.approx(slope, abs=2e-3)


def test_a_budget_without_a_best_size_is_an_error_of_the_exponent():
    """A missing value made the exponent NaN without a word."""
    flops, best = np.geomspace(1e18, 1e20, 5), np.geomspace(1e8, 1e9, 5)
    with pytest.raises(
        LawError,
        match="1 of 5 budgets lack flops, size or standard error, or have one that is not above 0",
    ):
        exponent(flops, np.where(flops > 9e19, np.nan, best))
    with pytest.raises(LawError, match="2 of 5 budgets"):
        exponent(flops, best, np.array([0.1, np.nan, 0.1, 0.0, 0.1]))


def test_noise_of_one_degree_of_freedom_does_not_end_a_fit():
    """The back-test of a published table ended in a ValueError on infinite values, after two RuntimeWarnings."""
    budgets = np.array([40.0, 42.0, 44.0, 46.0])
    for count in (3, 4):
        with pytest.raises(LawError, match=r"the lowest losses are exp.* not numbers"):
            _frontier(budgets[:count], -800.0 * budgets[:count])
