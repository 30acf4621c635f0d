"""Metrics of the sources of tasks, computed from the answers in the store and kept while it is open."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from harness.errors import MetricError
from harness.host.registries import Registries
from harness.metrics.aggregation import evaluate
from harness.store.cells import Cell
from harness.store.identity import CellId
from harness.store.imported import ImportedStore
from harness.store.source_metrics import Answers, is_of_source, source_metrics
from harness.types import Floats, Metric, SourceMetric


def _of_values(name: str, values: Floats) -> Metric:
    """Return a metric that has these values for documents (n,)."""
    return Metric(name, lambda _: values)


def unbound(name: str) -> Metric:
    """Return a metric of the source of a task, which `SourcedStore.bound` gives the values of a cell."""
    return _of_values(name, np.empty(0))


class SourcedStore(ImportedStore):
    """A store that also has the metrics which sources of tasks compute themselves."""

    registries: Registries

    def answers(self, cell: CellId) -> Answers:
        """Return the scores of a cell, or the texts of each of its documents: what the source of a task measures."""
        if not self.is_sampled(cell):
            return self.load(cell)
        rows = self.read_samples(cell.name)
        texts: list[list[str | None]] = [[] for _ in self.docs(cell.fingerprint).doc_ids]
        for i in np.lexsort((rows["sample"], rows["doc"])):
            text = rows["text"][i]
            texts[rows["doc"][i]].append(text if isinstance(text, str) else None)  # pandas has NaN for no text
        return tuple(map(tuple, texts))

    def of_source(self, cell: Cell, names: Sequence[str] | None, *, named_task: bool) -> list[SourceMetric]:
        """Return metrics of a cell that the source of its task computes; see `source_metrics`."""
        source = self.task_meta[cell.id.fingerprint].get("source")

        def compute() -> list[SourceMetric]:
            return self._all_of_source(cell.id)

        return source_metrics(cell.task, source, self.registries, compute, names, named_task=named_task)

    def _all_of_source(self, cell: CellId) -> list[SourceMetric]:
        """Return all metrics that the source of a task computes of a cell, or none; computed once."""
        source = self.task_meta[cell.fingerprint].get("source")
        measure = self.registries.sources[source["prefix"]].metrics if source else None
        if cell.name not in self._sourced:
            self._sourced[cell.name] = list(measure(self.task(cell.fingerprint), self.answers(cell))) if measure else []
        return self._sourced[cell.name]

    def _metric_of(self, cell: CellId, name: str) -> SourceMetric | None:
        return next((metric for metric in self._all_of_source(cell) if metric.name == name), None)

    @cached_property
    def _sourced(self) -> dict[str, list[SourceMetric]]:
        return {}

    def bound(self, metric: Metric, cell: CellId) -> Metric:
        """Return a metric; one of the source of a task with the values of a cell."""
        if not is_of_source(metric.name):
            return metric
        source_metric = self._metric_of(cell, metric.name)
        if source_metric is None or source_metric.values is None:
            raise MetricError(f"the metric {metric.name} has no values of documents")
        return _of_values(metric.name, source_metric.values)

    def is_mean(self, cell: CellId, name: str) -> bool:
        """Say whether a metric of the source of a task is the mean of its values of documents."""
        source_metric = self._metric_of(cell, name)
        if source_metric is None or source_metric.values is None:
            return False
        average = str(self.task_meta[cell.fingerprint]["average"])
        mean = evaluate(_of_values(name, source_metric.values), self.load_any(cell), average).value
        return bool(np.isclose(mean, source_metric.value, rtol=1e-9))
