"""Power laws besides those of `harness fit`: of the Pareto frontier of compute, and of pass rates in model size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, LawError, Range
from harness_plugins.analyses.curve_shapes import parabola


@dataclass(frozen=True)
class Scaling:
    """Slope -alpha and curvature of F = ln(-ln pass rate) over ln N, and the verdict on the power law."""

    alpha: Range
    curvature: Range
    kind: str


def pass_scaling(
    params: Floats,
    successes: Ints,
    trials: Ints,
    *,
    level: float = 0.9,
    resamples: int = 2000,
    seed: int = 0,
) -> Scaling:
    """Test whether pass rates at sizes N (M,) follow exp(-c N^-alpha), from counts (M,) (after Hu et al. 2024).

    The law is a line of F in ln N ("normal"). A convex F is "sub-scaling", a concave F "super-scaling" (accelerated
    emergence). Intervals are from draws of each rate from Jeffreys' Beta(c + 1/2, n - c + 1/2), so that a rate without
    successes has little weight. The quadratic fit weights sizes by the inverse standard deviation of their draws. The
    verdict is "undetermined" if the interval of the curvature covers 0 and includes a curvature that doubles or
    cancels the slope over the range of sizes. Counts are those of one problem, or of the same problems at every size,
    pooled; the intervals do not include the sampling of problems. Raises LawError for fewer than three sizes.
    """
    x = np.log(np.asarray(params, dtype=np.float64))
    design, n = parabola(x - x.mean()), np.asarray(trials, dtype=np.float64)
    c = np.asarray(successes, dtype=np.float64)
    rate = np.random.default_rng(seed).beta(c + 0.5, n - c + 0.5, size=(resamples, len(x)))
    drawn = np.log(-np.log(np.clip(rate, 1e-300, 1 - 1e-16)))
    best = np.log(-np.log((c + 0.5) / (n + 1)))
    weight = 1 / drawn.std(axis=0)
    bend, slope = (np.linalg.pinv(d * weight[:, None]) * weight for d in (design, design[:, 1:]))
    curvature, alpha = (
        _range(bend[0] @ best, drawn @ bend[0], level),
        _range(-slope[0] @ best, -drawn @ slope[0], level),
    )
    return Scaling(alpha, curvature, _kind(curvature, alpha, float(np.ptp(x))))


def _kind(curvature: Range, alpha: Range, width: float) -> str:
    if curvature.low > 0:
        return "sub-scaling"
    if curvature.high < 0:
        return "super-scaling"
    far = abs(alpha.value) / width  # the slope at the ends differs from that in the middle by curvature x width
    return "normal" if max(-curvature.low, curvature.high) < far else "undetermined"


def _range(value: float, draws: Floats, level: float) -> Range:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Range(float(value), float(low), float(high))


@dataclass(frozen=True)
class ParetoPower:
    """y = a C^b, fitted by least squares in logarithms to the Pareto frontier (n,) of error and compute."""

    a: float
    b: float
    flops: Floats
    best: Floats

    def curve(self, flops: Floats) -> Floats:
        """Return y at some compute."""
        return np.asarray(self.a * np.asarray(flops, dtype=np.float64) ** self.b)


def pareto_power(flops: Floats, errors: Floats, *, up_to: float = 1.0) -> ParetoPower:
    """Fit a power law to the Pareto frontier of error and compute (as Cherti et al. 2023).

    :param up_to: the quantile of the frontier's compute up to which points are fitted; the others can be predicted.

    `flops` and `best` of the result are the whole frontier. Raises LawError for values of 0 or below, and for fewer
    than two fitted points.
    """
    flops, errors = np.asarray(flops, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if not ((flops > 0) & (errors > 0)).all():
        raise LawError("a power law needs compute and errors above 0; exclude the other points")
    budgets = np.unique(flops)
    best = np.minimum.accumulate([errors[flops == budget].min() for budget in budgets])
    ahead = np.append(True, np.diff(best) < 0)
    budgets, best = budgets[ahead], best[ahead]
    seen = budgets <= np.quantile(budgets, up_to)
    if seen.sum() < 2:
        raise LawError(f"{int(seen.sum())} budgets up to the quantile {up_to:g}; a power law needs 2 or more")
    b, a = np.polyfit(np.log(budgets[seen]), np.log(best[seen]), 1)
    return ParetoPower(float(np.exp(a)), float(b), budgets, best)
