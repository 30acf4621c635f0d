"""Points of groups whose tasks have several kinds: the source of the tasks aggregates its metrics over their cells.

Such a group has a cell per task and none of its own, so its points have a standard error and no documents.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from harness.errors import HarnessError, choose
from harness.files import digest_of
from harness.store.cells import Cell
from harness.store.documents import parts_of
from harness.store.frames import checkpoint_columns
from harness.store.imported import MEASURED
from harness.store.sourced import SourcedStore
from harness.types import Scalar, SourceMetric

IDENTITY = ("settings", "fingerprint", "checkpoint")  # columns of points that name a cell


class Group(NamedTuple):
    """A group as its source describes it, and the cells of one checkpoint that are part of it, of equal settings."""

    about: Mapping[str, Any]
    prefix: str
    cells: list[Cell]

    @property
    def name(self) -> str:
        """Return the name of the group as a task."""
        return f"{self.prefix}:{self.about.get('task', self.about['name'])}"

    @property
    def key(self) -> str:
        """Return what the values of its metrics depend on."""
        return digest_of([dict(self.about), sorted(cell.id.name for cell in self.cells)])


class GroupedStore(SourcedStore):
    """A store that also has points of groups of tasks."""

    def group_points(self) -> pd.DataFrame:
        """Return the points of all groups whose tasks are complete, without the columns of cells; possibly none."""
        pairs = [(group, metric) for group in self._all_groups() for metric in self._of_group(group)]
        return pd.DataFrame([_row(group.cells[0], group.name, metric) for group, metric in pairs])

    def group_metrics(self) -> dict[str, list[SourceMetric]]:
        """Return the metrics of each group, by its name; the first one is its own."""
        pairs = ((group.name, self._of_group(group)) for group in self._all_groups())
        return {name: metrics for name, metrics in pairs if metrics}

    def why_no_cells(self, name: str | None) -> str:
        """Return why a task has no cells, if it is a group: what to do instead; else ""."""
        parts = sorted({cell.task for group in self._all_groups() if group.name == name for cell in group.cells})
        if not parts:
            return ""
        if name in self.group_metrics():
            return f"{name} is a group of several kinds of tasks, with points and no documents; choose {choose(parts)}"
        return f"of the group {name} only {choose(parts)} is complete; run harness eval --tasks {name}"

    def _all_groups(self) -> list[Group]:
        """Return all groups, one for each checkpoint and settings."""
        cells = self.cells()  # first, because it reads new tasks
        sources = {name: meta.get("source") or {} for name, meta in self.task_meta.items()}
        together: dict[str, Group] = {}
        for cell in cells if any(map(parts_of, sources.values())) else ():
            source = sources[cell.id.fingerprint]
            settings = replace(cell.settings, sampling={}, truncation="").digest
            for about in parts_of(source):
                key = digest_of([dict(about), cell.checkpoint.label, cell.id.checkpoint, settings])
                together.setdefault(key, Group(about, source["prefix"], [])).cells.append(cell)
        return list(together.values())

    def _of_group(self, group: Group) -> list[SourceMetric]:
        """Return the metrics of a group; none if a task is missing, and a warning if they cannot be computed."""
        if group.key not in self._grouped:
            try:
                measure = self.registries.sources[group.prefix].groups
                parts = [(self.task(cell.id.fingerprint), self.answers(cell.id)) for cell in group.cells]
                self._grouped[group.key] = list(measure(group.about, parts)) if measure else []
            except HarnessError as error:
                warnings.warn(f"the points of {group.name} are left out: {error}", stacklevel=2)
                self._grouped[group.key] = []
        return self._grouped[group.key]

    @cached_property
    def _grouped(self) -> dict[str, list[SourceMetric]]:
        return {}


def _row(cell: Cell, task: str, metric: SourceMetric) -> dict[str, Scalar]:
    known = {name: value for name, value in checkpoint_columns(cell).items() if name not in {*IDENTITY, "sampling"}}
    value: dict[str, Scalar] = {"metric": metric.name, "value": metric.value, "stderr": metric.stderr, "n": metric.n}
    return known | {"task": task, "origin": MEASURED} | value | dict.fromkeys(IDENTITY, np.nan)
