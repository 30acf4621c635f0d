"""Forecasts from a store or a table file: which metric, which task loss, which columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from harness.errors import UsageError
from harness.fitting.columns import labelled, renamed
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecast_runs import Report
from harness.fitting.forecasts import Wanted, forecast
from harness.fitting.point_source import open_points
from harness.fitting.published import Reading
from harness.fitting.published_values import scored_tasks
from harness.fitting.wide_points import is_long, prepared, widen
from harness.host.registries import Registries
from harness.store.point_files import read_table
from harness.store.points import PointStore

TASK_LOSS = "gold_bits_per_byte"  # metric that a forecast learns from besides the score
ACCURACY = "acc"
SCORE, LOSS = "score", "task_loss"  # columns of the points that are forecast


def forecast_file(
    path: Path,
    *,
    registries: Registries,
    task: str | None = None,
    metric: str | None = None,
    via: str | None = None,
    renames: Sequence[str] = (),
    label: str | None = None,
    where: str | None = None,
    params: Wanted = None,
    tokens: Wanted = None,
    flops: Wanted = None,
    level: float = 0.9,
    of: str = "documents",
    laws: Sequence[str] | None = None,
    forecasters: Sequence[str] | None = None,
    family: str | None = None,
    seed: int = 0,
    report: Report = lambda *_: None,
) -> Forecast:
    """Forecast from a store (the metric of every task with correct answers) or a table; see `forecast`.

    `renames` are pairs theirs=ours (`harness.points.renamed`), `label` is the column with the names of models.
    """
    how = Reading(renames=renames, label=label, where=where, metrics=() if path.is_dir() or not metric else (metric,))
    found_columns = None if path.is_dir() else _columns(path, task, labelled(renames, label), metric or ACCURACY, via)
    if found_columns is None:
        source = open_points(path, how, registries=registries)
        read = _of_store(source.store, task, metric if path.is_dir() else None, via or TASK_LOSS)
        points, value, named, has_via = read.points, SCORE, read.metric, LOSS in read.points.columns
        if via and not has_via:
            raise UsageError(f"{path} has no task loss {via!r} (--via); name a column or metric that it has, or none")
        via = LOSS if has_via else None
        notes, where = (*source.notes, *read.notes), source.where
    else:
        points, value, notes, named = found_columns, metric or ACCURACY, (), metric or ACCURACY
    points = prepared(points, None, value, where)
    result = forecast(
        points,
        value=value,
        via=via,
        params=params,
        tokens=tokens,
        flops=flops,
        level=level,
        of=of,
        laws=laws,
        forecasters=forecasters,
        family=family,
        seed=seed,
        registries=registries,
        report=report,
    )
    return replace(result, value=named, notes=(*notes, *result.notes))


def _columns(path: Path, task: str | None, renames: Sequence[str], value: str, via: str | None) -> pd.DataFrame | None:
    """Return the points of a table with the columns of a forecast by our names, or with `via`; else None."""
    table, _ = read_table(path)
    table = table[table["task"] == task] if task and "task" in table.columns else table
    points = renamed(table, renames)
    named = bool({"params", "flops"} & set(points.columns)) and (via is not None or "family" in points.columns)
    if is_long(points):
        named &= value in set(points["metric"])
        points = widen(points) if named else points
    known = {value, *([via] if via else [])} <= set(points.columns)
    return points if named and known else None


class _Read(NamedTuple):
    """Wide points with columns score and task_loss of every task, what the score is, and notes."""

    points: pd.DataFrame
    metric: str
    notes: tuple[str, ...]


def _of_store(store: PointStore, task: str | None, metric: str | None, via: str) -> _Read:
    """Return the points of every task whose metric is better when higher."""
    tasks = sorted(store.tasks(task) if task or metric else scored_tasks(store))
    if not tasks:
        raise UsageError(
            f"{store.path} has no task with correct answers; a forecast needs accuracies: choose a metric with --metric"
        )
    metrics = store.tasks(task) if metric is None else dict.fromkeys(tasks, metric)
    falling = [name for name in tasks if not store.rises(metrics[name])]
    said = _no_accuracy(falling, sorted({metrics[name] for name in falling})) if falling else ""
    if len(falling) == len(tasks):
        raise UsageError(said)
    rising = [name for name in tasks if name not in falling]
    frames = [one_task(store.read_task(name, [metric, via]).points, metrics[name], via) for name in rising]
    names = sorted({metrics[name] for name in rising})
    return _Read(pd.concat(frames, ignore_index=True), " and ".join(names), (said,) if said else ())


def _no_accuracy(tasks: Sequence[str], metrics: Sequence[str]) -> str:
    """Say which tasks are not forecast, because lower values of their metrics are better."""
    return (
        f"{', '.join(tasks)}: not forecast, because lower {' and '.join(metrics)} is better and a forecast needs "
        "accuracies; fit a law to these values with harness fit"
    )


def one_task(points: pd.DataFrame, metric: str, via: str) -> pd.DataFrame:
    """Return wide points of one task, with its metric as column score and the task loss `via` as task_loss."""
    columns = {metric: SCORE, via: LOSS}
    columns |= {f"{metric}_{name}": f"{SCORE}_{name}" for name in ("stderr", "n", "low", "high")}
    return widen(points).rename(columns=columns)
