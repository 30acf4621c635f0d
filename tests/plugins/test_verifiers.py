"""Resampling with an imperfect verifier: exact cases, no bias, and an optimal number of samples."""

from __future__ import annotations

import numpy as np
import pytest

from harness import MetricError
from harness_plugins.analyses.estimators import verified
from harness_plugins.analyses.verifiers import resampling


def test_a_case_that_can_be_counted_by_hand():
    """Four samples of one document, two accepted, one of them right: pairs hold an accepted one in 5 of 6 cases."""
    outcome = resampling([2], [1], [4], cost=0.5)
    assert [x.value for x in outcome.right] == pytest.approx([1 / 4, 5 / 12, 1 / 2, 1 / 2])
    assert [x.value for x in outcome.wrong] == pytest.approx([1 / 4, 5 / 12, 1 / 2, 1 / 2])
    assert [x.value for x in outcome.gain] == pytest.approx([1 / 8, 5 / 24, 1 / 4, 1 / 4])
    assert (outcome.false_positives.value, outcome.single.value, outcome.ceiling.value) == pytest.approx(
        (0.5, 0.25, 0.5)
    )
    assert outcome.best.value == 3


def test_a_verifier_without_errors_has_no_ceiling_and_every_sample_helps():
    rng = np.random.default_rng(0)
    passed = rng.binomial(50, rng.uniform(0.02, 0.3, 200))
    outcome = resampling(passed, passed, np.full(200, 50), cost=10.0)
    assert outcome.false_positives.value == 0
    assert outcome.ceiling.value == pytest.approx(1 - outcome.never)
    assert outcome.best.value == 50


def test_curves_are_unbiased_over_draws_of_samples():
    """2,000 experiments of 12 samples on 4 documents of known rates: mean curves within four standard errors."""
    rng = np.random.default_rng(1)
    p, f = np.array([0.05, 0.3, 0.6, 0.0]), np.array([0.1, 0.02, 0.5, 0.2])
    b = rng.binomial(12, p, size=(2000, 4))
    a = b + rng.binomial(12 - b, f)
    a[~a.any(1), 0] = 1  # an experiment without any accepted sample says nothing; there are about none
    outcomes = [resampling(*counts, [12] * 4, cost=1.0, resamples=2) for counts in zip(a, b, strict=True)]
    for k in (1, 3, 12):
        truth = np.mean([verified(*rates, k).success for rates in zip(p, np.ones(4), f, strict=True)])
        values = np.array([x.right[k - 1].value for x in outcomes])
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(2000)


def test_a_higher_cost_asks_for_fewer_samples_and_at_last_for_none():
    """Easy documents are accepted rightly and soon, hard ones late and wrongly: the curve bends down."""
    rng = np.random.default_rng(2)
    p = np.repeat([0.5, 0.002], 100)
    b = rng.binomial(200, p)
    a = b + rng.binomial(200 - b, 0.01)
    best = [resampling(a, b, np.full(200, 200), cost=cost).best for cost in (0.0, 1.0, 4.0, 1000.0)]
    values = [x.value for x in best]
    assert values[0] == 200
    assert 1 < values[2] < values[1] < 30
    assert values[3] == 0
    assert all(x.low <= x.value <= x.high for x in best)


def test_the_interval_of_the_ceiling_holds_the_truth_as_often_as_it_says():
    rng, inside = np.random.default_rng(3), []
    for _ in range(400):
        b = rng.binomial(40, rng.uniform(0.3, 0.9, 80))
        a = b + rng.binomial(40 - b, 0.1)
        outcome = resampling(a, b, np.full(80, 40), cost=1.0, resamples=2)
        truth = np.mean([x / (x + 0.1 * (1 - x)) for x in np.linspace(0.3, 0.9, 2001)])
        inside.append(abs(outcome.ceiling.value - truth) < 1.96 * outcome.ceiling.stderr)
    assert 0.91 < np.mean(inside) < 0.98


def test_tables_show_the_best_number_of_samples():
    outcome = resampling([4, 9, 1, 0], [4, 6, 0, 0], [10, 12, 10, 10], cost=2.0)
    summary, curve = outcome.tables()
    assert [row[0] for row in curve.rows] == sorted({1, 2, 5, 10, int(outcome.best.value)})
    assert summary.rows[0][3] == 0.25
    assert "a wrong answer costs 2" in summary.notes[0]


@pytest.mark.parametrize(
    ("counts", "cost", "message"),
    [
        (([3], [4], [5]), 1.0, "0 <= strong <= weak <= trials; strong counts samples that pass both"),
        (([3, 1], [2], [5]), 1.0, "expected one of each per document"),
        (([3], [2], [5]), -1.0, "cost=-1.0: expected 0 or more"),
        (([0], [0], [5]), 1.0, "the weak tests accept no sample"),
    ],
)
def test_counts_that_cannot_be_are_refused(counts, cost, message):
    with pytest.raises(MetricError, match=message):
        resampling(*counts, cost=cost)
