"""Standard errors of means over documents: by strata or by clusters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def is_one(self) -> bool:
        """Return whether all documents are in one group."""
        return not np.ptp(self.numbers)

    def means(self, values: Floats) -> Floats:
        """Return the mean of each group (k, G) of values (k, n)."""
        return np.asarray(_sums(self.numbers, values) / np.bincount(self.numbers))

    def errors(self, residuals: Floats) -> Floats:
        """Return the standard errors (k,) of sums of residuals (k, n); NaN for one document."""
        if self.clustered:
            sums = _sums(self.numbers, residuals)
            return np.asarray(np.sqrt((sums**2).sum(axis=1) * sums.shape[1] / (sums.shape[1] - 1)))
        counts = np.bincount(self.strata)
        if counts.min() < 2:
            return np.full(len(residuals), np.nan)
        off = residuals - (_sums(self.strata, residuals) / counts)[:, self.strata]
        least = ROUNDING * np.abs(residuals).max(axis=1, keepdims=True)
        off[np.abs(off) < least] = 0.0  # an error of 0 is exactly 0
        return np.asarray(np.sqrt((_sums(self.strata, off**2) * counts / (counts - 1)).sum(axis=1)))


def _sums(numbers: Ints, values: Floats) -> Floats:
    """Return the sums (k, G) of values (k, n) with equal numbers (n,)."""
    k, size = len(values), int(numbers.max()) + 1
    at = numbers + size * np.arange(k)[:, None]
    sums: Floats = np.bincount(at.ravel(), values.ravel(), k * size).astype(np.float64).reshape(k, size)
    return sums


def _collapsed(numbers: Ints) -> Ints:
    """Return strata (n,) of two documents or more: groups of one are merged, a single one into the largest."""
    counts = np.bincount(numbers)
    strata = np.where(counts[numbers] < 2, len(counts), numbers)
    if (strata == len(counts)).sum() == 1:
        strata = np.where(strata == len(counts), counts.argmax(), strata)
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)
