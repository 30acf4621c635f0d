"""Scores of predictive distributions: coverage, width, interval score, CRPS, and errors, beside simple references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from harness.types import Floats

LEVELS: Floats = np.concatenate([[0.005], np.arange(1, 100) / 100, [0.995]])  # of the quantiles that are kept


def interval_score(y: Floats, low: Floats, high: Floats, level: float = 0.9) -> Floats:
    """Return width plus 2 / (1 - level) times the distance of what lies outside (Gneiting and Raftery 2007, eq. 43).

    >>> interval_score(np.array([0.5, 0.7]), np.array([0.4, 0.4]), np.array([0.6, 0.6])).round(3).tolist()
    [0.2, 2.2]
    """
    outside = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return np.asarray(high - low + 2 / (1 - level) * outside)


def crps(y: Floats, quantiles: Floats, levels: Floats = LEVELS) -> Floats:
    """Return the continuous ranked probability score (n,) of quantiles (n, Q): twice the mean pinball loss."""
    error = y[:, None] - quantiles
    pinball = np.maximum(levels * error, (levels - 1) * error)
    return np.asarray(2 * np.trapezoid(pinball, levels, axis=1) / (levels[-1] - levels[0]))


def interval(quantiles: Floats, level: float, levels: Floats = LEVELS) -> tuple[Floats, Floats]:
    """Return the ends (n,) of the central interval of quantiles (n, Q)."""
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = (np.array([np.interp(tail, levels, own) for own in quantiles]) for tail in tails)
    return low, high


def normal_scores(y: Floats, quantiles: Floats, levels: Floats = LEVELS) -> Floats:
    """Return the normal quantile (n,) at which each distribution (n, Q) puts what was measured, within 3.5."""
    normal = stats.norm.ppf(levels)
    slopes = normal[-1] - normal[-2]
    found = np.empty(len(y))
    for i, (value, own) in enumerate(zip(y, quantiles, strict=True)):
        if value < own[0]:
            found[i] = normal[0] - slopes * (own[0] - value) / max(own[1] - own[0], 1e-9)
        elif value > own[-1]:
            found[i] = normal[-1] + slopes * (value - own[-1]) / max(own[-1] - own[-2], 1e-9)
        else:
            left, right = np.searchsorted(own, value, "left"), np.searchsorted(own, value, "right")
            found[i] = np.interp(value, own, normal) if left == right else normal[[left, right - 1]].mean()
    return np.clip(found, -3.5, 3.5)


@dataclass(frozen=True)
class Scores:
    """How n predictions did: `covered` of them lie in their intervals; widths, interval score and CRPS are means."""

    n: int
    level: float
    mae: float
    covered: int
    mean_width: float
    median_width: float
    interval_score: float
    crps: float
    clusters: int = 0

    @property
    def coverage(self) -> float:
        """Return the share covered; NaN of none."""
        return self.covered / self.n if self.n else float("nan")

    @property
    def coverage_interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the share (Wilson's), for as many independent cases as there are clusters."""
        if not self.n:
            return float("nan"), float("nan")
        count = self.clusters or self.n
        found = stats.binomtest(round(self.coverage * count), count).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        if not self.n:
            return "no earlier forecasts"
        low, high = self.coverage_interval
        return (
            f"n {self.n}, covered {self.covered} ({self.coverage:.0%} [{low:.0%}, {high:.0%}]), MAE {self.mae:.3f}, "
            f"width {self.median_width:.3f}, interval score {self.interval_score:.3f}, CRPS {self.crps:.3f}"
        )


def score(
    y: Floats, quantiles: Floats, *, level: float = 0.9, clusters: Sequence[object] = (), levels: Floats = LEVELS
) -> Scores:
    """Score n measured values against quantiles (n, Q); coverage counts `clusters` as what is independent."""
    n = len(y)
    if not n:
        nan = float("nan")
        return Scores(0, level, nan, 0, nan, nan, nan, nan)
    low, high = interval(quantiles, level, levels)
    middle = np.array([np.interp(0.5, levels, own) for own in quantiles])
    inside = (low - 1e-12 <= y) & (y <= high + 1e-12)
    return Scores(
        n=n,
        level=level,
        mae=float(np.abs(y - middle).mean()),
        covered=int(inside.sum()),
        mean_width=float((high - low).mean()),
        median_width=float(np.median(high - low)),
        interval_score=float(interval_score(y, low, high, level).mean()),
        crps=float(crps(y, quantiles, levels).mean()),
        clusters=len(set(clusters)),
    )
