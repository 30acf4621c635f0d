"""Scores of many cells of one task, one after the other, so that a metric is called once for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.host.origins import PLUGIN_ERRORS
from harness.metrics.per_document import Applied, applied
from harness.metrics.scores import Scores
from harness.types import Floats, Ints, Metric

Columns = tuple[Floats, ...]  # of k cells, (k, n) each
Ties = list[int | None]  # of each cell


@dataclass(frozen=True)
class Stack:
    """The scores of k cells of n documents: the documents of the first cell, then those of the second ..."""

    scores: Scores
    count: int

    def __len__(self) -> int:
        return self.count

    @cached_property
    def one(self) -> Scores:
        """Return the scores of the first cell."""
        return self.scores.part(0, self.count)

    @cached_property
    def last(self) -> Scores:
        """Return the scores of the last cell."""
        return self.scores.part(self.count - 1, self.count)

    @property
    def n_truncated(self) -> Ints:
        """Return the number of documents with a truncated context in each cell (k,)."""
        marks = np.logical_or.reduceat(self.scores.truncated, self.scores.first)
        return np.asarray(marks.reshape(self.count, -1).sum(axis=1), dtype=np.int64)

    def per_document(self, metric: Metric) -> tuple[Columns, Ties]:
        """Apply a metric to every document of every cell; raises as `applied` does.

        A metric whose values depend on other documents, against its contract, is applied to each cell alone: this is
        seen by comparing the first and the last cell with what they are alone.
        """
        together = self._together(metric)
        if together is not None:
            return together
        alone = [applied(metric, self.scores.part(number, self.count)) for number in range(self.count)]
        columns = tuple(np.stack(column) for column in zip(*(cell.columns for cell in alone), strict=True))
        return columns, [cell.ties for cell in alone]

    def _together(self, metric: Metric) -> tuple[Columns, Ties] | None:
        """Return what `per_document` returns, from one call; None where a cell alone has other values."""
        try:
            values = applied(metric, self.scores)
        except PLUGIN_ERRORS:  # again for each cell, so that the message is about that cell
            return None
        columns = tuple(column.reshape(self.count, -1) for column in values.columns)
        tied = None if values.tied is None else np.reshape(values.tied, (self.count, -1))
        for number, alone in ((0, self.one), (-1, self.last)):
            cell = Applied(tuple(column[number] for column in columns), None if tied is None else tied[number])
            if not cell.equals(applied(metric, alone)):
                return None
        return columns, [None] * self.count if tied is None else [int(n) for n in tied.sum(axis=1)]
