"""Resamples of points (runs, documents or both), and their degrees of freedom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import gamma

from harness.errors import LawError, UsageError, choose
from harness.fitting.columns import column
from harness.fitting.options import Options
from harness.fitting.runs import Runs, runs_of
from harness.store.points import PointStore
from harness.types import Bools, Floats, Ints
from harness.types.laws import ComposedLaw, Law, ProcedureLaw

UNITS = ("runs", "checkpoints", "seeds", "documents", "joint")
FEW_UNITS = 10  # per parameter: with fewer units, points are redrawn around the law; otherwise units are weighted
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
        scaled = self.weights**power / gamma(1 + power)
        weights: Floats = scaled / scaled.mean(axis=1, keepdims=True)
        return weights


class MeasuredPoints(NamedTuple):
    """Measured points: n rows, their runs, the measured columns, and the store of their documents."""

    points: pd.DataFrame
    runs: Runs
    columns: tuple[str, ...]
    store: PointStore | None = None


def resamples_of(law: Law, measured: MeasuredPoints, options: Options, weights: Floats | None = None) -> Resamples:
    """Return the resamples of points for a law: of units, or with given weights (R, n), which are for formulas only."""
    if isinstance(law, ProcedureLaw):
        if weights is not None:
            raise UsageError(f"law {law.name!r} is a procedure; weights are for formulas")
        return _for_procedure(measured, options)
    if weights is not None:
        return _given(weights, len(measured.points))
    steps = law.steps if isinstance(law, ComposedLaw) else (law,)
    return _for_formula(measured, max(len(step.parameters) for step in steps), options)


def _for_formula(measured: MeasuredPoints, parameters: int, options: Options) -> Resamples:
    """Return resamples for a formula: redraw the points of few units around the law, weight many units."""
    unit, rng = str(options.resample), np.random.default_rng(options.seed)
    replicates = _replicates(measured, options)
    units, n = units_of(measured.points, unit, measured.runs), len(measured.points)
    redrawn = unit != "documents" and len(set(units)) < FEW_UNITS * parameters
    if redrawn or unit == "documents":
        return Resamples(np.ones((options.bootstrap, n)), replicates, units, rng if redrawn else None)
    power = student(freedom(n, parameters, len(set(units))), options.level)
    weights = point_weights(units, options.bootstrap, rng)
    return Resamples(weights, _common(measured, replicates, options), units, power=power)


def _for_procedure(measured: MeasuredPoints, options: Options) -> Resamples:
    """Return resamples for a procedure, which draws units itself."""
    replicates = _replicates(measured, options)
    units = units_of(measured.points, str(options.resample), measured.runs)
    weights = np.ones((options.bootstrap, len(measured.points)))
    return Resamples(weights, _common(measured, replicates, options), units)


def _given(weights: Floats, n: int) -> Resamples:
    """Return resamples with given weights (R, n); raise UsageError for another shape or negative weights."""
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim != 2 or weights.shape[1] != n or not (weights >= 0).all():
        raise UsageError(f"weights of shape {weights.shape}: expected (resamples, {n}) numbers of 0 or more")
    return Resamples(weights, {}, np.arange(n))


def _common(measured: MeasuredPoints, replicates: dict[str, Floats], options: Options) -> dict[str, Floats]:
    """Return replicates to combine with resampled runs, whose scatter already contains their noise per point."""
    if options.resample != "joint":
        return replicates
    return {name: in_common(draws, column(measured.points, name)) for name, draws in replicates.items()}


def _replicates(measured: MeasuredPoints, options: Options) -> dict[str, Floats]:
    """Return the measured columns in resamples of their documents, if the options ask for them."""
    if options.resample not in {"documents", "joint"}:
        return {}
    points, columns, store = measured.points, measured.columns, measured.store
    rng, count = np.random.default_rng([options.seed, 1]), options.bootstrap
    if store is None or "fingerprint" not in points.columns:
        return scattered(points, columns, count, rng)
    return store.replicates(points, columns, count, rng)


def units_of(frame: pd.DataFrame, unit: str, runs: Runs | None = None) -> Ints:
    """Return the number of the unit that each point belongs to (n,): runs (`runs_of`), points or seeds."""
    if unit not in UNITS:
        raise UsageError(f"resample={unit!r}; expected one of {choose(UNITS)}")
    if unit in {"runs", "joint"}:
        return (runs or runs_of(frame)).number
    keys = [name for name in ("family", "seed") if name in frame.columns]
    if unit != "seeds" or not keys:
        return np.arange(len(frame))
    return np.asarray(frame.groupby(keys, dropna=False).ngroup(), dtype=np.int64)


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
    bounded: Floats = np.clip(moved, draws.min(axis=0), draws.max(axis=0))
    return bounded


def scattered(frame: pd.DataFrame, names: Sequence[str], count: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Return columns redrawn from their standard errors (count, n), for points without documents."""
    columns = {}
    for name in names:
        if f"{name}_stderr" not in frame.columns:
            raise LawError(f"resampling documents needs a store, or a column {name}_stderr beside {name}")
        errors = column(frame, f"{name}_stderr")
        columns[name] = column(frame, name) + errors * rng.normal(size=(count, len(frame)))
    return columns
