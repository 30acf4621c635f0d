"""Frames of points: their columns, order, and redrawn values of imported points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.errors import choose, suggest
from harness.metrics.intervals import Z
from harness.store.cells import Cell
from harness.types import Bools, Floats

KEYS = ["family", "size", "step", "seed"]
OF_POINTS = (
    "params", "tokens", "flops", "loss", "stderr", "low", "high", "n", "ties", "truncated", "chance", "engine",
    "dtype", "settings", "fingerprint", "checkpoint",
)  # fmt: skip


def with_all_columns(points: pd.DataFrame) -> pd.DataFrame:
    """Return imported points with the columns of measured ones; unknown values are missing.

    Intervals are computed from standard errors; intervals of rates stay between 0 and 1.
    """
    if points.empty:
        return points
    unknown = [name for name in OF_POINTS if name not in points.columns]
    frame = points.assign(**dict.fromkeys(unknown, np.nan))
    is_rate = (frame["value"] >= 0) & (frame["value"] <= 1)
    for name, sign in (("low", -1), ("high", 1)):
        end = frame["value"] + sign * Z * frame["stderr"]
        frame[name] = frame[name].fillna(end.where(~is_rate, end.clip(0, 1)))
    return frame


def without_cell(points: pd.DataFrame) -> Bools:
    """Mark points (n,) that were not measured here."""
    if "checkpoint" not in points.columns:
        return np.ones(len(points), dtype=np.bool_)
    return points["checkpoint"].isna().to_numpy(dtype=np.bool_)


def redrawn(points: pd.DataFrame, name: str, count: int, rng: np.random.Generator) -> Floats:
    """Return normal draws (count, n) of a column of wide points, from its standard errors."""
    if points.empty:
        return np.empty((count, 0))
    values, errors = (pd.to_numeric(points[c]).to_numpy(dtype=np.float64) for c in (name, f"{name}_stderr"))
    return np.asarray(values + np.nan_to_num(errors) * rng.standard_normal((count, len(values))))


def ordered(points: pd.DataFrame) -> pd.DataFrame:
    """Return points in the order of checkpoints, tasks and metrics."""
    keys = [name for name in (*KEYS, "task", "metric") if name in points.columns]
    return points.sort_values(keys, kind="stable", ignore_index=True)


def what_is_missing(cells: Sequence[Cell], task: str | None, family: str | None) -> str:
    """Return the reason why no cell matches a task and a family, with suggestions."""
    tasks, families = {c.task for c in cells}, {c.checkpoint.family for c in cells}
    if task is not None and task not in tasks:
        return f"has no records of task {task!r}; {suggest(task, tasks)}"
    if family is not None and family not in families:
        return f"has no records of family {family!r}; {suggest(family, families)}"
    where = f" of task {task or '(any)'} and family {family or '(any)'}" if task or family else ""
    return f"has no records{where}; it has tasks {choose(tasks)} of families {choose(families)}"
