"""Metrics of cells in resamples of their documents, kept so that fits of the same points do not read cells again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.metrics.resampling import document_weights, reweighted
from harness.metrics.samples import Scored
from harness.store.identity import CellId
from harness.types import Floats, Metric

KEPT_BYTES = 1 << 28  # 256 MiB; about 33,000 values of a metric in 1,000 resamples each


@dataclass(frozen=True)
class Draw:
    """Resamples of the documents of one task: their number, and the state of the generator before they are drawn."""

    fingerprint: str
    count: int
    state: str


@dataclass
class Replicates:
    """Replicates of metrics by cell and draw; the values are those of drawing again.

    `load` returns the scores of a cell, `average` the way of averaging groups of a fingerprint, `bind` a metric for one
    cell.
    """

    load: Callable[[CellId], Scored]
    average: Callable[[str], str]
    bind: Callable[[Metric, CellId], Metric] = lambda metric, _: metric  # to the values of one cell
    _columns: dict[tuple[Draw, CellId, str], Floats] = field(default_factory=dict)
    _states: dict[Draw, tuple[Any, Any]] = field(default_factory=dict)  # of the generator, before and after
    _weights: dict[Draw, Floats] = field(default_factory=dict)  # (count, documents); between calls, of one task only
    _bytes: int = 0

    def of(
        self, cells: Sequence[CellId], metrics: Sequence[Metric], count: int, rng: np.random.Generator
    ) -> dict[str, Floats]:
        """Return replicates (count, n) of each metric for n cells; cells of a task share their resamples."""
        replicates = {metric.name: np.empty((count, len(cells))) for metric in metrics}
        draws: dict[str, Draw] = {}
        for i, cell in enumerate(cells):
            if cell.fingerprint not in draws:
                draws[cell.fingerprint] = self._advance(cell, count, rng)
            for name, column in self._of_cell(cell, draws[cell.fingerprint], metrics).items():
                replicates[name][:, i] = column
        self._weights = dict(list(self._weights.items())[-1:])
        return replicates

    def _advance(self, cell: CellId, count: int, rng: np.random.Generator) -> Draw:
        """Draw the resamples of a task, or set the generator to its state after an equal, earlier draw."""
        before = rng.bit_generator.state
        draw = Draw(cell.fingerprint, count, repr(before))
        if draw in self._states:
            rng.bit_generator.state = self._states[draw][1]
            return draw
        self._weights[draw] = document_weights(self.load(cell), count, rng)
        self._states[draw] = before, rng.bit_generator.state
        return draw

    def _of_cell(self, cell: CellId, draw: Draw, metrics: Sequence[Metric]) -> dict[str, Floats]:
        keys = {metric.name: (draw, cell, metric.name) for metric in metrics}
        kept = {name: self._columns[key] for name, key in keys.items() if key in self._columns}
        missing = [metric for metric in metrics if metric.name not in kept]
        computed = self._computed(cell, draw, missing) if missing else {}
        self._keep(cell, draw, computed)
        return kept | computed

    def _computed(self, cell: CellId, draw: Draw, metrics: Sequence[Metric]) -> dict[str, Floats]:
        scores = self.load(cell)
        if draw not in self._weights:
            rng = np.random.default_rng()
            rng.bit_generator.state = self._states[draw][0]
            self._weights[draw] = document_weights(scores, draw.count, rng)
        weights, average = self._weights[draw], self.average(draw.fingerprint)
        bound = (self.bind(metric, cell) for metric in metrics)
        return {metric.name: reweighted(metric, scores, weights, average) for metric in bound}

    def _keep(self, cell: CellId, draw: Draw, columns: Mapping[str, Floats]) -> None:
        added = sum(column.nbytes for column in columns.values())
        if self._bytes + added > KEPT_BYTES:
            self._columns.clear()
            self._bytes = 0
        self._columns |= {(draw, cell, name): column for name, column in columns.items()}
        self._bytes += added
