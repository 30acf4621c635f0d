"""Simulations: coverage of intervals."""

from __future__ import annotations

import numpy as np
import pytest

from harness.fitting.laws import curve
from harness.fitting.simulations import coverage, measured, places
from harness.host import PluginHost


def test_noise_is_that_of_the_objective(host: PluginHost):
    law = host.laws["power"]
    x = places(law, 4000)
    y = curve(law, np.array([[1.7, 7.0, 0.15]]), x)[0]
    noisy = measured(law, y, 0.02, np.random.default_rng(0))
    assert abs(np.log(noisy / y).std() - 0.02) < 0.001
    rates = measured(host.laws["pass_until"], np.full(4000, 0.3), 0.02, np.random.default_rng(0))
    assert abs(rates.std() - np.sqrt(0.21 / 1000)) < 0.001


@pytest.mark.soak
def test_intervals_hold_the_truth_as_often_as_they_say_and_no_oftener(host: PluginHost):
    """90 % intervals of 60 simulations, and 50 % intervals, which hold it in half."""
    law = host.laws["sigmoid"]
    arguments = {"count": 60, "bootstrap": 80, "starts": 2}
    for level, least, most in ((0.9, 47, 60), (0.5, 18, 42)):
        coverage_shares = coverage(law, law.example, places(law, 50), level=level, **arguments)
        assert all(
            least <= n <= most
            for n in (
                *coverage_shares.parameters.values(),
                coverage_shares.curve,
                coverage_shares.beyond,
                coverage_shares.new,
            )
        ), coverage_shares


@pytest.mark.soak
def test_steps_are_simulated_one_behind_the_other(host: PluginHost):
    """Accuracy follows from the loss as it was measured; both steps have their parameters counted."""
    law = host.laws["two_step"]
    truth = {"E": 1.7, "a": 7.0, "alpha": 0.15, "p": -0.7, "x0": 2.6, "k": 4.0, "q": 1.0}
    coverage_shares = coverage(law, truth, places(law.steps[0], 50), count=30, bootstrap=80, starts=2)
    assert set(coverage_shares.parameters) == set(truth)
    assert all(22 <= n <= 30 for n in (coverage_shares.curve, coverage_shares.beyond, coverage_shares.new))
