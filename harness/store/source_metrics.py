"""Metrics that the source of a task computes itself, from the answers in the store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from harness.errors import HarnessError, MetricError, choose
from harness.host.registries import Registries
from harness.metrics.scores import Scores
from harness.types import SourceMetric
from harness.types.json import JsonObject

Answers = Scores | tuple[tuple[str | None, ...], ...]  # of a cell: scores, or the texts of each document


def is_of_source(metric: str) -> bool:
    """Tell whether a name is a source's metric, prefix:METRIC."""
    return ":" in metric


def source_metrics(
    task: str,
    source: JsonObject | None,
    registries: Registries,
    compute: Callable[[], list[SourceMetric]],
    names: Sequence[str] | None,
    *,
    named_task: bool,
) -> list[SourceMetric]:
    """Return the metrics of a cell that the source of its task computes (names None: all).

    `compute` returns all metrics of the cell. Without names, a source that cannot compute them (its package is not
    installed) causes a warning. Raises MetricError for an unknown name if the task was named.
    """
    wanted = None if names is None else {name for name in names if is_of_source(name)}
    if source is None or wanted == set():
        if wanted and named_task:
            raise MetricError(f"the source of the task {task} has no metric {choose(wanted)}")
        return []
    prefix = str(source["prefix"])
    registered = registries.sources[prefix]
    if registered.metrics is None:
        return []
    try:
        metrics = compute()
    except HarnessError as error:
        if wanted:
            raise
        warnings.warn(f"{task}: metrics of {prefix} are left out: {error}", stacklevel=2)
        return []
    if wanted is None:
        return metrics
    missing = wanted - {metric.name for metric in metrics}
    if missing and named_task:
        raise MetricError(f"the task {task} has no metric {choose(missing)}; it has {choose(m.name for m in metrics)}")
    return [metric for metric in metrics if metric.name in wanted]
