"""Forecasts from a store or a table file: which metric, which task loss, which columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from harness.errors import UsageError, choose
from harness.fitting.columns import labelled, renamed
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecast_runs import Report
from harness.fitting.forecasts import Wanted, forecast
from harness.fitting.published_values import scored_tasks
from harness.fitting.wide_points import prepared, widen
from harness.host.registries import Registries
from harness.store.point_files import read_points
from harness.store.points import open_store

VIA = "gold_bits_per_byte"
ACCURACY = "acc"


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
    renames = labelled(renames, label)
    if path.is_dir():
        points, value, via = _of_store(path, task, metric, via or VIA, registries)
        points = renamed(points, renames)
    else:
        read = read_points(path, task, [], registries)
        points, value = widen(renamed(read.points, renames)), metric or ACCURACY
        for name in (value, *([via] if via else [])):
            if name not in points.columns:
                raise UsageError(
                    f"{path} has no column {name!r}; it has {choose(points.columns)}; name one with --metric"
                )
    points = prepared(points, None, value, where)
    found = forecast(
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
    return replace(found, value=metric or (ACCURACY if value == "score" else value))


def _of_store(
    path: Path, task: str | None, metric: str | None, via: str, registries: Registries
) -> tuple[pd.DataFrame, str, str | None]:
    """Return wide points with columns score and task_loss of every task, and their names; None for no task loss."""
    store = open_store(path, registries=registries)
    tasks = sorted(store.tasks(task) if task or metric else scored_tasks(store))
    if not tasks:
        raise UsageError(f"{path} has no task with right answers; a forecast is of accuracies: name one with --metric")
    frames = []
    for name in tasks:
        read = read_points(path, name, [metric, via], registries)
        frames.append(one_task(read.points, metric or str(read.metric), via))
    points = pd.concat(frames, ignore_index=True)
    return points, "score", "task_loss" if "task_loss" in points.columns else None


def one_task(points: pd.DataFrame, metric: str, via: str) -> pd.DataFrame:
    """Return wide points of one task, with its metric as column score and the task loss `via` as task_loss."""
    columns = {metric: "score", f"{metric}_stderr": "score_stderr", f"{metric}_n": "score_n", via: "task_loss"}
    return widen(points).rename(columns=columns)
