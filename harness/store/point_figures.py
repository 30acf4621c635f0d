"""The figure of points: every checkpoint over its scale, without a law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.charts import POINT, SCALES, scaling_chart
from harness.errors import UsageError, choose
from harness.types import checkpoint_label

if TYPE_CHECKING:
    from harness.charts import Chart


def points_chart(points: pd.DataFrame, task: str | None = None, *, x: str = "flops", log_x: bool = True) -> Chart:
    """Return the chart of points of one metric per task, of all tasks or of one; x is a column of them.

    Raises UsageError where no point is of the task, or has the column x.
    """
    shown = points if task is None else points[points["task"] == task]
    if shown.empty:
        raise UsageError(f"there are no points of task {task!r}; there are: {choose(set(points['task']))}")
    scale = pd.to_numeric(shown[x], errors="coerce") if x in shown.columns else pd.Series(np.nan, shown.index)
    if not (scale > 0).any():
        raise UsageError(f"no point has {x!r}; choose another x of {choose(SCALES)}")
    labels = [_label(row) for row in shown.to_dict("records")]
    rows = shown[["task", "family", "value", "low", "high"]].assign(**{x: scale}, label=labels, kind=POINT)
    metrics = set(shown["metric"])
    return scaling_chart(rows[scale > 0], x=x, value=min(metrics) if len(metrics) == 1 else "score", log_x=log_x)


def _label(row: Mapping[Any, Any]) -> str:
    """Return the name of a checkpoint: its column label, or family:size@step#seed."""
    if isinstance(row.get("label"), str):
        return str(row["label"])
    step = row.get("step")
    return checkpoint_label(row["family"], row["size"], None if pd.isna(step) else int(float(str(step))), row["seed"])
