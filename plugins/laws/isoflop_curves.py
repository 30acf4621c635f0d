"""Curves of equal compute: the loss over size at each budget, and the size of the lowest loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness import Floats, LawError

if TYPE_CHECKING:
    import pandas as pd

APART = 0.1  # in ln C: neighbours in compute that are closer than this belong to one budget
WIDEST = 0.5  # in ln C: largest range of compute within one budget
FEWEST = 3  # fewest sizes per curve; with no more budgets than this, L*(C) has no offset
GRID = 1000  # sizes at which an interpolated curve or a surface is evaluated


@dataclass(frozen=True)
class Curve:
    """The points of one budget, by size: natural logarithms of N, D, C and L, (n,) each."""

    n: Floats
    d: Floats
    c: Floats
    loss: Floats

    def along(self, other: Floats, at: float) -> float:
        """Return another column at ln N = `at`, by linear regression on ln N."""
        slope, level = np.polyfit(self.n - self.n.mean(), other, 1)
        return float(level + slope * (at - self.n.mean()))

    def parabola(self) -> tuple[Floats, float]:
        """Return coefficients of ln L = p0 x^2 + p1 x + p2 with x = ln N - mean, and the sum of squared residuals."""
        x = self.n - self.n.mean()
        coefficients = np.polyfit(x, self.loss, 2)
        return coefficients, float(((np.polyval(coefficients, x) - self.loss) ** 2).sum())


@dataclass(frozen=True)
class Minimum:
    """The optimum of one budget: ln N*, ln D*, ln C, ln L*, half the curvature, and the standard error of ln N*."""

    n: float
    d: float
    c: float
    loss: float
    curvature: float
    stderr: float


def exponent(flops: Floats, best: Floats, stderr: Floats | None = None) -> tuple[float, float]:
    """Return slope and intercept of ln N* on ln C, by least squares over budgets (B,).

    With `stderr`, standard errors (B,) of ln N*, budgets are weighted by 1 / stderr^2. Raises LawError if a budget
    lacks a value.
    """
    known = (flops > 0) & (best > 0) & np.isfinite(flops) & np.isfinite(best)
    known = known if stderr is None else known & (stderr > 0) & np.isfinite(stderr)
    if not known.all():
        raise LawError(
            f"isoflop: {int((~known).sum())} of {len(known)} budgets lack flops, size or standard error, or have one "
            "that is not above 0; leave them out"
        )
    weights = None if stderr is None else 1 / stderr
    slope, intercept = np.polyfit(np.log(flops), np.log(best), 1, w=weights)
    return float(slope), float(intercept)


def minimum(curve: Curve, kind: str) -> Minimum | None:
    """Return the minimum of ln L over ln N on one curve; None if it is at an end or there are too few sizes."""
    if len(set(curve.n)) < FEWEST:
        return None
    (square, line, level), residuals = curve.parabola()
    if square <= 0:
        return None
    x, free = -line / (2 * square), len(curve.n) - 3
    loss = level + line * x / 2
    error = _vertex_error(curve, square, x, residuals / free) if free else np.nan
    if kind == "akima":
        x, loss = _interpolated(curve)
    at = x + float(curve.n.mean())
    if not curve.n.min() < at < curve.n.max():
        return None
    return Minimum(at, curve.along(curve.d, at), curve.along(curve.c, at), float(loss), float(square), error)


def _vertex_error(curve: Curve, square: float, x: float, variance: float) -> float:
    """Return the standard error of the vertex of a parabola (delta method)."""
    design = np.vander(curve.n - curve.n.mean(), 3)
    gradient = np.array([-x / square, -1 / (2 * square), 0.0])
    return float(np.sqrt(variance * gradient @ np.linalg.pinv(design.T @ design) @ gradient))


def _interpolated(curve: Curve) -> tuple[float, float]:
    """Return the lowest point of the Akima spline through the points: ln N - mean, ln L."""
    from scipy.interpolate import Akima1DInterpolator

    n, first = np.unique(curve.n, return_index=True)
    x = np.linspace(n[0], n[-1], GRID)
    y = Akima1DInterpolator(n, curve.loss[first])(x)
    lowest = int(np.argmin(y))
    return float(x[lowest] - curve.n.mean()), float(y[lowest])


def curves(points: pd.DataFrame, value: str) -> list[Curve]:
    """Return the curve of every budget, from small to large; without a column `tokens`, D = C / 6N.

    Points with the same value of the column `budget` form one curve; without it, points with nearly equal compute.
    """
    from harness.points import column

    flops, params, loss = (column(points, name) for name in ("flops", "params", value))
    if (loss <= 0).any():
        raise LawError(f"isoflop: {value} must be above 0 to take its logarithm, found {loss.min():.4g}")
    tokens = column(points, "tokens") if "tokens" in points.columns else flops / (6 * params)
    order = np.lexsort((params, flops))
    c = np.log(flops)
    budget = (
        column(points, "budget")[order]
        if "budget" in points.columns
        else np.cumsum(np.append(False, np.diff(c[order]) > APART))
    )
    columns = [x[order] for x in (np.log(params), np.log(tokens), c, np.log(loss))]
    groups = [[x[budget == b] for x in columns] for b in np.unique(budget)]
    widest = max(float(np.ptp(group[2])) for group in groups)
    if "budget" not in points.columns and widest > WIDEST:
        raise LawError(
            f"isoflop: no gaps separate the budgets; one group of points spans a factor of {np.exp(widest):.3g} in "
            "compute. Expected points of several sizes at each of a few budgets; assign points in a column budget"
        )
    return [Curve(*(x[np.argsort(group[0], kind="stable")] for x in group)) for group in groups]
