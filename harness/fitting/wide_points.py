"""Points as a law is fitted to them: one row per checkpoint and task, completed, filtered, pivoted and checked."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import pandas as pd

from harness.checkpoints.flops import training_flops
from harness.errors import LawError, UsageError
from harness.fitting.columns import query
from harness.fitting.laws import steps_of
from harness.fitting.runs import DESCRIBES, refuse_twice, two_points
from harness.metrics.intervals import shown_error
from harness.types import Ints
from harness.types.columns import ACTIVE_PARAMS
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
    selected, wide = None, points.reset_index(drop=True)
    if is_long(points):
        rows = completed(points)
        selected = matching(rows, where)
        wide = rows if selected is None else selected
        wide = wide if wide.empty else widen(wide)
    if not wide.empty:
        wide = completed(wide, value)
        wide = prepare(wide) if prepare else wide
        again = matching(wide, where)
        wide = again if again is not None else wide if selected is not None else query(wide, where)
    if wide.empty:
        why = f"{where!r} selects 0 of {len(points)} rows" if where else "the table is empty"
        raise LawError(f"there are no points to fit: {why}")
    wide = wide.reset_index(drop=True)
    refuse_twice(wide, getattr(first, "features", ()))
    return wide


def completed(points: pd.DataFrame, value: str | None = None) -> pd.DataFrame:
    """Return points with columns that follow from others: flops (6 N D) or tokens (C / 6 N), and rates.

    A column is filled in only if it is missing in all rows; its convention is then FILLED, or FILLED_TOKENS. N counts
    the parameters that a token uses (`params_active`) where that column has them; see `_used`. Rates
    (successes / trials) become the column `value`.
    """
    frame = points
    if "params" in frame.columns and not _absent(frame, ACTIVE_PARAMS):
        active, params = _numbers(frame, ACTIVE_PARAMS, "params")
        frame = frame.assign(**{ACTIVE_PARAMS: active.fillna(params)})  # all of a dense model
    if _absent(frame, "flops") and {"params", "tokens"} <= set(frame.columns):
        params, tokens = _used(frame), next(_numbers(frame, "tokens"))
        frame = frame.assign(flops=training_flops(1.0, 1.0) * params * tokens, flops_convention=FILLED)
    elif _absent(frame, "tokens") and {"params", "flops"} <= set(frame.columns):
        params, flops = _used(frame), next(_numbers(frame, "flops"))
        tokens = flops / (training_flops(1.0, 1.0) * params.where(params > 0))
        frame = frame.assign(tokens=tokens, tokens_convention=FILLED_TOKENS)
    if value and value not in frame.columns and {"successes", "trials"} <= set(frame.columns):
        frame = frame.assign(**{value: frame["successes"] / frame["trials"]})
    return frame


def _used(points: pd.DataFrame) -> pd.Series[float]:
    """Return N of 6 N D: active parameters where known, else all; missing for a mixture with unknown active ones."""
    (used,) = _numbers(points, "params" if _absent(points, ACTIVE_PARAMS) else ACTIVE_PARAMS)
    if _absent(points, ACTIVE_PARAMS) and "flops_convention" in points.columns:
        used = used.mask(points["flops_convention"].astype(str).str.endswith("_active"))
    return used


def _absent(points: pd.DataFrame, name: str) -> bool:
    return name not in points.columns or bool(points[name].isna().all())


def _numbers(points: pd.DataFrame, *names: str) -> Iterator[pd.Series[float]]:
    return (pd.to_numeric(points[name], errors="coerce").astype(np.float64) for name in names)


def matching(frame: pd.DataFrame, where: str | None) -> pd.DataFrame | None:
    """Return the rows for which an expression is true, all without one; None if the frame lacks a column of it."""
    if not where:
        return frame
    try:
        return query(frame, where)
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
    families = ((str(name), family_rows) for name, family_rows in frame.groupby("family", sort=False))
    return sorted(families, key=lambda family: family[0])


def widen(points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per checkpoint and task: one column per metric, and METRIC_stderr, _n, _low and _high.

    Wide points are returned unchanged. Raises LawError if a checkpoint has two values of a metric.
    """
    points = points.reset_index(drop=True)
    if not is_long(points):
        return points
    if points.empty:
        return pd.DataFrame()
    identity = [name for name in DESCRIBES if name in points.columns and name != "metric"]
    _refuse_two(points, [*identity, "metric"])
    number = _checkpoints(points, identity)
    first = np.unique(number, return_index=True)[1]
    shared = [name for name in points.columns if name not in OF_METRIC]
    wide = _inferred(points[shared].iloc[first].reset_index(drop=True))
    metrics = points["metric"].to_numpy()[np.argsort(number, kind="stable")]
    for metric in dict.fromkeys(metrics):
        wide = _with_metric(wide, _of_metric(points, number, metric), metric)
    return wide


def _with_metric(wide: pd.DataFrame, metric_columns: pd.DataFrame, metric: Hashable) -> pd.DataFrame:
    """Return wide points with the columns of a metric, whose index is their numbers; missing where they lack it.

    Raises LawError if a column with the name of the metric, such as loss, has other values.
    """
    shared = [name for name in metric_columns.columns if name in wide.columns]
    if not metric_columns.index.is_unique or (
        metric in shared and not _agrees(wide[metric][metric_columns.index], metric_columns[metric])
    ):
        raise LawError(f"the metric {metric} has the name of another column; rename one of them")
    has_metric = wide.index.isin(metric_columns.index)
    whole = metric_columns.reindex(wide.index)
    wide = wide.assign(**{name: whole[name].where(has_metric, wide[name]) for name in shared})
    return pd.concat([wide, whole.drop(columns=shared)], axis=1)


def _checkpoints(points: pd.DataFrame, identity: Sequence[str]) -> Ints:
    """Number the rows (n,) by their values as text of some columns, in the order of first appearance."""
    if not identity:
        return np.zeros(len(points), dtype=np.int64)
    columns = {name: points[name].map(str) if points[name].dtype == object else points[name] for name in identity}
    return np.asarray(pd.DataFrame(columns).groupby(list(columns), dropna=False, sort=False).ngroup(), dtype=np.int64)


def _of_metric(points: pd.DataFrame, number: Ints, metric: Hashable) -> pd.DataFrame:
    """Return the columns of one metric, for the numbers of the checkpoints that have it."""
    rows = np.flatnonzero((points["metric"] == metric).to_numpy())
    metric_points = points.iloc[rows].set_index(number[rows])
    ends = (
        metric_points[name] if name in metric_points.columns else pd.Series(np.nan, metric_points.index)
        for name in ("stderr", "low", "high")
    )
    errors = [shown_error(*of_row) for of_row in zip(*ends, strict=True)]
    columns = {str(metric): metric_points["value"], f"{metric}_stderr": pd.Series(errors, metric_points.index)}
    columns |= {
        f"{metric}_{name}": metric_points[name] for name in ("n", "low", "high") if name in metric_points.columns
    }
    return _inferred(pd.DataFrame(columns))


def _inferred(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose columns of objects have the type of their values."""
    objects = [name for name in frame.columns if frame[name].dtype == object]
    return frame.assign(**{name: pd.DataFrame([{0: x} for x in frame[name]], frame.index)[0] for name in objects})


def _agrees(column: pd.Series, metric: pd.Series) -> bool:
    """Return whether a column has the values of a metric wherever it has any."""
    return bool(((column == metric) | column.isna()).all())


def is_long(points: pd.DataFrame) -> bool:
    """Return whether points have one row per metric."""
    return {"metric", "value"} <= set(points.columns)


def _refuse_two(points: pd.DataFrame, keys: list[str]) -> None:
    """Raise LawError if two rows, equal or not, belong to one checkpoint, task and metric."""
    if points.duplicated(keys).any():
        raise LawError(two_points(points, keys))
