"""Standard errors of means over documents: by strata or by clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.metrics.samples import Scored
from harness.types import Floats, Ints

ROUNDING = 1e-12  # relative to the largest residual: smaller residuals are rounding errors


@dataclass(frozen=True)
class Groups:
    """Groups of documents (n,): `numbers` of their groups, which are `clustered` or fixed strata.

    `strata` are the groups within which variances are computed; groups of one document are merged.
    """

    numbers: Ints
    strata: Ints
    clustered: bool

    @classmethod
    def of(cls, scores: Scored) -> Groups:
        """Number the groups of the documents of scores."""
        return cls.named(scores.group, clustered=scores.clustered)

    @classmethod
    def named(cls, group: NDArray[np.object_], *, clustered: bool) -> Groups:
        """Number the groups of documents by their names (n,); a single cluster is not clustered."""
        names, numbers = np.unique(group.astype(str), return_inverse=True)
        numbers = numbers.astype(np.int64)
        return cls(numbers, _collapsed(numbers), clustered and len(names) > 1)

    def shares(self, average: str) -> Floats:
        """Return the weight of each document in the mean (n,)."""
        n = len(self.numbers)
        if average == "micro":
            return np.full(n, 1 / n)
        counts = np.bincount(self.numbers)
        shares: Floats = 1 / (len(counts) * counts[self.numbers])
        return shares

    def error(self, residuals: Floats) -> float:
        """Return the standard error of a sum of residuals (n,); NaN for one document."""
        if self.clustered:
            sums = np.bincount(self.numbers, residuals)
            return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)))
        counts = np.bincount(self.strata)
        if counts.min() < 2:
            return float("nan")
        off = residuals - (np.bincount(self.strata, residuals) / counts)[self.strata]
        off[np.abs(off) < ROUNDING * np.abs(residuals).max()] = 0.0  # an error of 0 is exactly 0
        return float(np.sqrt((np.bincount(self.strata, off**2) * counts / (counts - 1)).sum()))


def _collapsed(numbers: Ints) -> Ints:
    """Return strata (n,) of two documents or more: groups of one are merged, a single one into the largest."""
    counts = np.bincount(numbers)
    strata = np.where(counts[numbers] < 2, len(counts), numbers)
    if (strata == len(counts)).sum() == 1:
        strata = np.where(strata == len(counts), counts.argmax(), strata)
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)
