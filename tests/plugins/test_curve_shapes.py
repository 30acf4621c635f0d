"""Shapes of curves: correlations as scipy has them, turns, breaks, corrections for many tests, power laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness import LawError
from harness_plugins.analyses.correlations import CORRELATIONS, permutation_p
from harness_plugins.analyses.curve_shapes import breakthroughness, linearity, quadratic
from harness_plugins.analyses.multiple_tests import benjamini_hochberg, holm
from harness_plugins.analyses.power_laws import pareto_power, pass_scaling


@pytest.mark.parametrize(
    ("name", "theirs"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)]
)
def test_correlations_of_many_curves_are_those_of_scipy_with_ties(name, theirs):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 9).astype(float), rng.integers(0, 4, (30, 9)).astype(float)
    assert CORRELATIONS[name](x, y) == pytest.approx([theirs(x, row).statistic for row in y])
    assert CORRELATIONS[name](x, np.ones((2, 9))).tolist() == [0, 0]


def test_the_p_of_a_short_ladder_is_that_of_all_orders():
    """A strictly rising curve of five has two of 120 orders that are as extreme."""
    x = np.arange(5.0)
    assert permutation_p(x, x**2) == pytest.approx(2 / 120)
    assert permutation_p(x, np.ones(5)) == 1
    assert permutation_p(np.arange(12.0), np.arange(12.0)) == pytest.approx(1e-4)


def test_a_parabola_and_the_p_of_its_curvature():
    rng, x = np.random.default_rng(0), np.linspace(18, 22, 9)
    fitted = quadratic(x, 0.3 * (x - 20.5) ** 2 + 0.1)
    assert (fitted.u.value, fitted.vertex) == (pytest.approx(0.3), pytest.approx(20.5))
    small = [quadratic(x, 0.1 * x + rng.normal(scale=0.1, size=9)).p for _ in range(400)]
    assert np.mean(np.array(small) < 0.05) == pytest.approx(0.05, abs=0.025)
    assert np.isnan(quadratic(np.arange(3.0), np.array([1.0, 0, 1])).p)
    for line in (0.5 + 0 * x, 0.1 * x - 4):  # had a bend of 1e-16 with its vertex at 2e14
        assert (quadratic(x, line).u.value, quadratic(x, line).p) == (0, 1)
        assert np.isnan(quadratic(x, line).vertex)
    with pytest.raises(LawError, match="2 scales; a quadratic fit needs 3"):
        quadratic(np.array([1.0, 1, 2]), np.arange(3.0))


def test_linearity_and_breakthroughness_go_curve_by_curve():
    curves = np.array([[0, 0.25, 0.5, 0.75, 1], [0, 0, 0, 0, 1], [1, 0.75, 0.5, 0.25, 0], [0.3] * 5])
    assert linearity(curves) == pytest.approx([4, 2, -4, 0])
    assert breakthroughness(curves) == pytest.approx([4, 100, -4, 0])


def test_corrections_are_those_of_scipy_and_leave_out_tests_that_were_not_made():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.005])
    assert holm(p) == pytest.approx([0.03, np.nan, 0.06, 0.06, 0.02], nan_ok=True)
    is_tested = np.isfinite(p)
    assert benjamini_hochberg(p)[is_tested] == pytest.approx(stats.false_discovery_control(p[is_tested]))
    assert np.isnan(benjamini_hochberg(p)[1])


@pytest.mark.parametrize(
    ("bend", "kind", "least"), [(0.0, "normal", 0.8), (0.05, "sub-scaling", 1), (-0.05, "super-scaling", 1)]
)
def test_pass_rates_that_bend_are_told_from_those_that_do_not(bend, kind, least):
    """At 90 %, about one in ten of the unbent is called bent; few samples tell nothing apart."""
    params = np.array([70e6, 160e6, 410e6, 1e9, 2.8e9])
    x = np.log(params / params.mean())
    rates = np.exp(-np.exp(1.4 - 0.16 * x + bend * x**2))
    rng, n = np.random.default_rng(0), np.full(5, 12800)
    scalings = [pass_scaling(params, rng.binomial(n, rates), n, resamples=300) for _ in range(100)]
    assert np.mean([scaling.kind == kind for scaling in scalings]) >= least
    assert np.mean([scaling.curvature.low <= bend <= scaling.curvature.high for scaling in scalings]) > 0.8
    assert pass_scaling(params, np.array([0, 0, 0, 1, 1]), np.full(5, 100)).kind == "undetermined"


def test_the_frontier_keeps_only_what_was_the_best_so_far():
    flops = np.array([1e3, 1e3, 1e4, 1e5, 1e6])
    law = pareto_power(flops, np.array([0.9, 0.5, 0.6, 0.4, 0.32]))
    assert law.flops.tolist() == [1e3, 1e5, 1e6]
    assert law.b == pytest.approx(np.polyfit(np.log([1e3, 1e5, 1e6]), np.log([0.5, 0.4, 0.32]), 1)[0])
    with pytest.raises(LawError, match="above 0"):
        pareto_power(flops, np.zeros(5))
    with pytest.raises(LawError, match="1 budgets up to"):
        pareto_power(flops, np.full(5, 0.5))
