"""Points as a law is fitted to them: one row per checkpoint and task, completed, filtered, pivoted and checked."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError
from harness.fitting.columns import completed, query
from harness.fitting.laws import steps_of
from harness.fitting.runs import DESCRIBES, refuse_twice, two_points
from harness.metrics.intervals import shown_error
from harness.types.laws import Law, traits

OF_METRIC = ("metric", "value", "stderr", "low", "high", "n", "ties")


def prepared(points: pd.DataFrame, law: Law | None, value: str, where: str | None = None) -> pd.DataFrame:
    """Return wide points to fit: completed, filtered, pivoted, and checked, in that order.

    `where` applies to the rows of long points, so that it can choose between rows of one checkpoint, and to wide points
    with the columns of their metrics; it must be applicable to one of them. Raises LawError where nothing is left, or
    two rows are of one checkpoint.
    """
    first = steps_of(law)[0] if law else None
    prepare = traits(first).prepare
    rows = completed(points) if is_long(points) else points
    kept = _where(rows, where) if is_long(points) else None
    wide = rows if kept is None else kept
    if not wide.empty:
        wide = completed(widen(wide), value)
        wide = prepare(wide) if prepare else wide
        again = _where(wide, where)
        wide = again if again is not None else wide if kept is not None else query(wide, str(where))
    if wide.empty:
        raise LawError(
            f"there are no points to fit: {f'none of {len(points)} has {where}' if where else 'none is there'}"
        )
    wide = wide.reset_index(drop=True)
    refuse_twice(wide, getattr(first, "features", ()))
    return wide


def _where(frame: pd.DataFrame, where: str | None) -> pd.DataFrame | None:
    """Return the rows for which an expression holds; None where its columns are not those of the frame."""
    try:
        return query(frame, where) if where else frame
    except UsageError:
        return None


def by_family(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the points of each family, whatever its name is; all of them as "" where there is no column family.

    Raises LawError where the family of some points is missing.
    """
    if "family" not in frame.columns:
        return [("", frame)]
    if frame["family"].isna().any():
        rows = ", ".join(map(str, frame.index[frame["family"].isna()][:5]))
        raise LawError(
            f"family is missing in rows {rows} ({int(frame['family'].isna().sum())} of {len(frame)}); name it, leave "
            "them out, or fit all points together (pool)"
        )
    return sorted(((str(name), own) for name, own in frame.groupby("family", sort=False)), key=lambda own: own[0])


def widen(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per checkpoint and task, with a column per metric; METRIC_stderr, _n, _low and _high beside.

    Points that are wide already come back as they are. Raises LawError where a checkpoint has two values of a metric.
    """
    points = points.reset_index(drop=True)
    if not is_long(points):
        return points
    identity = [name for name in DESCRIBES if name in points.columns and name != "metric"]
    _refuse_two(points, [*identity, "metric"])
    rows: dict[tuple[str, ...], dict[Hashable, object]] = {}
    for point in points.to_dict("records"):
        key = tuple(str(point[name]) for name in identity)
        row = rows.setdefault(key, {k: v for k, v in point.items() if k not in OF_METRIC})
        if point["metric"] in row:
            raise LawError(f"the metric {point['metric']} has the name of a column of the points; rename one of them")
        row[point["metric"]] = point["value"]
        row[f"{point['metric']}_stderr"] = shown_error(*(point.get(k, np.nan) for k in ("stderr", "low", "high")))
        row |= {f"{point['metric']}_{name}": point[name] for name in ("n", "low", "high") if name in point}
    return pd.DataFrame(list(rows.values()))


def is_long(points: pd.DataFrame) -> bool:
    """Say whether points have one row per metric."""
    return {"metric", "value"} <= set(points.columns)


def _refuse_two(points: pd.DataFrame, keys: list[str]) -> None:
    """Raise LawError where two rows are of one checkpoint, task and metric, whether they are equal or not."""
    if points.duplicated(keys).any():
        raise LawError(two_points(points, keys))
