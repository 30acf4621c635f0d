"""Bootstrap over documents: weights of documents, and metrics recomputed with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.errors import MetricError
from harness.metrics.per_document import per_document
from harness.metrics.samples import Scored
from harness.metrics.standard_errors import Groups
from harness.types import Floats, Metric

SMALLEST_SHAPE = 0.1  # of gamma weights: lower bound, reached with two documents or clusters
BATCH = 50  # resamples computed together


@dataclass(frozen=True)
class DocumentWeights:
    """Weights of the documents of a task in resamples (R, n), with what all metrics of all its cells need of them."""

    drawn: Floats
    groups: Groups
    average: str = "macro"

    @cached_property
    def _shares(self) -> tuple[Floats, Floats]:
        """Return the share of each document in a weighted mean (R, n), and their sum (R,)."""
        shares = self.drawn * self.groups.shares(self.average)
        return shares, shares.sum(axis=1)

    def of(self, metric: Metric, columns: tuple[Floats, ...]) -> Floats:
        """Return a metric, given its columns per document, for each row of weights (R,).

        Raises MetricError if it takes no weights.
        """
        if not isinstance(metric.aggregate, str):
            raise MetricError(
                f"metric {metric.name!r} has its own aggregate, which takes no weights; resample runs instead"
            )
        if metric.aggregate != "mean":
            ratio = (self.drawn @ columns[0]) / (self.drawn @ columns[1])
            return np.exp(ratio) if metric.aggregate == "exp_ratio" else ratio
        shares, sums = self._shares
        value: Floats = (shares @ columns[0]) / sums
        return value


def document_weights(groups: Groups, count: int, rng: np.random.Generator) -> Floats:
    """Return weights of documents (count, n): a Bayesian bootstrap (Rubin 1981), within strata or of whole clusters.

    Weights are gamma with shape (G - 2) / G for G documents (or clusters), so that the variance of the weighted mean is
    the squared standard error, s^2 / G. With Rubin's shape 1 it is (G - 1) / (G + 1) of that: 40 % too small for G = 4.
    The weights of a stratum have mean 1, so that its share is fixed.
    """
    if groups.clustered:
        size = int(groups.numbers.max()) + 1
        return _gamma(size, count, rng)[:, groups.numbers]
    weights = np.empty((count, len(groups.numbers)))
    for stratum in range(int(groups.strata.max()) + 1):
        members = np.flatnonzero(groups.strata == stratum)
        drawn = _gamma(len(members), count, rng)
        weights[:, members] = drawn / drawn.mean(axis=1, keepdims=True)
    return weights


def _gamma(size: int, count: int, rng: np.random.Generator) -> Floats:
    return rng.gamma(max((size - 2) / size, SMALLEST_SHAPE), size=(count, size))


def reweighted(metric: Metric, scores: Scored, weights: Floats, average: str = "macro") -> Floats:
    """Return the value of a metric for each row of weights (R, n); raise MetricError if it takes no weights."""
    return DocumentWeights(weights, Groups.of(scores), average).of(metric, per_document(metric, scores).columns)
