"""Points of groups whose tasks have several kinds: the source of the tasks aggregates its metrics over their cells.

Such a group has a cell per task and none of its own, so its points have a standard error and no documents.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd

from harness.errors import HarnessError, choose
from harness.files import digest_of
from harness.store.cells import Cell
from harness.store.frames import checkpoint_columns
from harness.store.imported import MEASURED
from harness.store.sourced import SourcedStore
from harness.types import Json, Scalar, SourceMetric

IDENTITY = ("settings", "fingerprint", "checkpoint")  # columns of points that name a cell


class GroupedStore(SourcedStore):
    """A store that also has points of groups of tasks."""

    def group_points(self) -> pd.DataFrame:
        """Return the points of all groups whose tasks are complete, without the columns of cells; possibly none."""
        rows = [
            _row(cells[0], name, metric) for name, cells in self._cells_of_groups() for metric in self._of_group(cells)
        ]
        return pd.DataFrame(rows)

    def group_metrics(self) -> dict[str, list[SourceMetric]]:
        """Return the metrics of each group, by its name; the first one is its own."""
        found = ((name, self._of_group(cells)) for name, cells in self._cells_of_groups())
        return {name: metrics for name, metrics in found if metrics}

    def why_no_cells(self, name: str | None) -> str:
        """Return why a task has no cells, if it is a group: what to do instead; else ""."""
        parts = sorted({cell.task for group, cells in self._cells_of_groups() if group == name for cell in cells})
        if not parts:
            return ""
        if name in self.group_metrics():
            return f"{name} is a group of several kinds of tasks, with points and no documents; choose {choose(parts)}"
        return f"of the group {name} only {choose(parts)} is complete; run harness eval --tasks {name}"

    def _cells_of_groups(self) -> Iterator[tuple[str, list[Cell]]]:
        """Yield the name of a group and the cells of one checkpoint, of equal settings, that are part of it."""
        if not any(_group_of(meta.get("source")) for meta in self.task_meta.values()):
            return
        together: dict[str, list[Cell]] = {}
        for cell in self.cells():
            source = self.task_meta[cell.id.fingerprint].get("source")
            if group := _group_of(source):
                settings = replace(cell.settings, sampling={}, truncation="").digest
                key = digest_of([group, cell.checkpoint.label, cell.id.checkpoint, settings])
                together.setdefault(key, []).append(cell)
        for cells in together.values():
            source = self.task_meta[cells[0].id.fingerprint]["source"]
            yield f"{source['prefix']}:{source['part_of'].get('task', source['part_of']['name'])}", cells

    def _of_group(self, cells: Sequence[Cell]) -> list[SourceMetric]:
        """Return the metrics of a group; none if a task is missing, and a warning if they cannot be computed."""
        key = "+".join(sorted(cell.id.name for cell in cells))
        if key not in self._grouped:
            prefix = str(self.task_meta[cells[0].id.fingerprint]["source"]["prefix"])
            measure = self.registries.sources[prefix].groups
            try:
                parts = [(self.task(cell.id.fingerprint), self.answers(cell.id)) for cell in cells]
                self._grouped[key] = list(measure(parts)) if measure else []
            except HarnessError as error:
                warnings.warn(f"groups of {prefix} are left out: {error}", stacklevel=2)
                self._grouped[key] = []
        return self._grouped[key]

    @cached_property
    def _grouped(self) -> dict[str, list[SourceMetric]]:
        return {}


def _group_of(source: Json) -> Json:
    return source.get("part_of") if isinstance(source, dict) else None


def _row(cell: Cell, task: str, metric: SourceMetric) -> dict[str, Scalar]:
    known = {name: value for name, value in checkpoint_columns(cell).items() if name not in {*IDENTITY, "sampling"}}
    value: dict[str, Scalar] = {"metric": metric.name, "value": metric.value, "stderr": metric.stderr, "n": metric.n}
    return known | {"task": task, "origin": MEASURED} | value | dict.fromkeys(IDENTITY, np.nan)
