"""Objectives: their derivatives, and counted successes against the likelihood itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize

from harness import LawError
from harness.fitting.fit import fit
from harness.fitting.objectives import OBJECTIVES
from harness.host import PluginHost

SIZES = np.geomspace(1e7, 1e10, 12)
TRIALS = np.full(12, 400.0)


def counted(log_c=5.0, alpha=0.2, seed=0) -> pd.DataFrame:
    rate = np.exp(-np.exp(log_c - alpha * np.log(SIZES)))
    successes = np.random.default_rng(seed).binomial(400, rate)
    return pd.DataFrame({"params": SIZES, "rate": successes / 400, "trials": TRIALS})


def quick(points, host, **arguments):
    return fit(points, "pass_until", **{"value": "rate", "bootstrap": 200, "registries": host, **arguments})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_slopes_are_the_derivatives_of_residuals(name):
    objective, trials = OBJECTIVES[name], np.array([7.0, 400.0, 1e6])
    y, value = np.array([0.0, 0.31, 0.62]), np.array([[0.2, 0.3, 0.621], [0.5, 0.312, 0.7]])
    target = y if objective.counts else objective.forward(np.array([0.1, 0.31, 0.62]))
    h = 1e-7
    high, low = (objective.residuals(value + d, target, trials) for d in (h, -h))
    slopes = objective.slopes(value, objective.residuals(value, target, trials), target, trials)
    assert slopes == pytest.approx((high - low) / (2 * h), rel=2e-4)


def test_where_curve_and_rate_meet_the_slope_is_its_limit():
    objective, p, n = OBJECTIVES["binomial"], np.array([0.3]), np.array([400.0])
    met = objective.slopes(p, objective.residuals(p, p, n), p, n)
    near = objective.slopes(p + 1e-4, objective.residuals(p + 1e-4, p, n), p, n)
    assert met == pytest.approx(np.sqrt(400 / 0.21)) == pytest.approx(near, rel=1e-3)


def test_counted_successes_are_fitted_by_their_likelihood(host: PluginHost):
    """The optimum and its value are those of a direct search of the binomial likelihood."""
    points = counted(log_c=6.0, alpha=0.24)
    assert (points["rate"] == 0).any()

    def surprise(p):
        rate = np.exp(-np.exp(p[0] - p[1] * np.log(SIZES)))
        return -stats.binom.logpmf(np.round(points["rate"] * 400), 400, rate).sum()

    direct = minimize(surprise, [5.0, 0.2], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    step = quick(points, host).steps[0]
    assert [step.parameters["log_c"], step.parameters["alpha"]] == pytest.approx(direct.x, rel=1e-4)
    saturated = -stats.binom.logpmf(np.round(points["rate"] * 400), 400, points["rate"]).sum()
    assert step.cost == pytest.approx(direct.fun - saturated, rel=1e-6)


def test_sizes_without_success_are_not_dropped(host: PluginHost):
    """Dropping them, as a logarithm must, bends the curve up where it is lowest."""
    slopes, dropped = [], []
    for seed in range(20):
        points = counted(log_c=6.0, alpha=0.24, seed=seed)
        some = points[points["rate"] > 0]
        slopes.append(quick(points, host, bootstrap=10).steps[0].parameters["alpha"])
        loglog = quick(some, host, objective="loglog_least_squares", bootstrap=10)
        dropped.append(loglog.steps[0].parameters["alpha"])
    assert np.mean(slopes) == pytest.approx(0.24, abs=0.01)
    assert np.mean(dropped) < 0.23


def test_the_error_of_counted_successes_is_the_error_made(host: PluginHost):
    estimates, stated, inside = [], [], 0
    truth = np.exp(-np.exp(5.0 - 0.2 * np.log(2e10)))
    for seed in range(60):
        fitted = quick(counted(seed=seed), host, bootstrap=100, seed=seed)
        estimates.append(fitted.steps[0].parameters["alpha"])
        stated.append(fitted.steps[0].stderr["alpha"])
        row = fitted.predict(params=[2e10]).iloc[0]
        inside += row["low"] <= truth <= row["high"]
    assert np.median(stated) == pytest.approx(np.std(estimates), rel=0.33)
    assert 48 <= inside <= 60


def test_rates_that_vary_more_than_their_counts_have_wider_intervals(host: PluginHost):
    rng, rate = np.random.default_rng(0), np.exp(-np.exp(5.0 - 0.2 * np.log(SIZES)))
    wild = counted().assign(rate=rng.binomial(400, rng.beta(9 * rate, 9 * (1 - rate))) / 400)
    tame, wide = (quick(points, host).predict(params=[2e10]).iloc[0] for points in (counted(), wild))
    assert wide["high"] - wide["low"] > 2 * (tame["high"] - tame["low"])
    assert quick(wild, host).steps[0].scatter == pytest.approx(np.sqrt(0.1), rel=0.6)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (counted().drop(columns="trials"), r"needs a column trials \(or rate_n\) beside rate"),
        (counted().assign(trials=0.5), "trials is not a whole number of 1 or more"),
        (counted().assign(rate=40.0), "needs rates from 0 to 1, found 40 to 40"),
        (counted().assign(rate=0.0), "all 12 points have the rate 0; expected different rates"),
    ],
)
def test_counts_that_are_none_stop_with_a_reason(host: PluginHost, points, message):
    with pytest.raises(LawError, match=message):
        quick(points, host)
