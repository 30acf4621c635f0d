"""Statistics of the shape of a curve: quadratic fit, linearity and breakthroughness.

Curves are (M,), or (..., M) for several at once, ordered by scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness import Floats, LawError, Range

CLIP = 100.0  # breakthroughness if more than half of the steps are 0
ROUNDING = 1e-12  # share of the largest value: a smaller bend is an error of rounding


@dataclass(frozen=True)
class Quadratic:
    """y = u x^2 + v x + w by least squares, and the p of u = 0 (Student's t, M - 3 degrees of freedom; NaN at 3)."""

    u: Range
    v: float
    w: float
    p: float

    @property
    def vertex(self) -> float:
        """Return x at the extreme; NaN for a line."""
        return -self.v / (2 * self.u.value) if self.u.value else float("nan")


def quadratic(x: Floats, y: Floats, *, level: float = 0.95) -> Quadratic:
    """Fit a parabola to a curve (M,), with the interval of its curvature from the residuals.

    Raises LawError for fewer than three scales.
    """
    from scipy.stats import t

    design = parabola(x)
    weights = np.linalg.pinv(design)  # (3, M)
    u, v, w = weights @ y
    u = u if abs(u) * np.ptp(x) ** 2 > ROUNDING * np.abs(y).max() else 0.0
    dof = len(x) - 3
    if dof < 1:
        return Quadratic(Range(float(u), np.nan, np.nan), float(v), float(w), float("nan"))
    scatter = np.sqrt(((y - design @ [u, v, w]) ** 2).sum() / dof)
    error = float(scatter * np.linalg.norm(weights[0]))
    half = error * float(t.ppf((1 + level) / 2, dof))
    p = float(2 * t.sf(abs(u) / error, dof)) if error else float(u == 0)
    return Quadratic(Range(float(u), float(u - half), float(u + half)), float(v), float(w), p)


def parabola(x: Floats) -> Floats:
    """Return the design matrix (M, 3) of a parabola; raise LawError for fewer than three scales."""
    if len(set(x)) < 3:
        raise LawError(f"{len(set(x))} scales; a quadratic fit needs 3 or more")
    return np.stack([x**2, x, np.ones_like(x)], axis=1)


def impact(y: Floats) -> Floats:
    """Return the range of curves (..., M), negative if the maximum precedes the minimum."""
    sign = np.sign(y.argmax(-1) - y.argmin(-1))
    return np.asarray(sign * np.ptp(y, axis=-1))


def linearity(y: Floats) -> Floats:
    """Return the impact of curves (..., M) over the root mean square of their steps (after Srivastava et al. 2022).

    Not normalised by the number of points: a line of M points has M - 1, a single step sqrt(M - 1).

    >>> linearity(np.array([0.0, 0.25, 0.5, 0.75, 1.0])).item()
    4.0
    """
    steps = np.sqrt((np.diff(y, axis=-1) ** 2).mean(-1))
    return np.where(steps > 0, impact(y) / np.where(steps > 0, steps, 1.0), 0.0)


def breakthroughness(y: Floats) -> Floats:
    """Return the impact of curves (..., M) over the root of the median squared step (after Srivastava et al. 2022).

    Large if one step makes most of the range; +-100 if more than half of the steps are 0.

    >>> breakthroughness(np.array([0.0, 0.1, 0.1, 0.2, 0.9])).round(6).item()
    9.0
    """
    steps = np.sqrt(np.median(np.diff(y, axis=-1) ** 2, axis=-1))
    return np.where(steps > 0, impact(y) / np.where(steps > 0, steps, 1.0), CLIP * np.sign(impact(y)))
