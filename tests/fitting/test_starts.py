"""Starts: projected parameters are the best inside their bounds, and a seed decides the rest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from harness.fitting.laws import bounds
from harness.fitting.objectives import OBJECTIVES
from harness.fitting.starts import generic_starts, project
from harness.host import PluginHost

N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 5), np.geomspace(1e9, 1e11, 5)))
X = {"params": N, "tokens": D}
LOSS = 1.8 + 480 * N**-0.35 + 2100 * D**-0.37


def begin(host: PluginHost, law: str, seed=0):
    return generic_starts(host.laws[law], LOSS, X, 32, np.random.default_rng(seed))


@pytest.mark.parametrize("objective", ["least_squares", "log_least_squares"])
def test_linear_parameters_are_those_of_bounded_least_squares(host: PluginHost, objective):
    """Of over_trained a, b and E are linear and not below 0; scipy solves one start at a time."""
    law, starts = host.laws["over_trained"], begin(host, "over_trained")
    projected = project(law, starts, X, LOSS, OBJECTIVES[objective])
    weight = 1 / LOSS if objective.startswith("log") else np.ones_like(LOSS)
    at_bound = 0
    for row, start in zip(projected, starts, strict=True):
        assert row[2] == start[2]
        terms = np.stack([N ** row[2], (D * np.sqrt(6)) ** row[2], np.ones_like(N)], axis=1) * weight[:, None]
        best = lsq_linear(terms / np.linalg.norm(terms, axis=0), LOSS * weight, bounds=(0, np.inf), method="bvls")
        misses = terms @ row[[0, 1, 3]] - LOSS * weight
        assert misses @ misses / 2 == pytest.approx(best.cost, rel=1e-6, abs=1e-9)
        at_bound += (row[[0, 1, 3]] == 0).any()
    assert at_bound


def test_a_law_that_names_no_linear_parameter_keeps_its_starts(host: PluginHost):
    starts = begin(host, "kaplan")
    assert project(host.laws["kaplan"], starts, X, LOSS, OBJECTIVES["log_least_squares"]) is starts


def test_starts_lie_inside_the_bounds_and_follow_from_the_seed(host: PluginHost):
    starts = begin(host, "chinchilla")
    lower, upper = bounds(host.laws["chinchilla"])
    assert ((starts >= lower) & (starts <= upper)).all()
    assert starts.shape == (32, 5)
    assert (starts == begin(host, "chinchilla")).all()
    assert (starts[1:] != begin(host, "chinchilla", seed=1)[1:]).any()
    assert len({tuple(row) for row in starts}) == 32
