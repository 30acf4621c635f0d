"""Metrics of cells in resamples of their documents, kept so that fits of the same points do not read cells again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.metrics.per_document import per_document
from harness.metrics.resampling import DocumentWeights, document_weights
from harness.metrics.samples import Scored
from harness.metrics.standard_errors import Groups
from harness.store.identity import CellId
from harness.types import Bools, Floats, Metric

KEPT_BYTES = 1 << 28  # 256 MiB; about 33,000 values of a metric in 1,000 resamples each
VALUES_BYTES = 1 << 27  # 128 MiB of values per document; accuracies take a byte each


State = Mapping[str, object]  # of a generator of random numbers


@dataclass(frozen=True)
class Draw:
    """Resamples of the documents of one task: their number, and the state of the generator before they are drawn."""

    fingerprint: str
    count: int
    state: str


@dataclass
class Replicates:
    """Replicates of metrics by cell and draw; the values are those of drawing again.

    `load` returns the scores of a cell, `groups` and `average` the groups of documents of a fingerprint and the way of
    averaging them, `bind` a metric for one cell.
    """

    load: Callable[[CellId], Scored]
    groups: Callable[[str], Groups]
    average: Callable[[str], str]
    bind: Callable[[Metric, CellId], Metric] = lambda metric, _: metric  # to the values of one cell
    _columns: dict[tuple[Draw, CellId, str], Floats] = field(default_factory=dict)
    _values: dict[tuple[CellId, str], tuple[Floats | Bools, ...]] = field(default_factory=dict)
    _states: dict[Draw, tuple[State, State]] = field(default_factory=dict)  # of the generator, before and after
    _weights: dict[Draw, DocumentWeights] = field(default_factory=dict)  # between calls, of one task only
    _bytes: int = 0
    _value_bytes: int = 0

    def keep(self, cell: CellId, metric: Metric, columns: Sequence[Floats]) -> None:
        """Keep values per document of a cell that was read, if there is space, so that it is not read again."""
        packed = tuple(map(_packed, columns))
        size = sum(column.nbytes for column in packed)
        known = self._values.pop((cell, metric.name), ())
        self._value_bytes -= sum(column.nbytes for column in known)
        if self._value_bytes + size <= VALUES_BYTES:
            self._values[cell, metric.name] = packed
            self._value_bytes += size

    def of(
        self, cells: Sequence[CellId], metrics: Sequence[Metric], count: int, rng: np.random.Generator
    ) -> dict[str, Floats]:
        """Return replicates (count, n) of each metric for n cells; cells of a task share their resamples."""
        replicates = {metric.name: np.empty((count, len(cells))) for metric in metrics}
        draws: dict[str, Draw] = {}
        for i, cell in enumerate(cells):
            if cell.fingerprint not in draws:
                draws[cell.fingerprint] = self._advance(cell.fingerprint, count, rng)
            for name, column in self._of_cell(cell, draws[cell.fingerprint], metrics).items():
                replicates[name][:, i] = column
        self._weights = dict(list(self._weights.items())[-1:])
        return replicates

    def _advance(self, fingerprint: str, count: int, rng: np.random.Generator) -> Draw:
        """Draw the resamples of a task, or set the generator to its state after an equal, earlier draw."""
        before = rng.bit_generator.state
        draw = Draw(fingerprint, count, repr(before))
        if draw in self._states:
            rng.bit_generator.state = self._states[draw][1]
            return draw
        self._draw(draw, rng)
        self._states[draw] = before, rng.bit_generator.state
        return draw

    def _draw(self, draw: Draw, rng: np.random.Generator) -> None:
        groups = self.groups(draw.fingerprint)
        drawn = document_weights(groups, draw.count, rng)
        self._weights[draw] = DocumentWeights(drawn, groups, self.average(draw.fingerprint))

    def _of_cell(self, cell: CellId, draw: Draw, metrics: Sequence[Metric]) -> dict[str, Floats]:
        keys = {metric.name: (draw, cell, metric.name) for metric in metrics}
        known = {name: self._columns[key] for name, key in keys.items() if key in self._columns}
        missing = [metric for metric in metrics if metric.name not in known]
        computed = self._computed(cell, draw, missing) if missing else {}
        self._keep(cell, draw, computed)
        return known | computed

    def _computed(self, cell: CellId, draw: Draw, metrics: Sequence[Metric]) -> dict[str, Floats]:
        if draw not in self._weights:
            rng = np.random.default_rng()
            rng.bit_generator.state = self._states[draw][0]
            self._draw(draw, rng)
        values = self._per_document(cell, metrics)
        return {metric.name: self._weights[draw].of(metric, values[metric.name]) for metric in metrics}

    def _per_document(self, cell: CellId, metrics: Sequence[Metric]) -> dict[str, tuple[Floats, ...]]:
        """Return the columns of metrics per document; reads the cell only where they are not kept."""
        missing = [metric for metric in metrics if (cell, metric.name) not in self._values]
        scores = self.load(cell) if missing else None
        bound = [self.bind(metric, cell) for metric in missing]
        computed = {metric.name: per_document(metric, scores).columns for metric in bound if scores is not None}
        known = {metric.name: self._values[cell, metric.name] for metric in metrics if metric.name not in computed}
        return computed | {
            name: tuple(np.asarray(c, dtype=np.float64) for c in columns) for name, columns in known.items()
        }

    def _keep(self, cell: CellId, draw: Draw, columns: Mapping[str, Floats]) -> None:
        added = sum(column.nbytes for column in columns.values())
        if self._bytes + added > KEPT_BYTES:
            self._columns.clear()
            self._bytes = 0
        self._columns |= {(draw, cell, name): column for name, column in columns.items()}
        self._bytes += added


def _packed(column: Floats) -> Floats | Bools:
    """Return a column as bytes where it is 0 or 1 everywhere, and as it is otherwise."""
    packed = column.astype(np.bool_)
    return packed if (packed == column).all() else column
