"""Resamples of points (runs, documents or both), and their degrees of freedom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import gamma

from harness.errors import LawError
from harness.fitting.columns import column
from harness.types import Bools, Floats, Ints

MOST_POWER = 3.0  # largest power of weights; with more, a few units dominate each resample


@dataclass(frozen=True)
class Resamples:
    """R resamples of n points: weights (R, n) of the points, and the values (R, n) of columns that are resampled.

    `units` (n,) numbers the independent units. With `noise`, all weights are 1, and points are redrawn around the
    fitted law. Weights are raised to a `power` that increases with the leverage of their unit (`raised`).
    """

    weights: Floats
    columns: dict[str, Floats]
    units: Ints
    noise: np.random.Generator | None = None
    power: float = 0.0

    def of(self, name: str, values: Floats) -> Floats:
        """Return a column in every resample (R, n)."""
        return self.columns.get(name, np.broadcast_to(values, self.weights.shape))

    def at(self, rows: Bools | None) -> Resamples:
        """Return the resamples of some of the points (all for None); points of one unit keep one weight."""
        if rows is None:
            return self
        units = np.asarray(np.unique(self.units[rows], return_inverse=True)[1], dtype=np.int64)
        columns = {name: drawn[:, rows] for name, drawn in self.columns.items()}
        return replace(self, weights=self.weights[:, rows], columns=columns, units=units)

    def raised(self, leverage: Floats) -> Floats:
        """Return the weights (R, n) of mean 1 to the power / (1 - h) for units of leverage h (G,).

        The variance of exponential weights to the power c is about c^2, so that weighted fits spread as the jackknife
        HC3 does (MacKinnon and White 1985). Weights without a power ignore the leverage of the points at the ends.
        """
        if not self.power:
            return self.weights
        power = (self.power / np.maximum(1 - leverage, self.power / MOST_POWER))[self.units]
        found = self.weights**power / gamma(1 + power)
        weights: Floats = found / found.mean(axis=1, keepdims=True)
        return weights


def shared(residuals: Floats, units: Ints) -> float:
    """Return the intraclass correlation of residuals (n,): the share of variance common to a unit (one-way ANOVA)."""
    n, counts = len(residuals), np.bincount(units)
    g = len(counts)
    if not 1 < g < n:
        return 0.0
    means = np.bincount(units, residuals) / counts
    within = float(((residuals - means[units]) ** 2).sum()) / (n - g)
    size = (n - float((counts**2).sum()) / n) / (g - 1)
    between = max((float((counts * means**2).sum()) / (g - 1) - within) / size, 0.0)
    return between / (between + within) if between else 0.0


def freedom(n: int, free: int, units: int) -> int:
    """Return the residual degrees of freedom of n points in so many units after fitting `free` parameters.

    Points of one unit are not independent, so there are at most units - 1, as in cluster-robust tests
    (Cameron and Miller 2015, sec. VI).
    """
    return max(min(n - free, units - 1), 0)


def point_weights(units: Ints, count: int, rng: np.random.Generator) -> Floats:
    """Return exponential weights (count, n) of units (n,): a Bayesian bootstrap (Rubin 1981).

    Every unit keeps a positive weight, so that a ladder of four runs has four runs in every resample.
    """
    return rng.exponential(size=(count, int(units.max()) + 1))[:, units]


def student(dof: int, level: float) -> float:
    """Return Student's quantile divided by the normal one, the correction of percentile intervals for few units."""
    tail = (1 + level) / 2
    return float(stats.t.ppf(tail, max(dof, 1)) / stats.norm.ppf(tail))


def in_common(draws: Floats, values: Floats) -> Floats:
    """Return values (n,) shifted by the mean change over points from resampled documents (R, n).

    Changes at single points are part of the residuals, which resamples of runs already include.
    """
    moved = values + (draws - values).mean(axis=1, keepdims=True)
    found: Floats = np.clip(moved, draws.min(axis=0), draws.max(axis=0))
    return found


def scattered(frame: pd.DataFrame, names: Sequence[str], count: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Return columns redrawn from their standard errors (count, n), for points without documents."""
    found = {}
    for name in names:
        if f"{name}_stderr" not in frame.columns:
            raise LawError(f"resampling documents needs a store, or a column {name}_stderr beside {name}")
        errors = column(frame, f"{name}_stderr")
        found[name] = column(frame, name) + errors * rng.normal(size=(count, len(frame)))
    return found
