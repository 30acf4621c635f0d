"""Scores over scale, one value per training run, with their covariance over documents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import harness
from harness import Floats, UsageError
from harness.errors import choose
from harness_plugins.analyses.document_scores import refuse_doubles, refuse_unnamed

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore

REPLICATES = 1000


@dataclass(frozen=True)
class Curve:
    """The scores of a family on a task: the last checkpoint of each training run, ordered by scale.

    `points` has one row per run (M). `x` (M,) is log10 of the scale. `y` (M,) are the values, negated if lower is
    better. `covariance` (M, M) is that of the shared documents, or None if unknown.
    """

    task: str
    family: str
    metric: str
    points: pd.DataFrame
    x: Floats
    y: Floats
    covariance: Floats | None
    rises: bool = True

    @property
    def label(self) -> str:
        """Name the curve."""
        return f"{self.task}, {self.family}, {self.metric}"

    def draws(self, count: int, rng: np.random.Generator) -> Floats:
        """Return normal draws (count, M) of the curve over documents, with their covariance."""
        if self.covariance is None:
            return np.tile(self.y, (count, 1))
        values, vectors = np.linalg.eigh(self.covariance)
        spread = np.sqrt(np.maximum(np.asarray(values), 0))
        return np.asarray(self.y + (rng.normal(size=(count, len(self.y))) * spread) @ vectors.T)

    def step(self, i: int, j: int) -> tuple[float, float]:
        """Return the value at j minus that at i, and its standard error over the shared documents."""
        weights = np.zeros(len(self.y))
        weights[j] += 1
        weights[i] -= 1
        return float(self.y[j] - self.y[i]), self.error(weights)

    def error(self, weights: Floats) -> float:
        """Return the standard error of a weighted sum of the values (M,); NaN if the covariance is unknown."""
        if self.covariance is None:
            return float("nan")
        return float(np.sqrt(np.maximum(weights @ self.covariance @ weights, 0.0)))


def read_curves(
    source: PointStore | pd.DataFrame,
    *,
    task: str | None = None,
    metric: str | None = None,
    where: str | None = None,
    scale: str = "flops",
) -> list[Curve]:
    """Return the curve of every task and family.

    :param source: a store, or points: a table with one row per checkpoint, the scale, and `metric` and `value` (and
        `stderr`), or a column named like the metric (and METRIC_stderr); optionally task, family, size, seed, step.
    :param metric: the metric, or the column (default for a store: that of each task).
    :param where: an expression that selects points.
    :param scale: the column with the scale of a run: flops, params, tokens ...

    Raises UsageError for missing columns and if no point is left.
    """
    if isinstance(source, harness.PointStore):
        curves = list(_of_store(source, task=task, metric=metric, where=where, scale=scale))
    else:
        curves = list(_of_table(source, task=task, metric=metric, where=where, scale=scale))
    if not curves:
        raise UsageError(f"no points for task {task or '(any)'} and metric {metric or '(any)'}")
    return curves


def _of_store(
    store: PointStore, *, task: str | None, metric: str | None, where: str | None, scale: str
) -> Iterator[Curve]:
    from harness.points import query, widen

    for name, chosen in sorted(metrics_of(store, task, metric).items()):
        points = query(store.points(name, metrics=[chosen]), where)
        refuse_doubles(points, name)
        for family, family_points in points.groupby("family", sort=True):
            last = _last(widen(family_points), scale)
            covariance = _covariance(store, last, chosen)
            yield _curve((name, str(family), chosen), last, scale, covariance, rises=store.rises(chosen))


def _covariance(store: PointStore, last: pd.DataFrame, metric: str) -> Floats | None:
    """Return the covariance (M, M) of the last points of runs over documents; None if errors are unknown."""
    errors = last[f"{metric}_stderr"].to_numpy(dtype=np.float64)
    if not np.isfinite(errors).all():
        return None
    metrics = store.registries.metrics
    if metric in metrics and not isinstance(metrics[metric].aggregate, str):
        return np.asarray(np.diag(errors**2))
    drawn = store.replicates(last, [metric], REPLICATES, np.random.default_rng(0))[metric]
    return np.asarray(np.cov(drawn, rowvar=False)).reshape(len(last), len(last))


def metrics_of(store: PointStore, task: str | None, metric: str | None) -> dict[str, str]:
    """Return the metric of every selected task, without the tasks to which a named metric does not apply."""
    metrics = store.tasks(task)
    if metric is None:
        return metrics
    if task is not None:
        return {task: metric}
    return {name: metric for name in metrics if metric in store.metrics_of(name)}


def _of_table(
    table: pd.DataFrame, *, task: str | None, metric: str | None, where: str | None, scale: str
) -> Iterator[Curve]:
    from harness.points import query

    frame = query(table, where)
    if not {"metric", "value"} <= set(frame.columns):
        if metric is None or metric not in frame.columns:
            raise UsageError(f"pass the column of the scores with --metric; the table has: {choose(frame.columns)}")
        stderr = frame.get(f"{metric}_stderr")
        frame = frame.assign(metric=metric, value=frame[metric], **({} if stderr is None else {"stderr": stderr}))
    frame = frame.assign(**{name: frame.get(name, "") for name in ("task", "family")})
    refuse_unnamed(frame, ("task", "family", "metric"))
    for (name, family, metric_name), points in frame.groupby(["task", "family", "metric"], sort=True):
        if task in (None, name) and metric in (None, metric_name):
            last = _last(points, scale)
            stderr = last.get("stderr")
            known = _variances(stderr, f"{name}, {family}, {metric_name}")
            wide = last.assign(**{str(metric_name): last["value"]})
            wide = wide if stderr is None else wide.assign(**{f"{metric_name}_stderr": stderr})
            yield _curve((str(name), str(family), str(metric_name)), wide, scale, known)


def _variances(stderr: pd.Series[Any] | None, curve: str) -> Floats | None:
    """Return the covariance (n, n) of independent errors, or None without errors; raise if only some are known."""
    if stderr is None or stderr.isna().all():
        return None
    if stderr.isna().any():
        raise UsageError(
            f"{int(stderr.isna().sum())} of {len(stderr)} points of {curve} have no stderr; expected all or none: "
            "complete the column, or leave these points out with --where"
        )
    return np.diag(stderr.to_numpy(dtype=np.float64) ** 2)


def _curve(
    names: tuple[str, str, str], points: pd.DataFrame, scale: str, covariance: Floats | None, *, rises: bool = True
) -> Curve:
    from harness.points import column

    sizes, values = column(points, scale), column(points, names[2])
    if not (sizes > 0).all():
        raise UsageError(f"{scale} must be above 0, found {sizes.min():g}")
    return Curve(*names, points, np.log10(sizes), values if rises else -values, covariance, rises)


def _last(points: pd.DataFrame, scale: str) -> pd.DataFrame:
    """Return the last checkpoint of each run, ordered by scale."""
    from harness.points import ends, refuse_twice

    if scale not in points.columns:
        raise UsageError(f"points have no column {scale!r}; expected --scale to be one of: {choose(points.columns)}")
    refuse_twice(points, [scale])
    return points[ends(points)].sort_values(scale, kind="stable").reset_index(drop=True)
