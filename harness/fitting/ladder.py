"""A ladder: the points that one law is fitted to, split from the held-out points, with their runs and resamples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.fitting.columns import arrays, check_errors, check_units, effective_documents, shared_labels
from harness.fitting.hold_out import held_out, hold_out_notes
from harness.fitting.laws import steps_of
from harness.fitting.options import Options
from harness.fitting.resampling import MeasuredPoints, Resamples, resamples_of
from harness.fitting.runs import ORDER, Runs, label, numeric, runs_of, sizes_of
from harness.fitting.step_rows import step_rows
from harness.fitting.wide_points import prepared
from harness.store.points import PointStore
from harness.types import Bools, Floats, Ints
from harness.types.laws import ComposedLaw, Law, ProcedureLaw, traits


class PointSelection(NamedTuple):
    """Which points are fitted: the value, the column between two steps, a filter, held-out points, and their store."""

    value: str
    via: str | None = None
    where: str | None = None
    hold_out: str | float | None = None
    store: PointStore | None = None
    weights: Floats | None = None


@dataclass(frozen=True)
class Ladder:
    """Points to fit (`points`, n rows) and held-out points (`target`, m rows), read once; the fit only reads it.

    `columns` are the measured columns in the order of the law's steps, the last of them `value`. For formulas, `arrays`
    has the features and measured columns (n,), and `ahead` the features (m,) of the held-out points; `held` is their
    measured value (m,), `held_runs` (m,) number their runs, `names` are their labels. `numbers` are the value and the
    columns of scale (n,), NaN where missing. `rows` are the points of each step (none: all), `runs` the runs of
    `points`, and `resamples` their resamples. `labels` are the family, task and conventions that all points share;
    `worth` is the effective number of documents of rates, NaN if unknown. `warnings` are about units and held-out
    sizes.
    """

    points: pd.DataFrame
    target: pd.DataFrame
    runs: Runs
    names: tuple[str, ...]
    numbers: Mapping[str, Floats]
    columns: tuple[str, ...]
    arrays: Mapping[str, Floats]
    ahead: Mapping[str, Floats]
    held: Floats
    held_runs: Ints
    labels: dict[str, str]
    worth: float
    warnings: tuple[str, ...]
    rows: tuple[Bools | None, ...]
    resamples: Resamples

    @classmethod
    def of(cls, table: pd.DataFrame, law: Law, options: Options, asked: PointSelection) -> Ladder:
        """Complete, filter, pivot and check a table, split it, and read both parts.

        Runs are identified before the split, because held-out points help.
        """
        frame, value, steps = prepared(table, law, asked.value, asked.where), asked.value, steps_of(law)
        notes, held, runs = hold_out_notes(frame, asked.hold_out), held_out(frame, asked.hold_out), runs_of(frame)
        points, target = frame[~held].reset_index(drop=True), frame[held].reset_index(drop=True)
        target_rows = np.arange(len(target))
        if traits(law).uses_unscored and value in target:
            target_rows = np.flatnonzero(target[value].notna())
            target = target.iloc[target_rows].reset_index(drop=True)
        of_points, names = runs.at(~held, sizes_of(points)), tuple(label(row) for _, row in target.iterrows())
        numbers = {name: numeric(points, name) for name in {"params", *ORDER, value} & set(points.columns)}
        columns = ((asked.via or law.via), value) if isinstance(law, ComposedLaw) else (value,)
        features = () if isinstance(law, ProcedureLaw) else steps[0].features
        measured = MeasuredPoints(points, of_points, columns, asked.store)
        check_errors(frame, columns)
        warnings = (*check_units(frame, [name for step in steps for name in step.features]), *notes)
        return cls(
            points=points,
            target=target,
            runs=of_points,
            names=names,
            numbers=numbers,
            columns=columns,
            arrays=arrays(points, (*columns, *features) if features else ()),
            held=arrays(target, [value])[value] if len(target) else np.empty(0),
            held_runs=runs.number[np.flatnonzero(held)[target_rows]],
            ahead=arrays(target, features if len(target) else ()),
            labels=shared_labels(points),
            worth=effective_documents(points, value) if traits(steps[-1]).value_range == (0.0, 1.0) else float("nan"),
            warnings=warnings,
            rows=step_rows(points, law, options) if options.of_steps else (),
            resamples=resamples_of(law, measured, options, asked.weights),
        )

    def at(self, rows: Bools) -> Ladder:
        """Return the ladder with some of its points, for warnings; steps and resamples are those of all points."""
        return replace(
            self,
            points=self.points[rows].reset_index(drop=True),
            runs=self.runs.at(rows, sizes_of(self.points[rows])),
            numbers={name: values[rows] for name, values in self.numbers.items()},
            arrays={name: values[rows] for name, values in self.arrays.items()},
        )
