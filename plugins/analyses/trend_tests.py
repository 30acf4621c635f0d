"""Tests of the shape of a curve over scale: direction, U-shape and reversal, over documents and over runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness import Floats, LawError, Range
from harness_plugins.analyses.correlations import permutation_p, spearman
from harness_plugins.analyses.curve_shapes import Quadratic, breakthroughness, linearity, parabola, quadratic
from harness_plugins.analyses.curves import Curve

DRAWS = 5000  # the p of a direction is at least 1 / DRAWS
FEWEST = 3  # runs needed for a trend


@dataclass(frozen=True)
class Trend:
    """The shape of a curve: Spearman's correlation `rho` with log scale, curvature `u` and vertex of a quadratic fit.

    `tests` are three p-values: of the direction (H0: rho is 0), of a U-shape or inverted U (H0: no curvature, a vertex
    outside the range, or a missing arm), and of a reversal (H0: no decrease against the direction). With standard
    errors they are over documents, for these runs. Otherwise they are over the residuals of runs, and NaN for the
    reversal. `over_runs` is always the p of a permutation test of rho.
    """

    curve: Curve
    rho: Range
    u: Range
    vertex: float
    linearity: Range
    breakthroughness: Range
    tests: tuple[float, float, float]
    over_runs: float

    def shape(self, p: Sequence[float], alpha: float) -> str:
        """Return the shape, from the p-values of `tests` corrected for multiple tests."""
        if np.ptp(self.curve.y) == 0:
            return "constant"
        if p[1] < alpha:
            return "U-shaped" if self.u.value > 0 else "inverted U"
        direction = ("rises" if self.rho.value > 0 else "falls") if p[0] < alpha else ""
        turning = "not monotone" if p[2] < alpha else ""
        return ", ".join(filter(None, (direction, turning))) or "undecided"


def trend(curve: Curve, *, level: float = 0.9, seed: int = 0) -> Trend:
    """Test the shape of a curve; raise LawError for fewer than three runs or scales."""
    if len(curve.x) < FEWEST:
        raise LawError(f"{curve.label}: {len(curve.x)} runs; a trend test needs {FEWEST} or more")
    bent, over_runs = quadratic(curve.x, curve.y, level=level), permutation_p(curve.x, curve.y)
    known = curve.covariance is not None
    drawn = curve.draws(DRAWS if known else 2, np.random.default_rng(seed))

    def interval(statistic: Callable[[Floats], Floats]) -> Range:
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(statistic(drawn), tails) if known else (np.nan, np.nan)
        return Range(float(statistic(curve.y)), float(low), float(high))

    bend = np.linalg.pinv(parabola(curve.x))[0]
    return Trend(
        curve=curve,
        rho=interval(partial(spearman, curve.x)),
        u=interval(lambda y: y @ bend) if known else bent.u,
        vertex=bent.vertex,
        linearity=interval(linearity),
        breakthroughness=interval(breakthroughness),
        tests=_of_documents(curve, bent, drawn) if known else (over_runs, _turn_of_residuals(curve, bent), np.nan),
        over_runs=over_runs,
    )


def _of_documents(curve: Curve, bent: Quadratic, drawn: Floats) -> tuple[float, float, float]:
    """Return the p-values of a curve with known errors; the least p of the direction is 1 / DRAWS."""
    rho = spearman(curve.x, drawn)
    direction = min(2 * min((rho <= 0).mean(), (rho >= 0).mean()) + 1 / len(drawn), 1.0)
    curvature = _p(bent.u.value, curve.error(np.linalg.pinv(parabola(curve.x))[0]))
    turn = _inside(curve, bent, max(curvature, _arms(curve, bent.u.value, _rise_over_documents)))
    return float(direction), turn, _reversal(curve)


def _turn_of_residuals(curve: Curve, bent: Quadratic) -> float:
    """Return the p of a U-shape whose errors are those of runs around the parabola; NaN if these are unknown."""
    from scipy.stats import t

    dof = len(curve.x) - 3
    if dof < 1:
        return float("nan")
    residuals = curve.y - parabola(curve.x) @ [bent.u.value, bent.v, bent.w]
    error = float(np.sqrt(2 * (residuals**2).sum() / dof))

    def p(curve: Curve, start: int, end: int, sign: float) -> float:
        rise = sign * float(curve.y[end] - curve.y[start])
        return float(t.sf(rise / error, dof)) if error else float(rise <= 0)

    return _inside(curve, bent, max(bent.p, _arms(curve, bent.u.value, p)))


def _rise_over_documents(curve: Curve, start: int, end: int, sign: float) -> float:
    """Return the p of the hypothesis that a curve does not rise (sign 1) or fall (-1) between two runs."""
    rise, error = curve.step(start, end)
    return _p(sign * rise, error, one_sided=True)


def _inside(curve: Curve, bent: Quadratic, p: float) -> float:
    """Return p if the vertex is within the range of scales, else 1."""
    return p if curve.x.min() < bent.vertex < curve.x.max() else 1.0


def _p(value: float, error: float, *, one_sided: bool = False) -> float:
    """Return the p of the hypothesis that a normal value is 0, or not above 0 (one-sided); an error of 0 is exact."""
    from scipy.stats import norm

    if error == 0:
        return float(value <= 0 if one_sided else value == 0)
    return float(norm.sf(value / error) if one_sided else 2 * norm.sf(abs(value) / error))


def _arms(curve: Curve, u: float, p_of: Callable[[Curve, int, int, float], float]) -> float:
    """Return the p of a missing arm of a U-shape: the ends against the extreme between them, each tested by `p_of`.

    Curvature alone does not show a U-shape, because a curve that levels off has it, too (Simonsohn 2018). p is
    corrected for the M - 2 possible positions of the extreme.
    """
    sign = float(np.sign(u))
    between = 1 + int(np.argmin(sign * curve.y[1:-1]))
    arms = (p_of(curve, between, end, sign) for end in (0, len(curve.y) - 1))
    return min(max(arms) * (len(curve.y) - 2), 1.0)


def _reversal(curve: Curve) -> float:
    """Return the least p of a decrease against the direction, over all pairs (Bonferroni)."""
    sign, m = (1 if spearman(curve.x, curve.y) >= 0 else -1), len(curve.y)
    pairs = [(i, j) for i in range(m) for j in range(i + 1, m) if curve.x[i] < curve.x[j]]
    steps = (curve.step(*pair) for pair in pairs)
    return min(min(_p(-sign * step, error, one_sided=True) for step, error in steps) * len(pairs), 1.0)
