"""Documents in resamples (bootstrap): their weights, and metrics recomputed with them."""

from __future__ import annotations

import numpy as np

from harness.errors import MetricError
from harness.metrics.per_document import per_document
from harness.metrics.samples import Scored
from harness.metrics.standard_errors import Groups
from harness.types import Floats, Metric

SMALLEST_SHAPE = 0.1  # of gamma weights, for two documents or clusters
BATCH = 50  # resamples of documents at a time


def document_weights(scores: Scored, count: int, rng: np.random.Generator) -> Floats:
    """Return weights of documents (count, n): a Bayesian bootstrap (Rubin 1981), within strata or of whole clusters.

    Weights are gamma with shape (G - 2) / G for G documents (or clusters), not Rubin's 1: the weighted mean then varies
    by the squared standard error, s^2 / G; with Rubin's it is (G - 1) / (G + 1) of that, 40 % too little for 4 of them.
    The weights of a stratum have the mean 1, so that its share does not vary.
    """
    groups = Groups.of(scores)
    if groups.clustered:
        size = int(groups.numbers.max()) + 1
        return _gamma(size, count, rng)[:, groups.numbers]
    weights = np.empty((count, len(scores)))
    for stratum in range(int(groups.strata.max()) + 1):
        members = np.flatnonzero(groups.strata == stratum)
        drawn = _gamma(len(members), count, rng)
        weights[:, members] = drawn / drawn.mean(axis=1, keepdims=True)
    return weights


def _gamma(size: int, count: int, rng: np.random.Generator) -> Floats:
    return rng.gamma(max((size - 2) / size, SMALLEST_SHAPE), size=(count, size))


def reweighted(metric: Metric, scores: Scored, weights: Floats, average: str = "macro") -> Floats:
    """Return the value of a metric for each row of document weights (R, n); raise MetricError where it has none."""
    if not isinstance(metric.aggregate, str):
        raise MetricError(
            f"metric {metric.name!r} has an aggregate of its own, which takes no weights; resample runs instead"
        )
    columns, groups = per_document(metric, scores).columns, Groups.of(scores)
    if metric.aggregate != "mean":
        ratio = (weights @ columns[0]) / (weights @ columns[1])
        return np.exp(ratio) if metric.aggregate == "exp_ratio" else ratio
    weights = weights * groups.shares(average)
    value: Floats = (weights @ columns[0]) / weights.sum(axis=1)
    return value
