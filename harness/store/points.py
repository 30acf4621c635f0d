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
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.charts import with_figure
from harness.errors import MetricError, StoreError, UsageError, choose, suggest
from harness.host import default_host
from harness.host.registries import Registries
from harness.metrics.aggregation import applicable
from harness.store.cells import Cell
from harness.store.documents import TaskMeta
from harness.store.frames import checkpoint_columns, document_frame, frame_of, source_frame
from harness.store.identity import CellId
from harness.store.imported import MEASURED, SAMPLES_ENGINE, ImportMeta
from harness.store.measured import Measuring
from harness.store.point_figures import points_chart
from harness.store.point_frames import ordered, redrawn, without_cell
from harness.store.record_tables import RecordStore
from harness.store.replicates import Replicates
from harness.store.source_metrics import is_of_source
from harness.store.sourced import unbound
from harness.tables import Table
from harness.types import Floats, Metric

if TYPE_CHECKING:
    from harness.charts import Chart

__all__ = ["Cell", "ImportMeta", "PointStore", "Read", "TaskMeta", "checkpoint_columns", "open_store"]

UNITS = ("checkpoint", "document", "choice")
AT_ONCE = 500  # cells up to which a notebook shows the figure of a store


class PointStore(RecordStore):
    """A store that returns pandas frames. Open one with `harness.open_store`."""

    def __init__(self, path: str | Path, *, create: bool = False, registries: Registries | None = None) -> None:
        super().__init__(path, create=create)
        self.registries = registries or default_host()

    def _repr_html_(self) -> str:
        """Return the tasks of the store for a notebook, with the numbers of cells and imported points of each.

        The scores are drawn below, where there are few enough cells to read them at once.
        """
        cells, imported = [cell.task for cell in self.cells()], self.without_cells
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
        metrics = self.tasks(task)
        points = self.points(task, metrics=sorted(set(metrics.values())))
        return points_chart(points[points["metric"] == points["task"].map(metrics)], task, x=x, log_x=log_x)

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
            return ordered(imported)
        self._expect_own_names(metrics or (), set(imported["metric"]))
        known = (
            None
            if metrics is None
            else [name for name in metrics if name in self.registries.metrics or is_of_source(name)]
        )
        try:
            measured = self._measured(cells, known, unit, named_task=False)
            measured["origin"] = measured["engine"].where(measured["engine"] == SAMPLES_ENGINE, MEASURED)
        except MetricError:  # of the imported points alone
            return ordered(imported)
        return ordered(pd.concat([measured, imported], ignore_index=True))

    def _measured(
        self, cells: Sequence[Cell], metrics: Sequence[str] | None, unit: str, *, named_task: bool
    ) -> pd.DataFrame:
        """Return values of metrics: one row per cell, or one row per document."""
        how = Measuring(self, metrics, named_task, self._replicates.keep)
        frame = frame_of(how.points(cells)) if unit == "checkpoint" else self._documents(cells, how)
        if frame.empty:
            raise MetricError(
                f"the metrics {choose(metrics or ())} apply to no task in {self.path}; see harness ls metrics"
            )
        return ordered(frame)

    def _documents(self, cells: Sequence[Cell], how: Measuring) -> pd.DataFrame:
        """Return values of metrics: one row per document."""
        frames = list[pd.DataFrame]()
        for cell in cells:
            scores = self.load_any(cell.id)
            frames += [document_frame(self, cell, measured) for measured in how.valued(cell, scores)]
            of_source = self.of_source(cell, how.names, named_task=how.named_task)
            frames += [source_frame(self, cell, m, scores) for m in of_source if m.values is not None]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def tasks(self, task: str | None = None) -> dict[str, str]:
        """Return the metric that tables show for each task (or for the named one), measured or imported.

        Raises StoreError if there is none.
        """
        task_metrics = {str(meta["name"]): str(meta["metric"]) for meta in self.task_meta.values()}
        others = self.without_cells
        readable = set() if others.empty else set(others["task"])  # not those of damaged files
        imports = self.imports.values()
        other_metrics = {name: metric for about in imports for name, metric in about["shown_metrics"].items()}
        other_metrics |= {name: metrics[0].name for name, metrics in self.group_metrics().items()}
        if task is not None and other_metrics:
            known = {cell.task for cell in self.cells()} | set(other_metrics)
            if task not in known:
                raise StoreError(f"{self.path} has no task {task!r}; {suggest(task, known)}")
        other_metrics = {
            name: metric for name, metric in other_metrics.items() if name in readable and task in (None, name)
        }
        if other_metrics and not self.selected(task, None):
            return other_metrics
        return other_metrics | {cell.task: task_metrics[cell.task] for cell in self.select(task)}

    def metrics_of(self, task: str) -> set[str]:
        """Return the metrics of a task's points, measured or imported."""
        cells, imported = self.selected(task), self._imported(task, None, None)
        measured = set[str]()
        if cells:
            task_metric = str(self.task_meta[cells[0].id.fingerprint]["metric"])
            measured = {metric.name for metric in applicable(self.load_any(cells[0].id), self.registries, task_metric)}
        return measured | (set() if imported.empty else set(imported["metric"]))

    def rises(self, metric: str) -> bool:
        """Tell whether higher is better, for a registered metric or according to the import of its points."""
        if metric in self.registries.metrics:
            return bool(self.registries.metrics[metric].higher_is_better)
        if is_of_source(metric):
            of_cells = (self.of_source(cell, [metric], named_task=False) for cell in self.cells())
            of_groups = ([m for m in group if m.name == metric] for group in self.group_metrics().values())
            return next((metrics[0].higher_is_better for metrics in chain(of_cells, of_groups) if metrics), True)
        return all(about["rises"].get(metric, True) for about in self.imports.values())

    def holds_errors_of(self, points: pd.DataFrame) -> bool:
        """Tell whether all points have known errors: documents in this store, or a standard error."""
        known = points["stderr"].notna() if "stderr" in points.columns else pd.Series(False, index=points.index)
        return (
            bool((points["checkpoint"].notna() | known).all()) if "checkpoint" in points.columns else bool(known.all())
        )

    def replicates(
        self,
        points: pd.DataFrame,
        names: Sequence[str],
        count: int,
        rng: np.random.Generator,
        *,
        errors: np.random.Generator | None = None,
    ) -> dict[str, Floats]:
        """Return metrics of wide points in resamples of their documents: (count, n) each.

        All checkpoints of a task share the resamples, because they share the documents. Imported points have none, and
        some metrics of the sources of tasks have no values of documents: each is drawn from its standard error with
        `errors` (default: rng), or stays as it is if that is unknown. Names that are not metrics (such as a loss of a
        family file) are omitted.
        """
        imported, errors = without_cell(points), errors or rng
        if not imported.any():
            return self._of_documents(points, names, count, (rng, errors))
        known = [name for name in names if self._is_metric(name) or f"{name}_stderr" in points.columns]
        resamples = {name: np.empty((count, len(points))) for name in known}
        documents = points[~imported]
        measured = {} if documents.empty else self._of_documents(documents, names, count, (rng, errors))
        for name, column in resamples.items():
            column[:, ~imported] = measured.get(name, np.nan)
            column[:, imported] = redrawn(points[imported], name, count, errors)
        return resamples

    def _is_metric(self, name: str) -> bool:
        return name in self.registries.metrics or is_of_source(name)

    def _of_documents(
        self,
        points: pd.DataFrame,
        names: Sequence[str],
        count: int,
        rngs: tuple[np.random.Generator, np.random.Generator],
    ) -> dict[str, Floats]:
        """Return metrics of points that were measured here in resamples of their documents: (count, n) each.

        The generators draw documents, and the errors of metrics without values of documents.
        """
        columns = points[["checkpoint", "fingerprint", "settings"]].itertuples(index=False)
        cells = [CellId(*ids) for ids in columns]
        registered: list[Metric] = [self.registries.metrics[name] for name in names if name in self.registries.metrics]
        of_source = [name for name in names if is_of_source(name)]
        means = [unbound(name) for name in of_source if all(self.is_mean(cell, name) for cell in cells)]
        resamples = self._replicates.of(cells, registered + means, count, rngs[0])
        return resamples | {name: redrawn(points, name, count, rngs[1]) for name in of_source if name not in resamples}

    @cached_property
    def _replicates(self) -> Replicates:
        return Replicates(
            self.load_any, self.groups, lambda fingerprint: str(self.task_meta[fingerprint]["average"]), self.bound
        )

    def read_task(self, task: str | None, metrics: Sequence[str | None]) -> Read:
        """Return the points of a task, which must be named if the store has several; see `read_points`."""
        tasks = self.tasks(task)
        if len(tasks) > 1:
            raise UsageError(f"{self.path} has {len(tasks)} tasks; choose one with --task: {choose(tasks)}")
        ((name, metric),) = tasks.items()
        stored_metrics = self.metrics_of(name)
        self._expect_own_names(metrics, stored_metrics)
        known = {
            m
            for m in [metric, *metrics[:1]]
            if m and (m in self.registries.metrics or m in stored_metrics or is_of_source(m))
        }
        points = self.points(name, metrics=sorted(known | {m for m in metrics[1:] if m and m in stored_metrics}))
        return Read(points, metric, self if self.holds_errors_of(points) else None)

    def _expect_own_names(self, metrics: Sequence[str | None], stored_metrics: set[str]) -> None:
        """Raise UsageError for a name that another program has for a metric, unless points of that name are there."""
        for metric in metrics:
            if metric in self.registries.metrics.elsewhere and metric not in stored_metrics:
                _ = self.registries.metrics[str(metric)]


def open_store(path: str | Path, *, create: bool = False, registries: Registries | None = None) -> PointStore:
    """Open a store; raise StoreError for a folder that is not a store, unless `create`."""
    return PointStore(path, create=create, registries=registries)


@dataclass(frozen=True)
class Read:
    """Points read from a store or table: with the task's metric and the store, if any, and notes on the rows."""

    points: pd.DataFrame
    metric: str | None = None
    store: PointStore | None = None  # where documents can be resampled
    notes: tuple[str, ...] = ()
