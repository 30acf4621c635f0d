"""The shape of a curve of scores over scale: correlations, turns, linearity, breaks, and what many tests cost.

Curves are (M,), or (..., M) where many are looked at together, ordered by scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, LawError, Range

CLIP = 100.0  # breakthroughness where more than half of the steps are 0
SHORT = 20  # points up to which ranks are counted pair by pair, which is quicker for many curves
EXACT = 7  # points up to which all orders are tried
ORDERS = 9999  # of longer curves


def ranks(values: Floats) -> Floats:
    """Return ranks along the last axis; equal values share the mean of theirs."""
    from scipy.stats import rankdata

    if values.shape[-1] <= SHORT:
        below = (values[..., None, :] < values[..., :, None]).sum(-1)
        return np.asarray(below + ((values[..., None, :] == values[..., :, None]).sum(-1) + 1) / 2)
    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def pearson(x: Floats, y: Floats) -> Floats:
    """Return the correlation of x (M,) with curves (..., M); 0 for a curve that is constant."""
    dx, dy = x - x.mean(), y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt((dx**2).sum() * (dy**2).sum(axis=-1))
    flat = np.ptp(y, axis=-1) == 0
    return np.where(flat, 0.0, dy @ dx / np.where(flat | (scale == 0), 1.0, scale))


def spearman(x: Floats, y: Floats) -> Floats:
    """Return the rank correlation of x (M,) with curves (..., M); 0 for a curve that is constant."""
    return pearson(ranks(x), ranks(y))


def kendall(x: Floats, y: Floats) -> Floats:
    """Return Kendall's tau-b of x (M,) with curves (..., M), corrected for ties; 0 for a curve that is constant."""
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
    """Return the two-sided p of Spearman's correlation of two columns (M,) when the values of y may stand in any order.

    All orders are tried for up to 7 points, 9,999 random ones otherwise. Few points cannot show much: five give no p
    below 2/120.
    """
    from itertools import permutations

    observed = abs(float(spearman(x, y)))
    if len(x) <= EXACT:
        orders = y[np.array(list(permutations(range(len(y)))))]
        return float((np.abs(spearman(x, orders)) >= observed - 1e-9).mean())
    orders = np.random.default_rng(seed).permuted(np.tile(y, (ORDERS, 1)), axis=1)
    return float(((np.abs(spearman(x, orders)) >= observed - 1e-9).sum() + 1) / (ORDERS + 1))


@dataclass(frozen=True)
class Quadratic:
    """y = u x^2 + v x + w by least squares, and the p of u = 0 (Student's t, M - 3 degrees of freedom; NaN at 3)."""

    u: Range
    v: float
    w: float
    p: float

    @property
    def vertex(self) -> float:
        """Where it turns."""
        return -self.v / (2 * self.u.value) if self.u.value else float("nan")


def quadratic(x: Floats, y: Floats, *, level: float = 0.95) -> Quadratic:
    """Fit a parabola to a curve (M,), with the interval of its curvature from the scatter around it.

    Raises LawError for fewer than three scales.
    """
    from scipy.stats import t

    design = parabola(x)
    weights = np.linalg.pinv(design)  # (3, M)
    u, v, w = weights @ y
    dof = len(x) - 3
    if dof < 1:
        return Quadratic(Range(float(u), np.nan, np.nan), float(v), float(w), float("nan"))
    scatter = np.sqrt(((y - design @ [u, v, w]) ** 2).sum() / dof)
    error = float(scatter * np.linalg.norm(weights[0]))
    half = error * float(t.ppf((1 + level) / 2, dof))
    p = float(2 * t.sf(abs(u) / error, dof)) if error else float(u == 0)
    return Quadratic(Range(float(u), float(u - half), float(u + half)), float(v), float(w), p)


def parabola(x: Floats) -> Floats:
    """Return the design (M, 3) of a parabola; raise LawError where x holds fewer than three scales."""
    if len(set(x)) < 3:
        raise LawError(f"{len(set(x))} scales: a parabola needs 3 or more")
    return np.stack([x**2, x, np.ones_like(x)], axis=1)


def impact(y: Floats) -> Floats:
    """Return the range of curves (..., M), with a minus where the highest point stands before the lowest."""
    sign = np.sign(y.argmax(-1) - y.argmin(-1))
    return np.asarray(sign * np.ptp(y, axis=-1))


def linearity(y: Floats) -> Floats:
    """Return the impact of curves (..., M) over the root mean square of their steps (after Srivastava et al. 2022).

    Not normalised by the number of points: a line of M points has M - 1, one step sqrt(M - 1).

    >>> linearity(np.array([0.0, 0.25, 0.5, 0.75, 1.0])).item()
    4.0
    """
    steps = np.sqrt((np.diff(y, axis=-1) ** 2).mean(-1))
    return np.where(steps > 0, impact(y) / np.where(steps > 0, steps, 1.0), 0.0)


def breakthroughness(y: Floats) -> Floats:
    """Return the impact of curves (..., M) over the root of the median squared step (after Srivastava et al. 2022).

    Large where most of the way is done in one step; 100 with its sign where more than half of the steps are 0.

    >>> breakthroughness(np.array([0.0, 0.1, 0.1, 0.2, 0.9])).round(6).item()
    9.0
    """
    steps = np.sqrt(np.median(np.diff(y, axis=-1) ** 2, axis=-1))
    return np.where(steps > 0, impact(y) / np.where(steps > 0, steps, 1.0), CLIP * np.sign(impact(y)))


def holm(p: Floats) -> Floats:
    """Return p-values (k,) adjusted for k tests so that all are right with the chance promised (Holm 1979).

    NaN stands for a test that was not made, and is not counted.
    """
    made, order, k = _ordered(p)
    adjusted = np.minimum(np.maximum.accumulate(p[order] * (k - np.arange(k))), 1.0)
    made[order] = adjusted
    return made


def benjamini_hochberg(p: Floats) -> Floats:
    """Return p-values (k,) adjusted so that of what is found, a share of at most that level is false, on average.

    (Benjamini and Hochberg 1995; for tests that are independent or positively dependent.) NaN as in `holm`.
    """
    made, order, k = _ordered(p)
    adjusted = np.minimum.accumulate((p[order] * k / np.arange(1, k + 1))[::-1])[::-1]
    made[order] = np.minimum(adjusted, 1.0)
    return made


CORRECTIONS = {"holm": holm, "bh": benjamini_hochberg}


def _ordered(p: Floats) -> tuple[Floats, Ints, int]:
    """Return a column of NaN, the places of the tests that were made, smallest p first, and how many they are."""
    places = np.flatnonzero(np.isfinite(p))
    order = places[np.argsort(p[places], kind="stable")]
    return np.full(len(p), np.nan), order, len(order)
