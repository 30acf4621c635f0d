"""A ladder: the points that one law is fitted to, split from the held-out points, with their runs and replicates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.errors import UsageError, choose
from harness.fitting.columns import check_units, column
from harness.fitting.hold_out import held_out
from harness.fitting.laws import steps_of
from harness.fitting.options import Options
from harness.fitting.resampling import Resamples, freedom, in_common, point_weights, scattered, student
from harness.fitting.runs import Runs, label, runs_of, sizes_of
from harness.fitting.step_rows import step_rows
from harness.store.points import PointStore
from harness.types import Bools, Floats, Ints
from harness.types.laws import ComposedLaw, Law, ProcedureLaw, traits

UNITS = ("runs", "checkpoints", "seeds", "documents", "joint")
FEW_UNITS = 10  # per parameter: with fewer units, points are redrawn around the law; otherwise units are weighted
LABELS = ("family", "task", "flops_convention", "tokens_convention")


class Split(NamedTuple):
    """What of wide points is fitted: the value, the column between two steps, held-out points, and their store."""

    value: str
    via: str | None = None
    hold_out: str | float | None = None
    store: PointStore | None = None


@dataclass(frozen=True)
class Ladder:
    """Points to fit (`points`, n rows) and held-out points (`target`, m rows), read once; the fit only reads it.

    `columns` are the measured columns in the order of the law's steps, the last of them `value`. For formulas, `arrays`
    has the features and measured columns (n,), and `ahead` the features (m,) of the held-out points; `held` is their
    measured value (m,), `names` are their labels. `rows` are the points of each step (none: all), `runs` the runs of
    `points`. `replicates` are measured columns (R, n) in resamples of their documents. `labels` are the family, task
    and conventions that all points share; `worth` is the effective number of documents of rates, NaN if unknown.
    `warnings` are about units.
    """

    points: pd.DataFrame
    target: pd.DataFrame
    runs: Runs
    columns: tuple[str, ...]
    arrays: Mapping[str, Floats]
    ahead: Mapping[str, Floats]
    held: Floats
    names: tuple[str, ...]
    rows: tuple[Bools | None, ...]
    replicates: dict[str, Floats]
    labels: dict[str, str]
    worth: float
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, frame: pd.DataFrame, law: Law, options: Options, how: Split) -> Ladder:
        """Split wide points and read them. Runs are identified before the split, because held-out points help."""
        held, runs = held_out(frame, how.hold_out), runs_of(frame)
        points, target = frame[~held].reset_index(drop=True), frame[held].reset_index(drop=True)
        number = np.unique(runs.number[~held], return_inverse=True)[1]
        of_points = Runs(np.asarray(number, dtype=np.int64), sizes_of(points), runs.columns)
        columns = ((how.via or law.via), how.value) if isinstance(law, ComposedLaw) else (how.value,)
        if traits(law).uses_unscored and how.value in target:
            target = target[target[how.value].notna()].reset_index(drop=True)
        names = tuple(label(row) for _, row in target.iterrows())
        warnings = check_units(frame, [name for step in steps_of(law) for name in step.features])
        is_rate = traits(steps_of(law)[-1]).value_range == (0.0, 1.0)
        is_formula, features = not isinstance(law, ProcedureLaw), steps_of(law)[0].features
        arrays = {name: column(points, name) for name in (*columns, *features)} if is_formula else {}
        measured = column(target, how.value) if len(target) else np.empty(0)
        ahead = {name: column(target, name) for name in features} if is_formula and len(target) else {}
        return cls(
            points,
            target,
            of_points,
            columns,
            arrays,
            ahead,
            measured,
            names,
            step_rows(points, law, options),
            _replicates(points, columns, options, how.store),
            _labels(points),
            _worth(points, how.value) if is_rate else float("nan"),
            warnings,
        )

    def resamples(self, parameters: int, options: Options) -> Resamples:
        """Return resamples for formulas: redraw the points of few units around the law, weight many units."""
        unit, rng = str(options.resample), np.random.default_rng(options.seed)
        units, n = units_of(self.points, unit, self.runs), len(self.points)
        redrawn = unit != "documents" and len(set(units)) < FEW_UNITS * parameters
        if redrawn or unit == "documents":
            return Resamples(np.ones((options.bootstrap, n)), self.replicates, units, rng if redrawn else None)
        power = student(freedom(n, parameters, len(set(units))), options.level)
        weights = point_weights(units, options.bootstrap, rng)
        return Resamples(weights, self._common(options), units, power=power)

    def redraws(self, options: Options) -> Resamples:
        """Return resamples for procedures, which draw units themselves."""
        units = units_of(self.points, str(options.resample), self.runs)
        return Resamples(np.ones((options.bootstrap, len(self.points))), self._common(options), units)

    def weighted(self, weights: Floats) -> Resamples:
        """Return resamples with given weights (R, n); raise UsageError for another shape or negative weights."""
        weights, n = np.asarray(weights, dtype=np.float64), len(self.points)
        if weights.ndim != 2 or weights.shape[1] != n or not (weights >= 0).all():
            raise UsageError(f"weights of shape {weights.shape}: expected (resamples, {n}) numbers of 0 or more")
        return Resamples(weights, {}, np.arange(n))

    def _common(self, options: Options) -> dict[str, Floats]:
        """Return replicates to combine with resampled runs, whose scatter already contains their noise per point."""
        if options.resample != "joint":
            return self.replicates
        return {name: in_common(draws, column(self.points, name)) for name, draws in self.replicates.items()}


def units_of(frame: pd.DataFrame, unit: str, runs: Runs | None = None) -> Ints:
    """Return the number of the unit that each point belongs to (n,): runs (`runs_of`), points or seeds."""
    if unit not in UNITS:
        raise UsageError(f"resample={unit!r} is none of {choose(UNITS)}")
    if unit in {"runs", "joint"}:
        return (runs or runs_of(frame)).number
    keys = [name for name in ("family", "seed") if name in frame.columns]
    if unit != "seeds" or not keys:
        return np.arange(len(frame))
    return np.asarray(frame.groupby(keys, dropna=False).ngroup(), dtype=np.int64)


def _replicates(
    points: pd.DataFrame, columns: tuple[str, ...], options: Options, store: PointStore | None
) -> dict[str, Floats]:
    """Return the measured columns in resamples of their documents, if the options ask for them."""
    if options.resample not in {"documents", "joint"}:
        return {}
    rng, count = np.random.default_rng([options.seed, 1]), options.bootstrap
    if store is None or "fingerprint" not in points.columns:
        return scattered(points, columns, count, rng)
    return store.replicates(points, columns, count, rng)


def _labels(points: pd.DataFrame) -> dict[str, str]:
    """Return family, task and conventions that all points share."""
    shared = [name for name in LABELS if name in points and len(set(points[name])) == 1]
    return {name: str(points[name].iloc[0]) for name in shared}


def _worth(points: pd.DataFrame, name: str) -> float:
    """Return the effective number of documents of the rates, from their standard errors; NaN if unknown.

    p (1 - p) / stderr^2 of the median point between 0 and 1; the number of documents if all points are 0 or 1.
    """
    if not {f"{name}_n", f"{name}_stderr"} <= set(points.columns):
        return float("nan")
    p, n, errors = (pd.to_numeric(points[c]).to_numpy(np.float64) for c in (name, f"{name}_n", f"{name}_stderr"))
    inside = (p > 0) & (p < 1) & (errors > 0)
    if ((p < 0) | (p > 1)).any() or not np.isfinite(n).all():
        return float("nan")
    return float(np.median(p[inside] * (1 - p[inside]) / errors[inside] ** 2) if inside.any() else np.median(n))
