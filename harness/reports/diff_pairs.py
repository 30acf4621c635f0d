"""Cells of two evaluations, and pairs of their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.errors import choose
from harness.metrics.scores import Scores
from harness.store.cells import Cell
from harness.store.points import PointStore
from harness.tables import Measured
from harness.types import Floats, Ints

Key = tuple[str, str]  # digest of the checkpoint, fingerprint of the prompts


@dataclass(frozen=True)
class Side:
    """The cells of A or of B, one for each checkpoint and task."""

    name: str
    store: PointStore
    cells: Mapping[Key, Cell]

    def __str__(self) -> str:
        labels = choose({cell.checkpoint.label for cell in self.cells.values()})
        tasks = choose({f"{cell.task} {cell.id.fingerprint}" for cell in self.cells.values()})
        return f"{self.name} ({self.store.path}) has checkpoints {labels} and tasks {tasks}"

    def scores(self, key: Key) -> Scores:
        """Return the scores of a checkpoint and task."""
        return self.store.load(self.cells[key].id)


@dataclass(frozen=True)
class Pair:
    """One checkpoint and task on both sides: n documents with m choices in all."""

    checkpoint: str
    task: str
    metric: str
    change: Measured | None  # of the task's own metric
    a: Scores
    b: Scores

    @cached_property
    def difference(self) -> Floats:
        """Log-probabilities of B minus those of A (m,), nats."""
        return self.b.logprob - self.a.logprob

    @cached_property
    def picks(self) -> tuple[Ints, Ints]:
        """The rows (n,) of the most probable choices in A and in B."""
        return self.a.pick(self.a.logprob), self.b.pick(self.b.logprob)

    @cached_property
    def flipped(self) -> Ints:
        """The numbers (k,) of documents whose most probable choice differs in B."""
        return np.flatnonzero(self.picks[0] != self.picks[1])

    def margins(self) -> tuple[Floats, Floats]:
        """Return the margin of each side's choice over the other's, at flipped documents: (k,) twice."""
        in_a, in_b = (picks[self.flipped] for picks in self.picks)
        return self.a.logprob[in_a] - self.a.logprob[in_b], self.b.logprob[in_b] - self.b.logprob[in_a]

    def right(self) -> tuple[Floats, Floats]:
        """Return whether the choice of A, and that of B, is correct at flipped documents: (k,) twice."""
        in_a, in_b = (self.a.is_gold[picks[self.flipped]].astype(np.float64) for picks in self.picks)
        return in_a, in_b
