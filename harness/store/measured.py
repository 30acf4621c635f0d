"""Points of cells; many small cells of one task are measured together, which gives the same values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.metrics.aggregation import applicable, estimates
from harness.metrics.per_document import per_document
from harness.metrics.samples import Scored
from harness.metrics.stacks import Stack
from harness.store.cells import Cell
from harness.store.frames import Valued, checkpoint_columns, point_of, row_of, source_point
from harness.store.identity import CellId
from harness.store.source_metrics import is_of_source
from harness.store.sourced import SourcedStore
from harness.types import Floats, Metric, Scalar

DOCUMENTS = 1 << 14  # measured together
Row = dict[str, Scalar]
Keep = Callable[[CellId, Metric, Sequence[Floats]], None]
"""(cell, metric, columns (n,)): keep values per document for later"""


@dataclass(frozen=True)
class Measuring:
    """What is measured: names of metrics (None: all that apply), and whether a name must apply."""

    store: SourcedStore
    names: Sequence[str] | None
    named_task: bool
    keep: Keep

    def points(self, cells: Sequence[Cell]) -> list[Row]:
        """Return the points of cells, in the order of cells and metrics."""
        rows: dict[int, list[Row]] = {}
        for numbers in self._batches(cells):
            batch = [cells[number] for number in numbers]
            rows |= dict(zip(numbers, self._of(batch), strict=True))
        return [row for number in range(len(cells)) for row in rows[number]]

    def metrics(self, cell: CellId, scores: Scored) -> list[Metric]:
        """Return the registered metrics of the scores of a cell."""
        registries = self.store.registries
        if self.names is None:
            return applicable(scores, registries, str(self.store.task_meta[cell.fingerprint]["metric"]))
        wanted: list[Metric] = [registries.metrics[name] for name in self.names if not is_of_source(name)]
        return wanted if self.named_task else [metric for metric in wanted if set(metric.needs) <= scores.offers]

    def valued(self, cell: Cell, scores: Scored) -> list[Valued]:
        """Return the metrics of a cell with their values per document, which are kept."""
        measured = [Valued(metric, scores, per_document(metric, scores)) for metric in self.metrics(cell.id, scores)]
        for valued in measured:
            self.keep(cell.id, valued.metric, valued.values.columns)
        return measured

    def _batches(self, cells: Sequence[Cell]) -> Iterator[list[int]]:
        """Yield numbers of cells that are measured together: of one task, without metrics of its source."""

        def task(number: int) -> str:
            return cells[number].id.fingerprint

        for fingerprint, members in groupby(sorted(range(len(cells)), key=task), key=task):
            numbers = list(members)
            size = max(DOCUMENTS // len(self.store.docs(fingerprint).doc_ids), 1) if self._stacks(fingerprint) else 1
            yield from (numbers[i : i + size] for i in range(0, len(numbers), size))

    def _stacks(self, fingerprint: str) -> bool:
        meta = self.store.task_meta[fingerprint]
        sourced = bool(meta.get("source")) and (self.names is None or any(map(is_of_source, self.names)))
        return meta["kind"] != "generate" and not sourced

    def _of(self, cells: Sequence[Cell]) -> list[list[Row]]:
        """Return the points of each cell of a batch."""
        stack = self.store.load_stack([cell.id for cell in cells]) if len(cells) > 1 else None
        return [self._alone(cell) for cell in cells] if stack is None else self._together(cells, stack)

    def _alone(self, cell: Cell) -> list[Row]:
        scores = self.store.load_any(cell.id)
        rows = [point_of(self.store, cell, measured) for measured in self.valued(cell, scores)]
        of_source = self.store.of_source(cell, self.names, named_task=self.named_task)
        return [*rows, *(source_point(cell, metric, scores) for metric in of_source)]

    def _together(self, cells: Sequence[Cell], stack: Stack) -> list[list[Row]]:
        fingerprint = cells[0].id.fingerprint
        groups, average = self.store.groups(fingerprint), str(self.store.task_meta[fingerprint]["average"])
        rows: list[list[Row]] = [[] for _ in cells]
        truncated, known = stack.n_truncated, [checkpoint_columns(cell) for cell in cells]
        for metric in self.metrics(cells[0].id, stack.one):
            columns, ties = stack.per_document(metric)
            values = estimates(metric, columns, ties, groups, average)
            for number, (cell, value) in enumerate(zip(cells, values, strict=True)):
                self.keep(cell.id, metric, [column[number].copy() for column in columns])
                of_cell = row_of(known[number], metric, value, truncated=int(truncated[number]), scores=stack.one)
                rows[number].append(of_cell)
        return rows
