"""Points of a table for the report: one row per checkpoint, task and metric, with the columns that figures need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.errors import UsageError, choose
from harness.fitting.columns import completed
from harness.fitting.runs import refuse_twice, runs_of
from harness.fitting.wide_points import is_long
from harness.metrics.intervals import Z
from harness.types import Scalar

NAMES = ("family", "size", "step", "seed")  # of a checkpoint, filled in where a table has none


def table_points(table: pd.DataFrame, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Return long points of a table: family, size, task, metric, value, stderr, low, high, and its scales.

    :param table: long (columns metric and value), or wide with a column per metric (and METRIC_stderr).
    :param metrics: columns of a wide table; without a column task each is a task of its own. For a long table, the
        metrics to keep; all by default.

    Raises UsageError for columns that are missing, LawError for a checkpoint with two rows.
    """
    long = _kept(table, metrics) if is_long(table) else _melted(table, metrics)
    long = completed(long.assign(**{name: _default(long, name) for name in NAMES if name not in long}))
    for name in ("params", "tokens", "flops", "loss"):
        long[name] = pd.to_numeric(long[name], errors="coerce").astype(float) if name in long else np.nan
    if not long[["params", "tokens", "flops", "loss"]].notna().any(axis=None):
        raise UsageError(f"the table has no params, tokens, flops or loss; it has: {choose(table.columns)}; see --map")
    long["task"] = long["task"].fillna("").astype(str) if "task" in long else ""
    long["family"] = long["family"].fillna("").astype(str)
    long["value"] = pd.to_numeric(long["value"], errors="coerce").astype(float)
    refuse_twice(long[long["value"].notna()])
    errors = pd.to_numeric(long["stderr"], errors="coerce") if "stderr" in long else pd.Series(np.nan, long.index)
    ends = {"low": long["value"] - Z * errors, "high": long["value"] + Z * errors}
    ends = {name: long.get(name, column) for name, column in ends.items()}
    return long.assign(stderr=errors, **ends)[long["value"].notna()].reset_index(drop=True)


def _default(long: pd.DataFrame, name: str) -> pd.Series | list[str] | Scalar:
    """Return a column that a table lacks: the size from the parameters or the run, the first seed, no step."""
    if name == "size":
        if "params" in long:
            return pd.to_numeric(long["params"], errors="coerce").map(lambda value: f"{value:.3g}")
        return [f"run {number + 1}" for number in runs_of(long).number]
    defaults: dict[str, Scalar] = {"family": "", "seed": 0, "step": np.nan}
    return defaults[name]


def _kept(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    missing = set(metrics) - set(table["metric"])
    if missing:
        raise UsageError(f"the table has no metric {choose(missing)}; it has: {choose(set(table['metric']))}")
    return table[table["metric"].isin(list(metrics))].copy() if metrics else table.copy()


def _melted(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return a wide table with a row per metric."""
    missing = [name for name in metrics if name not in table.columns]
    if missing or not metrics:
        what = f"no column {choose(missing)}" if missing else "no columns metric and value"
        raise UsageError(f"the table has {what}; name the columns of scores with --metric: {choose(table.columns)}")
    frames = []
    for name in metrics:
        errors = {"stderr": table[f"{name}_stderr"]} if f"{name}_stderr" in table.columns else {}
        tasks = {} if "task" in table.columns else {"task": name}
        frames.append(table.drop(columns=list(metrics)).assign(metric=name, value=table[name], **errors, **tasks))
    return pd.concat(frames, ignore_index=True)
