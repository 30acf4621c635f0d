"""Tables from a store: the scores of all choices, and points (values of metrics at checkpoints) for laws.

    store = harness.open_store("results")
    store.scores(task="nano_addition", family="aster")      one row per choice
    store.points(task="nano_addition", metrics=["acc"])     one row per checkpoint, task and metric
    store.points(unit="document")                           one row per checkpoint, document and metric

Columns of points: family, size, step, seed, params, params_non_embedding, tokens, flops, flops_convention, loss,
annealed, every feature, task, metric, value, stderr, low, high, n, ties, truncated, chance, engine, dtype, settings,
fingerprint, checkpoint. Points of generated text also have sampling (the settings), drawn and passed (numbers of
samples), and trials with their successes (the number of trials at one rate that has the same standard error).
A store with imported points (`harness import`) also has the columns origin (the file, or "measured") and label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.charts import with_figure
from harness.errors import MetricError, StoreError, UsageError, choose, suggest
from harness.host import default_host
from harness.metrics.aggregation import applicable
from harness.metrics.intervals import Z
from harness.metrics.per_document import per_document
from harness.metrics.samples import Scored
from harness.metrics.scores import Scores
from harness.registries import Registries
from harness.store.cells import Cell
from harness.store.files import UNREADABLE
from harness.store.frames import (
    Valued,
    checkpoint_columns,
    choice_frame,
    document_frame,
    frame_of,
    point_of,
    sample_frame,
    source_points,
)
from harness.store.identity import CellId
from harness.store.imported import MEASURED, SAMPLES_ENGINE, ImportedStore
from harness.store.point_figures import points_chart
from harness.store.replicates import Replicates
from harness.store.source_metrics import is_of_source, source_metrics
from harness.store.subsets import Subset
from harness.tables import Table
from harness.types import Bools, Floats, Metric, SourceMetric, Task

if TYPE_CHECKING:
    from harness.charts import Chart

__all__ = ["Cell", "PointStore", "Read", "checkpoint_columns", "open_store", "read_points", "read_table"]

UNITS = ("checkpoint", "document", "choice")
AT_ONCE = 500  # cells up to which a notebook shows the figure of a store
KEYS = ["family", "size", "step", "seed"]
OF_POINTS = (
    "params", "tokens", "flops", "loss", "stderr", "low", "high", "n", "ties", "truncated", "chance", "engine",
    "dtype", "settings", "fingerprint", "checkpoint",
)  # fmt: skip


class PointStore(ImportedStore):
    """A store that returns pandas frames. Open one with `harness.open_store`."""

    def __init__(self, path: str | Path, *, create: bool = False, registries: Registries | None = None) -> None:
        super().__init__(path, create=create)
        self.registries = registries or default_host()

    def _repr_html_(self) -> str:
        """Return the tasks of the store for a notebook, with the numbers of cells and imported points of each.

        The scores are drawn below, where there are few enough cells to read them at once.
        """
        cells, imported = [cell.task for cell in self.cells()], self.imported
        others = [] if imported.empty else list(imported["task"])
        rows = tuple((name, cells.count(name), others.count(name)) for name in sorted({*cells, *others}))
        table = Table("store", str(self.path), ("task", "cells", "imported points"), rows)
        shown = table._repr_html_()
        return with_figure(shown, self.plot) if rows and len(cells) <= AT_ONCE else shown

    def plot(self, task: str | None = None, *, x: str = "flops", log_x: bool = True) -> Chart:
        """Draw every checkpoint over its compute (or params, tokens, loss), a chart per task, in Altair.

        Values are of the metric of each task, with 95 % intervals. `harness.fit(...).plot()` adds a law. Raises
        StoreError for a task that is not there, UsageError if the extra `report` is not installed.
        """
        own = self.tasks(task)
        points = self.points(task, metrics=sorted(set(own.values())))
        return points_chart(points[points["metric"] == points["task"].map(own)], task, x=x, log_x=log_x)

    def select(self, task: str | None = None, family: str | None = None) -> list[Cell]:
        """Return the cells of a task and a family (None: all); raise StoreError if there are none.

        Subsets of tasks are included only by name, because their means are not those of the tasks.
        """
        chosen = self.selected(task, family)
        if chosen:
            return chosen
        if len(self._imported(task, family, None)):
            raise StoreError(
                f"{self.path} has imported points of task {task or '(any)'} and family {family or '(any)'}, but no "
                "records of documents; import samples that have log-probabilities, or evaluate the task"
            )
        raise StoreError(f"{self.path} {_what_is_missing(self.cells(), task, family)}")

    def selected(self, task: str | None = None, family: str | None = None) -> list[Cell]:
        """Return the cells of a task and a family, or none; see `select`."""
        wanted = [c for c in self.cells() if (Subset.MARK not in c.task if task is None else c.task == task)]
        return [c for c in wanted if family in (None, c.checkpoint.family)]

    def scores(self, task: str | None = None, family: str | None = None, *, prompts: bool = False) -> pd.DataFrame:
        """Return one row per choice of every document, with checkpoint, task, group and attributes.

        `prompts` adds the text as scored: context, continuation and answer (`harness.printable` makes them
        safe to print). Raises StoreError for tasks with generated text, which `samples` returns.
        """
        cells = [cell for cell in self.select(task, family) if not self.is_sampled(cell.id)]
        if not cells:
            raise StoreError(f"{task or 'every task of the store'} generates text and scores no choices; see samples()")
        frames = [choice_frame(self, cell, prompts=prompts) for cell in cells]
        return pd.concat(frames, ignore_index=True).sort_values([*KEYS, "task"], kind="stable", ignore_index=True)

    def samples(self, task: str | None = None, family: str | None = None) -> pd.DataFrame:
        """Return one row per generated text: doc_id, sample, sample_seed, text, n_tokens, finish, outcome, detail.

        Raises StoreError if there are none.
        """
        cells = [cell for cell in self.select(task, family) if self.is_sampled(cell.id)]
        if not cells:
            raise StoreError(f"{task or 'every task of the store'} scores choices and generates no text; see scores()")
        return pd.concat([sample_frame(self, cell) for cell in cells], ignore_index=True)

    def points(
        self,
        task: str | None = None,
        family: str | None = None,
        *,
        metrics: Sequence[str] | None = None,
        unit: str = "checkpoint",
    ) -> pd.DataFrame:
        """Return values of metrics: one row per checkpoint and task, per document, or (without metric) per choice.

        `metrics` defaults to all applicable ones. Raises MetricError if a named metric does not apply to `task`, or to
        any task if `task` is None.
        """
        if unit not in UNITS:
            raise UsageError(f"unit {unit!r}; expected one of {choose(UNITS)}")
        if unit == "choice":
            return self.scores(task, family)
        imported = self._imported(task, family, metrics)
        if unit == "document" or imported.empty:
            return self._measured(self.select(task, family), metrics, unit, named_task=task is not None)
        cells = self.selected(task, family)
        if not cells:
            return _ordered(imported)
        known = (
            None
            if metrics is None
            else [name for name in metrics if name in self.registries.metrics or is_of_source(name)]
        )
        try:
            measured = self._measured(cells, known, unit, named_task=False)
            measured["origin"] = measured["engine"].where(measured["engine"] == SAMPLES_ENGINE, MEASURED)
        except MetricError:  # of the imported points alone
            return _ordered(imported)
        return _ordered(pd.concat([measured, imported], ignore_index=True))

    def _measured(
        self, cells: Sequence[Cell], metrics: Sequence[str] | None, unit: str, *, named_task: bool
    ) -> pd.DataFrame:
        """Return values of metrics of cells: a row a cell, or a row a document."""
        made = point_of if unit == "checkpoint" else document_frame
        rows: list[Any] = []
        for cell in cells:
            scores = self.load_any(cell.id)
            for metric in self._metrics(metrics, scores, named_task=named_task):
                values = per_document(metric, scores)
                self._replicates.keep(cell.id, metric, values.columns)
                rows.append(made(self, cell, Valued(metric, scores, values)))
            for found in self._of_source(cell, metrics, named_task=named_task):
                rows += source_points(self, cell, found, scores, unit)
        if not rows:
            raise MetricError(f"the metrics {choose(metrics or ())} apply to no task in {self.path}")
        return _ordered(frame_of(rows) if unit == "checkpoint" else pd.concat(rows, ignore_index=True))

    def _imported(self, task: str | None, family: str | None, metrics: Sequence[str] | None) -> pd.DataFrame:
        """Return the imported points of a task, a family and metrics (None: all)."""
        frame = with_all_columns(self.imported)
        for column, wanted in (("task", task), ("family", family)):
            if wanted is not None and not frame.empty:
                frame = frame[frame[column] == wanted]
        return frame if metrics is None or frame.empty else frame[frame["metric"].isin(metrics)]

    def tasks(self, task: str | None = None) -> dict[str, str]:
        """Return the metric that tables show of each task, measured or imported; of one task where it is named.

        Raises StoreError where there is none.
        """
        own = {str(meta["name"]): str(meta["metric"]) for meta in self.task_meta.values()}
        readable = set() if self.imported.empty else set(self.imported["task"])  # not of a file that was set aside
        found = {name: metric for about in self.imports.values() for name, metric in about["own"].items()}
        known = {cell.task for cell in self.cells()} | set(found)
        if task is not None and found and task not in known:
            raise StoreError(f"{self.path} has no task {task!r}; {suggest(task, known)}")
        found = {name: metric for name, metric in found.items() if name in readable and task in (None, name)}
        if found and not self.selected(task, None):
            return found
        return found | {cell.task: own[cell.task] for cell in self.select(task)}

    def metrics_of(self, task: str) -> set[str]:
        """Return the metrics that points of a task have, measured or imported."""
        cells, imported = self.selected(task), self._imported(task, None, None)
        measured = {m.name for m in applicable(self.load_any(cells[0].id), self.registries)} if cells else set()
        return measured | (set() if imported.empty else set(imported["metric"]))

    def rises(self, metric: str) -> bool:
        """Say whether higher is better: of a registered metric, or as the import of its points says."""
        if metric in self.registries.metrics:
            return bool(self.registries.metrics[metric].higher_is_better)
        return all(about["rises"].get(metric, True) for about in self.imports.values())

    def holds_errors_of(self, points: pd.DataFrame) -> bool:
        """Say whether the errors of points are known: all have documents here, or a standard error."""
        known = points["stderr"].notna() if "stderr" in points.columns else pd.Series(False, index=points.index)
        return (
            bool((points["checkpoint"].notna() | known).all()) if "checkpoint" in points.columns else bool(known.all())
        )

    def replicates(
        self, points: pd.DataFrame, names: Sequence[str], count: int, rng: np.random.Generator
    ) -> dict[str, Floats]:
        """Return metrics of wide points in resamples of their documents: (count, n) each.

        All checkpoints of a task share the resamples, because they share the documents. Imported points have none: each
        is drawn from its standard error, or stays as it is if that is unknown. Names that are not metrics (such as a
        loss from a family file) are omitted.
        """
        metrics: list[Metric] = [self.registries.metrics[name] for name in names if name in self.registries.metrics]
        imported = _without_cell(points)
        if not imported.any():
            columns = points[["checkpoint", "fingerprint", "settings"]].itertuples(index=False)
            return self._replicates.of([CellId(*ids) for ids in columns], metrics, count, rng)
        known = [name for name in names if name in self.registries.metrics or f"{name}_stderr" in points.columns]
        found = {name: np.empty((count, len(points))) for name in known}
        measured = self.replicates(points[~imported], names, count, rng) if not imported.all() else {}
        for name, column in found.items():
            column[:, ~imported] = measured.get(name, np.nan)
            column[:, imported] = _normal(points[imported], name, count, rng)
        return found

    @cached_property
    def _replicates(self) -> Replicates:
        return Replicates(self.load_any, self.groups, lambda fingerprint: str(self.task_meta[fingerprint]["average"]))

    def answers(self, cell: CellId) -> Scores | tuple[tuple[str | None, ...], ...]:
        """Return the scores of a cell, or the texts of each of its documents: what the source of a task measures."""
        if not self.is_sampled(cell):
            return self.load(cell)
        rows = self.read_samples(cell.name)
        texts: list[list[str | None]] = [[] for _ in self.docs(cell.fingerprint).doc_ids]
        for i in np.lexsort((rows["sample"], rows["doc"])):
            texts[rows["doc"][i]].append(rows["text"][i])
        return tuple(map(tuple, texts))

    def read_task(self, task: str | None, metrics: Sequence[str | None]) -> Read:
        """Return the points of a task, which must be named where there are several; see `read_points`."""
        tasks = self.tasks(task)
        if len(tasks) > 1:
            raise UsageError(f"{self.path} has {len(tasks)} tasks; choose one with --task: {choose(tasks)}")
        ((name, own),) = tasks.items()
        there = self.metrics_of(name)
        known = {
            m for m in [own, *metrics[:1]] if m and (m in self.registries.metrics or m in there or is_of_source(m))
        }
        points = self.points(name, metrics=sorted(known | {m for m in metrics[1:] if m and m in there}))
        return Read(points, own, self if self.holds_errors_of(points) else None)

    def _of_source(self, cell: Cell, names: Sequence[str] | None, *, named_task: bool) -> list[SourceMetric]:
        fingerprint = cell.id.fingerprint
        source = self.task_meta[fingerprint].get("source")

        def read() -> tuple[Task, Any]:
            return self.task(fingerprint), self.answers(cell.id)

        return source_metrics(cell.task, source, self.registries, read, names, named_task=named_task)

    def _metrics(self, names: Sequence[str] | None, scores: Scored, *, named_task: bool) -> list[Metric]:
        applied = applicable(scores, self.registries)
        if names is None:
            return applied
        wanted: list[Metric] = [self.registries.metrics[name] for name in names if not is_of_source(name)]
        return wanted if named_task else [metric for metric in wanted if metric in applied]


def with_all_columns(points: pd.DataFrame) -> pd.DataFrame:
    """Return imported points with the columns of measured ones; what is unknown is missing.

    Intervals follow from standard errors; of rates they stay between 0 and 1.
    """
    if points.empty:
        return points
    unknown = [name for name in OF_POINTS if name not in points.columns]
    found = points.assign(**dict.fromkeys(unknown, np.nan))
    is_rate = (found["value"] >= 0) & (found["value"] <= 1)
    for name, sign in (("low", -1), ("high", 1)):
        end = found["value"] + sign * Z * found["stderr"]
        found[name] = found[name].fillna(end.where(~is_rate, end.clip(0, 1)))
    return found


def _without_cell(points: pd.DataFrame) -> Bools:
    """Mark points (n,) that were not measured here."""
    if "checkpoint" not in points.columns:
        return np.ones(len(points), dtype=np.bool_)
    return points["checkpoint"].isna().to_numpy(dtype=np.bool_)


def _normal(points: pd.DataFrame, name: str, count: int, rng: np.random.Generator) -> Floats:
    """Return a column of wide points (count, n) as its standard errors leave it open."""
    if points.empty:
        return np.empty((count, 0))
    values, errors = (pd.to_numeric(points[c]).to_numpy(dtype=np.float64) for c in (name, f"{name}_stderr"))
    return np.asarray(values + np.nan_to_num(errors) * rng.standard_normal((count, len(values))))


def _ordered(points: pd.DataFrame) -> pd.DataFrame:
    """Return points in the order of checkpoints, tasks and metrics."""
    keys = [name for name in (*KEYS, "task", "metric") if name in points.columns]
    return points.sort_values(keys, kind="stable", ignore_index=True)


def open_store(path: str | Path, *, create: bool = False, registries: Registries | None = None) -> PointStore:
    """Open a store; raise StoreError for a folder that is none, unless `create`."""
    return PointStore(path, create=create, registries=registries)


@dataclass(frozen=True)
class Read:
    """Points read from a store or table: with the task's metric and the store, if any, and notes on the rows."""

    points: pd.DataFrame
    metric: str | None = None
    store: PointStore | None = None  # where documents can be resampled
    notes: tuple[str, ...] = ()


def read_points(
    path: Path,
    task: str | None,
    metrics: Sequence[str | None],
    registries: Registries,
    *,
    drop_duplicates: bool = False,
) -> Read:
    """Read the points of a store or of a CSV or Parquet file.

    The first of `metrics` must apply to the task of a store; others are omitted if they do not apply. `drop_duplicates`
    keeps one of equal rows of a file; a store has none.
    """
    if path.is_dir():
        store = open_store(path, registries=registries)
        return store.read_task(task, metrics)
    table, notes = read_table(path, drop_duplicates=drop_duplicates)
    if task and "task" in table.columns:
        table = table[table["task"] == task]
    return Read(table, notes=notes)


def read_table(path: Path, *, drop_duplicates: bool = False) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a CSV or Parquet table with notes; `drop_duplicates` keeps one of rows equal in every column.

    Raises UsageError for any other file.
    """
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (*UNREADABLE, AttributeError, IndexError, MemoryError, OverflowError, RecursionError, SyntaxError) as error:
        raise UsageError(f"{path}: {error}; expected a store, or a CSV or Parquet table") from error
    twice = table.duplicated() if drop_duplicates else pd.Series(False, index=table.index)
    if not twice.any():
        return table, ()
    dropped = f"{int(twice.sum())} of {len(table)} rows are equal to others in every column and were dropped"
    return table[~twice].reset_index(drop=True), (dropped,)


def _what_is_missing(cells: Sequence[Cell], task: str | None, family: str | None) -> str:
    """Say why no cell is of a task and a family, and what to name instead."""
    tasks, families = {c.task for c in cells}, {c.checkpoint.family for c in cells}
    if task is not None and task not in tasks:
        return f"holds no records of task {task!r}; {suggest(task, tasks)}"
    if family is not None and family not in families:
        return f"holds no records of family {family!r}; {suggest(family, families)}"
    where = f" of task {task or '(any)'} and family {family or '(any)'}" if task or family else ""
    return f"holds no records{where}; it holds tasks {choose(tasks)} of families {choose(families)}"
