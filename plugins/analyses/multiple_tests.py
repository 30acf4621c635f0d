"""Corrections of p-values for multiple tests: Holm and Benjamini-Hochberg."""

from __future__ import annotations

import numpy as np

from harness import Floats, Ints


def holm(p: Floats) -> Floats:
    """Return p-values (k,) adjusted to control the family-wise error rate (Holm 1979).

    NaN marks a test that was not made and is not counted.
    """
    result, order, k = _ordered(p)
    adjusted = np.minimum(np.maximum.accumulate(p[order] * (k - np.arange(k))), 1.0)
    result[order] = adjusted
    return result


def benjamini_hochberg(p: Floats) -> Floats:
    """Return p-values (k,) adjusted to control the false discovery rate (Benjamini and Hochberg 1995).

    For independent or positively dependent tests. NaN as in `holm`.
    """
    result, order, k = _ordered(p)
    adjusted = np.minimum.accumulate((p[order] * k / np.arange(1, k + 1))[::-1])[::-1]
    result[order] = np.minimum(adjusted, 1.0)
    return result


CORRECTIONS = {"holm": holm, "bh": benjamini_hochberg}


def _ordered(p: Floats) -> tuple[Floats, Ints, int]:
    """Return a column of NaN, the indices of the tests made in order of p, and their number."""
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    return np.full(len(p), np.nan), order, len(order)
