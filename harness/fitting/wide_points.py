"""Points as a law is fitted to them: one row per checkpoint and task, completed, filtered, pivoted and checked."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import numpy as np
import pandas as pd

from harness.checkpoints.flops import training_flops
from harness.errors import LawError, UsageError
from harness.fitting.columns import query
from harness.fitting.laws import steps_of
from harness.fitting.runs import DESCRIBES, refuse_twice, two_points
from harness.metrics.intervals import shown_error
from harness.types.laws import Law, traits

FILLED = "6ND, filled in"  # convention of FLOPs that the harness computed
FILLED_TOKENS = "C / 6N, filled in"  # convention of tokens that the harness computed
OF_METRIC = ("metric", "value", "stderr", "low", "high", "n", "ties")


def prepared(points: pd.DataFrame, law: Law | None, value: str, where: str | None = None) -> pd.DataFrame:
    """Return wide points to fit: completed, filtered, pivoted, and checked, in that order.

    `where` is applied to the rows of long points, so that it can select one of several rows of a checkpoint, and to
    wide points, which have columns of metrics; it must be valid for one of them. Raises LawError if no point remains,
    or a checkpoint has two rows.
    """
    first = steps_of(law)[0] if law else None
    prepare = traits(first).prepare
    kept, wide = None, points.reset_index(drop=True)
    if is_long(points):
        rows = completed(points)
        kept = matching(rows, where)
        wide = rows if kept is None else kept
        wide = wide if wide.empty else widen(wide)
    if not wide.empty:
        wide = completed(wide, value)
        wide = prepare(wide) if prepare else wide
        again = matching(wide, where)
        wide = again if again is not None else wide if kept is not None else query(wide, str(where))
    if wide.empty:
        why = f"{where!r} selects 0 of {len(points)} rows" if where else "the table is empty"
        raise LawError(f"there are no points to fit: {why}")
    wide = wide.reset_index(drop=True)
    refuse_twice(wide, getattr(first, "features", ()))
    return wide


def completed(points: pd.DataFrame, value: str | None = None) -> pd.DataFrame:
    """Return points with columns that follow from others: flops (6 N D) or tokens (C / 6 N), and rates.

    A column is filled in only if it is missing in all rows; its convention is then FILLED, or FILLED_TOKENS. Rates
    (successes / trials) become the column `value`.
    """
    found = points
    if _absent(found, "flops") and {"params", "tokens"} <= set(found.columns):
        params, tokens = _numbers(found, "params", "tokens")
        found = found.assign(flops=training_flops(1.0, 1.0) * params * tokens, flops_convention=FILLED)
    elif _absent(found, "tokens") and {"params", "flops"} <= set(found.columns):
        params, flops = _numbers(found, "params", "flops")
        tokens = flops / (training_flops(1.0, 1.0) * params.where(params > 0))
        found = found.assign(tokens=tokens, tokens_convention=FILLED_TOKENS)
    if value and value not in found.columns and {"successes", "trials"} <= set(found.columns):
        found = found.assign(**{value: found["successes"] / found["trials"]})
    return found


def _absent(points: pd.DataFrame, name: str) -> bool:
    return name not in points.columns or bool(points[name].isna().all())


def _numbers(points: pd.DataFrame, *names: str) -> Iterator[pd.Series[float]]:
    return (pd.to_numeric(points[name], errors="coerce").astype(np.float64) for name in names)


def matching(frame: pd.DataFrame, where: str | None) -> pd.DataFrame | None:
    """Return the rows for which an expression is true; None if the frame lacks a column of it."""
    try:
        return query(frame, where) if where else frame
    except UsageError:
        return None


def by_family(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the points of each family by name; without a column family, all points under the name "".

    Raises LawError if the family of some points is missing.
    """
    if "family" not in frame.columns:
        return [("", frame)]
    if frame["family"].isna().any():
        rows = ", ".join(map(str, frame.index[frame["family"].isna()][:5]))
        raise LawError(
            f"family is missing in rows {rows} ({int(frame['family'].isna().sum())} of {len(frame)}); fill it in, "
            "exclude these rows, or fit all points together (pool)"
        )
    return sorted(((str(name), own) for name, own in frame.groupby("family", sort=False)), key=lambda own: own[0])


def widen(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per checkpoint and task: one column per metric, and METRIC_stderr, _n, _low and _high.

    Wide points are returned unchanged. Raises LawError if a checkpoint has two values of a metric.
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
        if point["metric"] in row and not _same(row[point["metric"]], point["value"]):  # such as a column loss
            raise LawError(f"the metric {point['metric']} has the name of another column; rename one of them")
        row[point["metric"]] = point["value"]
        row[f"{point['metric']}_stderr"] = shown_error(*(point.get(k, np.nan) for k in ("stderr", "low", "high")))
        row |= {f"{point['metric']}_{name}": point[name] for name in ("n", "low", "high") if name in point}
    return pd.DataFrame(list(rows.values()))


def _same(a: object, b: object) -> bool:
    """Return whether two cells are equal, or both missing."""
    return a == b or (a != a and b != b)  # noqa: PLR0124  # NaN


def is_long(points: pd.DataFrame) -> bool:
    """Return whether points have one row per metric."""
    return {"metric", "value"} <= set(points.columns)


def _refuse_two(points: pd.DataFrame, keys: list[str]) -> None:
    """Raise LawError if two rows, equal or not, belong to one checkpoint, task and metric."""
    if points.duplicated(keys).any():
        raise LawError(two_points(points, keys))
