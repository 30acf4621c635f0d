"""Scores of predictive distributions: coverage, width, interval score, CRPS, and errors, beside simple references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from harness.metrics.intervals import wilson
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
    with np.errstate(over="ignore", invalid="ignore"):  # quantiles of t with one degree of freedom have no bounds
        error = y[:, None] - quantiles
        pinball = np.maximum(levels * error, (levels - 1) * error)
        return np.asarray(2 * np.trapezoid(pinball, levels, axis=1) / (levels[-1] - levels[0]))


def interval(quantiles: Floats, level: float, levels: Floats = LEVELS) -> tuple[Floats, Floats]:
    """Return the ends (n,) of the central interval of quantiles (n, Q)."""
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = (np.array([np.interp(tail, levels, row) for row in quantiles]) for tail in tails)
    return low, high


def normal_scores(y: Floats, quantiles: Floats, levels: Floats = LEVELS) -> Floats:
    """Return the normal quantile (n,) at which each distribution (n, Q) puts what was measured, within 3.5."""
    normal = stats.norm.ppf(levels)
    slopes = normal[-1] - normal[-2]
    scores = np.empty(len(y))
    for i, (value, row) in enumerate(zip(y, quantiles, strict=True)):
        if value < row[0]:
            scores[i] = normal[0] - slopes * (row[0] - value) / max(row[1] - row[0], 1e-9)
        elif value > row[-1]:
            scores[i] = normal[-1] + slopes * (value - row[-1]) / max(row[-1] - row[-2], 1e-9)
        else:
            left, right = np.searchsorted(row, value, "left"), np.searchsorted(row, value, "right")
            scores[i] = np.interp(value, row, normal) if left == right else normal[[left, right - 1]].mean()
    return np.clip(scores, -3.5, 3.5)


@dataclass(frozen=True)
class PredictionScores:
    """How n predictions did: `covered` of them lie in their intervals, and `unbounded` have none; widths, interval
    score and CRPS are means. `last` and `constant` are the mean absolute errors of two references: the value of the
    largest fitted point, and the mean of the fitted points. `r2` is 1 - squared error / that of the mean of what was
    measured; NaN for fewer than 2 values, or equal ones.
    """

    n: int
    level: float
    mae: float
    covered: int
    mean_width: float
    median_width: float
    interval_score: float
    crps: float
    clusters: int = 0
    unbounded: int = 0
    last: float = float("nan")
    constant: float = float("nan")
    r2: float = float("nan")

    @property
    def coverage(self) -> float:
        """Return the share covered of those with an interval; NaN of none."""
        bounded = self.n - self.unbounded
        return self.covered / bounded if bounded else float("nan")

    @property
    def coverage_interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the share (Wilson's), for as many independent cases as there are clusters."""
        bounded = self.n - self.unbounded
        if not bounded:
            return float("nan"), float("nan")
        return wilson(self.coverage, min(self.clusters or bounded, bounded))

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values, None for what is unknown."""
        values = {**asdict(self), "coverage": self.coverage, "coverage_interval": list(self.coverage_interval)}
        return {name: _known(value) for name, value in values.items()}

    def __str__(self) -> str:
        if not self.n:
            return "no earlier forecasts"
        low, high = self.coverage_interval
        bounded = self.n - self.unbounded
        covered = f"covered {self.covered} of {bounded} ({self.coverage:.0%} [{low:.0%}, {high:.0%}])"
        return (
            f"n {self.n}, {covered if bounded else 'no intervals'}, MAE {self.mae:.3f}, mean width "
            f"{self.mean_width:.3f}, median width {self.median_width:.3f}, interval score {self.interval_score:.3f}, "
            f"CRPS {self.crps:.3f}{self._references()}"
        )

    def _references(self) -> str:
        """Return the errors of references as a part of a sentence, and R2."""
        known = {
            name: error for name, error in (("last", self.last), ("constant", self.constant)) if np.isfinite(error)
        }
        said = [f"{name} {error:.3f}" for name, error in known.items()]
        r2 = "" if np.isnan(self.r2) else f"; R2 {self.r2:.3g}{' (worse than their mean)' * (self.r2 < 0)}"
        return f"; MAE of references: {', '.join(said)}{r2}" if said else r2


def _known(value: Any) -> Any:
    if isinstance(value, list):
        return [_known(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


@dataclass(frozen=True)
class References:
    """What two references predict of n values: the largest fitted value, and the mean of the fitted values, (n,)."""

    last: Floats
    constant: Floats

    def errors(self, y: Floats) -> dict[str, float]:
        """Return the mean absolute error of both; NaN where one is unknown."""
        return {name: float(np.abs(y - reference).mean()) for name, reference in vars(self).items()}


def r_squared(y: Floats, predicted: Floats) -> float:
    """Return 1 - squared error / squared error of the mean of y; NaN for fewer than 2 values, or equal ones.

    >>> round(r_squared(np.array([0.0, 1.0]), np.array([0.0, 0.5])), 2)
    0.5
    """
    spread = float(y.var()) if len(y) > 1 else 0.0
    if spread <= 1e-12 * float(np.square(y).max(initial=0.0)):
        return float("nan")
    return 1 - float(np.mean((y - predicted) ** 2)) / spread


def score(
    y: Floats,
    quantiles: Floats,
    *,
    level: float = 0.9,
    clusters: Sequence[object] = (),
    levels: Floats = LEVELS,
    references: References | None = None,
) -> PredictionScores:
    """Score n measured values against quantiles (n, Q); coverage counts `clusters` as what is independent."""
    low, high = interval(quantiles, level, levels) if len(y) else (y, y)
    middle = np.array([np.interp(0.5, levels, row) for row in quantiles])
    return score_intervals(
        y, middle, low, high, crps(y, quantiles, levels), level=level, clusters=clusters, references=references
    )


def score_intervals(
    y: Floats,
    predicted: Floats,
    low: Floats,
    high: Floats,
    own_crps: Floats,
    *,
    level: float,
    clusters: Sequence[object] = (),
    references: References | None = None,
) -> PredictionScores:
    """Score n measured values against predictions and intervals (n,), NaN where there is none, and their CRPS (n,)."""
    if not len(y):
        nan = float("nan")
        return PredictionScores(0, level, nan, 0, nan, nan, nan, nan)
    bounded = np.isfinite(low) & np.isfinite(high)
    inside = bounded & (low - 1e-12 <= y) & (y <= high + 1e-12)
    widths = (high - low)[bounded]
    misses = interval_score(y[bounded], low[bounded], high[bounded], level)
    return PredictionScores(
        n=len(y),
        level=level,
        mae=float(np.abs(y - predicted).mean()),
        covered=int(inside.sum()),
        mean_width=_mean(widths),
        median_width=float(np.median(widths)) if len(widths) else float("nan"),
        interval_score=_mean(misses),
        crps=_mean(own_crps[np.isfinite(own_crps)]),
        clusters=len(set(clusters)),
        unbounded=int((~bounded).sum()),
        r2=r_squared(y, predicted),
        **(references.errors(y) if references else {}),
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")
