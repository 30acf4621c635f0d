"""Correlations of curves with scale (Pearson, Spearman, Kendall) and their permutation test.

Curves are (M,), or (..., M) for several at once, ordered by scale.
"""

from __future__ import annotations

import numpy as np

from harness import Floats

SHORT = 20  # number of points up to which ranks are counted pair by pair, which is faster for many curves

EXACT = 7  # number of points up to which all permutations are tested

ORDERS = 9999  # random permutations of longer curves


def ranks(values: Floats) -> Floats:
    """Return ranks along the last axis; tied values have their mean rank."""
    from scipy.stats import rankdata

    if values.shape[-1] <= SHORT:
        below = (values[..., None, :] < values[..., :, None]).sum(-1)
        return np.asarray(below + ((values[..., None, :] == values[..., :, None]).sum(-1) + 1) / 2)
    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def pearson(x: Floats, y: Floats) -> Floats:
    """Return Pearson's correlation of x (M,) with curves (..., M); 0 for a constant curve."""
    dx, dy = x - x.mean(), y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt((dx**2).sum() * (dy**2).sum(axis=-1))
    flat = np.ptp(y, axis=-1) == 0
    return np.where(flat, 0.0, dy @ dx / np.where(flat | (scale == 0), 1.0, scale))


def spearman(x: Floats, y: Floats) -> Floats:
    """Return Spearman's rank correlation of x (M,) with curves (..., M); 0 for a constant curve."""
    return pearson(ranks(x), ranks(y))


def kendall(x: Floats, y: Floats) -> Floats:
    """Return Kendall's tau-b of x (M,) with curves (..., M), corrected for ties; 0 for a constant curve."""
    agree, moved = np.zeros(y.shape[:-1]), np.zeros(y.shape[:-1])
    apart = 0.0
    for i in range(len(x) - 1):
        dx, dy = np.sign(x[i + 1 :] - x[i]), np.sign(y[..., i + 1 :] - y[..., i : i + 1])
        agree += dy @ dx
        moved += np.abs(dy).sum(axis=-1)
        apart += np.abs(dx).sum()
    return np.where(moved > 0, agree / np.sqrt(np.maximum(moved, 1) * max(apart, 1.0)), 0.0)


CORRELATIONS = {"pearson": pearson, "spearman": spearman, "kendall": kendall}


def permutation_p(x: Floats, y: Floats, *, seed: int = 0) -> float:
    """Return the two-sided p of a permutation test of Spearman's correlation of two columns (M,).

    All permutations are used for up to 7 points, else 9,999 random ones. With five points, p is at least 2/120.
    """
    from itertools import permutations

    observed = abs(float(spearman(x, y)))
    if len(x) <= EXACT:
        orders = y[np.array(list(permutations(range(len(y)))))]
        return float((np.abs(spearman(x, orders)) >= observed - 1e-9).mean())
    orders = np.random.default_rng(seed).permuted(np.tile(y, (ORDERS, 1)), axis=1)
    return float(((np.abs(spearman(x, orders)) >= observed - 1e-9).sum() + 1) / (ORDERS + 1))
