"""Forecasts from a store or a table file: which metric, which task loss, which columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from harness.errors import UsageError, choose
from harness.fitting.columns import labelled, renamed
from harness.fitting.fit import prepared
from harness.fitting.forecast_results import Forecast
from harness.fitting.forecasts import forecast
from harness.fitting.ladder import widen
from harness.fitting.published_values import UNBOUNDED
from harness.registries import Registries
from harness.store.points import open_store, read_points

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
    **arguments: Any,
) -> Forecast:
    """Forecast from a store (the own metric of every task that has right answers) or a table; see `forecast`.

    `renames` are pairs theirs=ours (`harness.fitting.columns.renamed`), `label` is the column with names of models.
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
    found = forecast(points, value=value, via=via, registries=registries, **arguments)
    return replace(found, value=metric or (ACCURACY if value == "score" else value))


def _of_store(
    path: Path, task: str | None, metric: str | None, via: str, registries: Registries
) -> tuple[pd.DataFrame, str, str | None]:
    """Return wide points with columns score and task_loss of every task, and their names; None for no task loss."""
    store = open_store(path, registries=registries)
    kinds = {str(meta["name"]): meta["kind"] for meta in store.task_meta.values()}
    own = store.tasks(task)
    scored = {name for name in own if kinds.get(name) in {"choice", "generate"} or _is_imported_rate(own, kinds, name)}
    tasks = sorted(own if task or metric else scored)
    if not tasks:
        raise UsageError(f"{path} has no task with right answers; a forecast is of accuracies: name one with --metric")
    frames = []
    for name in tasks:
        read = read_points(path, name, [metric, via], registries)
        wide, shown = widen(read.points), metric or str(read.metric)
        columns = {shown: "score", f"{shown}_stderr": "score_stderr", f"{shown}_n": "score_n", via: "task_loss"}
        frames.append(wide.rename(columns=columns))
    points = pd.concat(frames, ignore_index=True)
    return points, "score", "task_loss" if "task_loss" in points.columns else None


def _is_imported_rate(own: Mapping[str, str], kinds: Mapping[str, str], name: str) -> bool:
    return name not in kinds and not UNBOUNDED.search(own[name])
