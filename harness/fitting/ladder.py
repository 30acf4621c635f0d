"""The points that a law is fitted to: from long to wide, ladder and target apart, and resamples of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError, choose, suggest
from harness.fitting.hold_out import held_out
from harness.fitting.runs import DESCRIBES, Runs, runs_of, some, two_points
from harness.metrics.intervals import shown_error
from harness.types import Bools, Floats, Ints

OF_METRIC = ("metric", "value", "stderr", "low", "high", "n", "ties")
COUNTS = ("flops", "params", "tokens")  # of which laws take logarithms
UNITS = ("runs", "checkpoints", "seeds", "documents", "joint")


@dataclass(frozen=True)
class Ladder:
    """Points that a law is fitted to (`points`, n rows) and those held out (`target`); `runs` are those of `points`."""

    points: pd.DataFrame
    target: pd.DataFrame
    runs: Runs

    @classmethod
    def of(cls, frame: pd.DataFrame, hold_out: str | float | None) -> Ladder:
        """Split wide points; runs are told apart before, as the held-out points help to do so."""
        held, runs = held_out(frame, hold_out), runs_of(frame)
        fitted = frame[~held].reset_index(drop=True)
        number = np.unique(runs.number[~held], return_inverse=True)[1]
        own = Runs(np.asarray(number, dtype=np.int64), runs_of(fitted).sizes, runs.columns)
        return cls(fitted, frame[held].reset_index(drop=True), own)

    def units(self, unit: str) -> Ints:
        """Return the number of the unit that each point belongs to (n,); see `units_of`."""
        return units_of(self.points, unit, self.runs)


def widen(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per checkpoint and task, with a column per metric, and METRIC_stderr and METRIC_n beside it.

    Points that are wide already come back as they are. Raises LawError where a checkpoint has two values of a metric.
    """
    points = points.reset_index(drop=True)
    if not is_long(points):
        return points
    identity = [name for name in DESCRIBES if name in points.columns and name != "metric"]
    _refuse_two(points, [*identity, "metric"])
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for point in points.to_dict("records"):
        key = tuple(str(point[name]) for name in identity)
        row = rows.setdefault(key, {str(k): v for k, v in point.items() if k not in OF_METRIC})
        if point["metric"] in row:
            raise LawError(f"the metric {point['metric']} has the name of a column of the points; rename one of them")
        row[point["metric"]] = point["value"]
        row[f"{point['metric']}_stderr"] = shown_error(*(point.get(k, np.nan) for k in ("stderr", "low", "high")))
        row |= {f"{point['metric']}_n": point["n"]} if "n" in point else {}
    return pd.DataFrame(list(rows.values()))


def is_long(points: pd.DataFrame) -> bool:
    """Say whether points have one row per metric."""
    return {"metric", "value"} <= set(points.columns)


def _refuse_two(points: pd.DataFrame, keys: list[str]) -> None:
    """Raise LawError where two rows are of one checkpoint, task and metric, whether they are equal or not."""
    if points.duplicated(keys).any():
        raise LawError(two_points(points, keys))


def column(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column (n,) of finite numbers, above 0 for COUNTS; raise LawError naming the points that have none."""
    if name not in frame.columns:
        raise LawError(f"the points have no column {name!r}; {suggest(name, frame.columns)}")
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
    _refuse(frame, ~np.isfinite(values), f"{name} is missing or not a number", f"{name} == {name}")
    _refuse(frame, (values <= 0) & (name in COUNTS), f"{name} must be above 0, and is not", f"{name} > 0")
    return values


def readable(frame: pd.DataFrame, name: str) -> Any:
    """Return a feature (n,): numbers, NaN where missing; or text. Compute, parameters and tokens must be there."""
    if name in COUNTS or name not in frame.columns:
        return column(frame, name)
    if frame[name].dtype.kind == "f":
        return frame[name].to_numpy(dtype=np.float64)
    numeric = pd.to_numeric(frame[name], errors="coerce")
    is_text = bool((numeric.isna() & frame[name].notna()).any())
    return frame[name].astype(str).to_numpy() if is_text else numeric.to_numpy(dtype=np.float64)


def trials(frame: pd.DataFrame, name: str) -> Floats:
    """Return of how many trials (n,) each rate of a column is the share of successes; raise LawError without them."""
    found = next((c for c in ("trials", f"{name}_n") if c in frame.columns), None)
    if found is None:
        raise LawError(f"counted successes need a column trials (or {name}_n) beside {name}; other objectives do not")
    values = column(frame, found)
    _refuse(frame, (values < 1) | (values % 1 != 0), f"{found} is no count", f"{found} >= 1")
    return values


def _refuse(frame: pd.DataFrame, bad: Bools, why: str, without: str) -> None:
    """Raise LawError where some points are bad, naming the first five."""
    if bad.any():
        raise LawError(f"{why} for {some(frame, bad)}; mend it, or choose where {without!r}")


def units_of(frame: pd.DataFrame, unit: str, runs: Runs | None = None) -> Ints:
    """Return the number of the unit each point belongs to (n,): runs (`runs_of`), points or seeds."""
    if unit not in UNITS:
        raise UsageError(f"resample={unit!r} is none of {choose(UNITS)}")
    if unit in {"runs", "joint"}:
        return (runs or runs_of(frame)).number
    keys = [name for name in ("family", "seed") if name in frame.columns]
    if unit != "seeds" or not keys:
        return np.arange(len(frame))
    return np.asarray(frame.groupby(keys, dropna=False).ngroup(), dtype=np.int64)


def worth(frame: pd.DataFrame, name: str) -> float:
    """Return how many independent documents the rates of a column are worth, by their standard errors; NaN if unknown.

    p (1 - p) / stderr^2 of the median point between 0 and 1; the number of documents where all points are 0 or 1.
    """
    if not {f"{name}_n", f"{name}_stderr"} <= set(frame.columns):
        return float("nan")
    p, n, errors = (pd.to_numeric(frame[c]).to_numpy(np.float64) for c in (name, f"{name}_n", f"{name}_stderr"))
    inside = (p > 0) & (p < 1) & (errors > 0)
    if ((p < 0) | (p > 1)).any() or not np.isfinite(n).all():
        return float("nan")
    return float(np.median(p[inside] * (1 - p[inside]) / errors[inside] ** 2) if inside.any() else np.median(n))
