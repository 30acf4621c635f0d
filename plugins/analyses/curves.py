"""Scores over scale: one value a training run, with what documents say of its error, from a store or a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import harness
from harness import Floats, UsageError
from harness.errors import choose
from harness_plugins.analyses.items import refuse_doubles, refuse_unnamed

if TYPE_CHECKING:
    import pandas as pd

    from harness import PointStore

REPLICATES = 1000


@dataclass(frozen=True)
class Curve:
    """The scores of a family on a task: one a training run (its last checkpoint), ordered by scale.

    `points` has the rows (M), `x` (M,) the logarithm (base 10) of their scale, `y` (M,) the values, turned round where
    less is better; `covariance` (M, M) is that of documents, which the runs share, or None where nothing is known.
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
        """Return the curve as other documents would show it (count, M); normal, the errors correlated as they are."""
        if self.covariance is None:
            return np.tile(self.y, (count, 1))
        values, vectors = np.linalg.eigh(self.covariance)
        spread = np.sqrt(np.maximum(np.asarray(values), 0))
        return np.asarray(self.y + (rng.normal(size=(count, len(self.y))) * spread) @ vectors.T)

    def step(self, i: int, j: int) -> tuple[float, float]:
        """Return the value at j minus that at i, and its standard error; both runs answered the same documents."""
        weights = np.zeros(len(self.y))
        weights[j] += 1
        weights[i] -= 1
        return float(self.y[j] - self.y[i]), self.error(weights)

    def error(self, weights: Floats) -> float:
        """Return the standard error of a weighted sum of the values (M,); NaN where nothing is known of errors."""
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

    :param source: a store, or points: a table with a row a checkpoint, the scale, and `metric` and `value` (and
        `stderr`) or a column named as the metric (and METRIC_stderr); task, family, size, seed and step, where known.
    :param metric: the metric, or the column; a store's default is that of each task.
    :param where: an expression over points; others are left out.
    :param scale: the column that says how large a run is: flops, params, tokens ...

    Raises UsageError where columns are missing or nothing is left.
    """
    if isinstance(source, harness.PointStore):
        curves = list(_of_store(source, task=task, metric=metric, where=where, scale=scale))
    else:
        curves = list(_of_table(source, task=task, metric=metric, where=where, scale=scale))
    if not curves:
        raise UsageError(f"no points are left of task {task or '(any)'} and metric {metric or '(any)'}")
    return curves


def _of_store(
    store: PointStore, *, task: str | None, metric: str | None, where: str | None, scale: str
) -> Iterator[Curve]:
    from harness.points import widen

    for name, chosen in sorted(metrics_of(store, task, metric).items()):
        points = _query(store.points(name, metrics=[chosen]), where)
        refuse_doubles(points, name)
        known = store.registries.metrics[chosen]
        for family, own in points.groupby("family", sort=True):
            last = _last(widen(own), scale)
            covariance = np.diag(last[f"{known.name}_stderr"].to_numpy() ** 2)
            if isinstance(known.aggregate, str):
                rng = np.random.default_rng(0)
                drawn = store.replicates(last, [known.name], REPLICATES, rng)[known.name]
                covariance = np.cov(drawn, rowvar=False).reshape(len(last), len(last))
            yield _curve((name, str(family), known.name), last, scale, covariance, rises=known.higher_is_better)


def metrics_of(store: PointStore, task: str | None, metric: str | None) -> dict[str, str]:
    """Return the metric of every task that is asked for; one that is named is left out where it does not apply."""
    from harness.points import applicable

    cells = {cell.task: cell for cell in store.select(task)}
    own = {meta["name"]: meta["metric"] for meta in store.task_meta.values()}
    if metric is None:
        return {name: own[name] for name in cells}
    wanted = store.registries.metrics[metric]
    if task is not None:
        return {task: metric}
    return {
        name: metric for name, cell in cells.items() if wanted in applicable(store.load_any(cell.id), store.registries)
    }


def _of_table(
    table: pd.DataFrame, *, task: str | None, metric: str | None, where: str | None, scale: str
) -> Iterator[Curve]:
    frame = _query(table, where)
    if not {"metric", "value"} <= set(frame.columns):
        if metric is None or metric not in frame.columns:
            raise UsageError(f"name the column of the scores with --metric; the table has: {choose(frame.columns)}")
        stderr = frame.get(f"{metric}_stderr")
        frame = frame.assign(metric=metric, value=frame[metric], **({} if stderr is None else {"stderr": stderr}))
    frame = frame.assign(**{name: frame.get(name, "") for name in ("task", "family")})
    refuse_unnamed(frame, ("task", "family", "metric"))
    for (name, family, own), points in frame.groupby(["task", "family", "metric"], sort=True):
        if task in (None, name) and metric in (None, own):
            last = _last(points, scale)
            stderr = last.get("stderr")
            known = None if stderr is None or stderr.isna().any() else np.diag(stderr.to_numpy(dtype=np.float64) ** 2)
            wide = last.assign(**{str(own): last["value"]})
            wide = wide if stderr is None else wide.assign(**{f"{own}_stderr": stderr})
            yield _curve((str(name), str(family), str(own)), wide, scale, known)


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
        raise UsageError(f"points have no {scale!r}; choose --scale among: {choose(points.columns)}")
    refuse_twice(points, [scale])
    return points[ends(points)].sort_values(scale, kind="stable").reset_index(drop=True)


def _query(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    from harness.points import query

    return query(frame, where) if where else frame
