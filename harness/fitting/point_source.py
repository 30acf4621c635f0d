"""The source of points for every command: a store, or a table with the interface of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from harness.errors import LawError, UsageError, choose
from harness.fitting.columns import labelled, query, renamed
from harness.fitting.published import Published, Reading, published
from harness.fitting.published_values import names_values
from harness.fitting.runs import ends
from harness.host import default_host
from harness.host.registries import Registries
from harness.store.point_files import read_table
from harness.store.points import Cell, ImportMeta, PointStore, TaskMeta, open_store
from harness.types import Scalar

OF_MODELS = ("family", "size", "step", "seed", "run", "label", "params", "tokens", "flops")


class TablePoints(PointStore):
    """The points of a table file, without records of documents."""

    def __init__(self, path: Path, contents: Published, registries: Registries) -> None:
        self.path, self.registries, self.contents = path, registries, contents

    @cached_property
    def imports(self) -> dict[str, ImportMeta]:
        """The metrics of the table, as those of the only import."""
        shown_metrics, rises = self.contents.shown_metrics, self.contents.rises
        return {self.path.name: ImportMeta(command=[], shown_metrics=shown_metrics, rises=rises)}

    @cached_property
    def imported(self) -> pd.DataFrame:
        """All points of the table."""
        return self.contents.points.assign(origin=self.path.name)

    @cached_property
    def task_meta(self) -> dict[str, TaskMeta]:
        """No task: none has documents."""
        return {}

    def cells(self) -> list[Cell]:
        """Return none."""
        return []

    def lost(self) -> list[Path]:
        """Return none."""
        return []


class ViewedStore(PointStore):
    """A store whose points have renamed or computed columns, and selected rows."""

    def __init__(self, path: Path, how: Reading, registries: Registries) -> None:
        super().__init__(path, registries=registries)
        self.how = how

    def points(
        self,
        task: str | None = None,
        family: str | None = None,
        *,
        metrics: Sequence[str] | None = None,
        unit: str = "checkpoint",
    ) -> pd.DataFrame:
        """Return points of the store with the requested columns and rows."""
        points = super().points(task, family, metrics=metrics, unit=unit)
        if unit != "checkpoint":
            return points
        points = renamed(points, labelled(self.how.renames, self.how.label), run=self.how.run)
        selected = query(points, self.how.where if self.how.selects else None)
        if selected.empty:
            raise UsageError(
                f"{self.how.where!r} selects 0 of {len(points)} points; columns are: {choose(points.columns)}"
            )
        return selected


class Source(NamedTuple):
    """Points, the expression still to be applied to them, and notes on the reading of a table."""

    store: PointStore
    where: str | None
    notes: tuple[str, ...]


def open_points(path: Path, how: Reading, *, score: str | None = None, registries: Registries | None = None) -> Source:
    """Open a store, or read a CSV or Parquet table as `harness import` does.

    Of a table, `how.where` selects rows before anything else is done; of a store, the caller applies it to points.
    Without `how.metrics`, `score` is the only score to read of a wide table that has a column of this name. Raises
    UsageError for a file that is not a table, or a table without scores.
    """
    registries = registries or default_host()
    if path.is_dir() or not path.exists():
        plain = not (how.renames or how.label or how.run or (how.selects and how.where))
        store = open_store(path, registries=registries) if plain else ViewedStore(path, how, registries)
        return Source(store, None if how.selects else how.where, ())
    table, _ = read_table(path)
    if score in table.columns and not how.metrics and not names_values(table):
        how = replace(how, metrics=(str(score),))
    try:
        store = table_points(table, how, name=path.name, registries=registries)
    except LawError as error:
        raise UsageError(f"{path}: {error}") from error
    return Source(store, None, store.contents.notes)


def open_asked(
    path: Path,
    asked: dict[str, Any],
    registries: Registries,
    *,
    metrics: Sequence[str] = (),
    score: str | None = None,
    selects: bool = False,
) -> Source:
    """Open points with the options of a command, which are removed from `asked`: those of `point_options`, and where.

    `metrics` are the only scores to read of a table (columns, or metrics of a long one); a store is read whole. `score`
    is that of `open_points` (default: the task asked for), `selects` that of `Reading`.
    """
    score = score or asked.get("task")
    how = {name: asked.pop(name) for name in ("renames", "label", "run", "drop_duplicates", "where")}
    of_table = () if path.is_dir() else metrics
    return open_points(path, Reading(**how, metrics=of_table, selects=selects), score=score, registries=registries)


def table_points(
    table: pd.DataFrame, how: Reading | None = None, *, name: str = "table", registries: Registries | None = None
) -> TablePoints:
    """Return a table that answers as a store does; `name` names it in messages, and its family where nothing else does.

    Raises UsageError or LawError for a table without scores, or with units or rows that cannot be right.
    """
    contents = published(table, how or Reading(), name=name.split(".", maxsplit=1)[0])
    return TablePoints(Path(name), contents, registries or default_host())


def benchmark_table(store: PointStore) -> pd.DataFrame:
    """Return one row per run, at its last checkpoint, with one column per task, in the metric of the task."""
    metrics = store.tasks()
    points = store.points(metrics=sorted(set(metrics.values())))
    shown = points[points["metric"] == points["task"].map(metrics)]
    if shown.empty:
        raise UsageError(f"{store.path} has no points of the metrics {choose(metrics.values())}")
    shown = shown[ends(shown, "task")]
    about = [name for name in OF_MODELS if name in shown.columns]
    rows: dict[tuple[str, ...], dict[str, Scalar]] = {}
    for point in shown.to_dict("records"):
        row = rows.setdefault(tuple(str(point[name]) for name in about), {name: point[name] for name in about})
        row[str(point["task"])] = point["value"]
    return pd.DataFrame(list(rows.values()))
