"""The samples of one cell as a ragged array: one row a sample, documents one after the other. What metrics get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MetricError
from harness.metrics.scores import Scores
from harness.types import PASS_AT, Bools, Floats, Ints


@dataclass(frozen=True)
class Samples:
    """The samples of n documents, m in all, one document after the other. What metrics of texts get.

    `first` (n,) is the first sample of each document; `outcome` and `n_tokens` are (m,); `group` and `truncated` are
    (n,). Where `until` is a number, drawing ended with the document's success of that number, or after as many samples
    as were allowed; later samples, which came back because many were under way, are not among them.
    """

    doc_ids: NDArray[np.str_]
    first: Ints
    outcome: NDArray[np.str_]
    n_tokens: Ints
    group: NDArray[np.object_]
    truncated: Bools
    until: int | None = None
    kind: str = "generate"
    clustered: bool = False  # groups are a sample of groups, not strata
    chance: float = 0.0  # nobody guesses a text

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def drawn(self) -> Ints:
        """Samples of each document (n,)."""
        return np.diff(np.append(self.first, len(self.outcome)))

    @cached_property
    def passed(self) -> Ints:
        """Samples of each document that passed (n,)."""
        return self.count("passed")

    def count(self, outcome: str) -> Ints:
        """Return the samples of each document with an outcome (n,)."""
        return np.add.reduceat((self.outcome == outcome).astype(np.int64), self.first)

    @property
    def offers(self) -> frozenset[str]:
        """What a metric may need and these samples have; pass@k needs a number of samples fixed beforehand.

        Where a text is unjudged, no rate of passing is known.
        """
        if (self.outcome == "unjudged").any():
            return frozenset()
        fixed = PASS_AT if self.until is None else ()
        return frozenset({"samples"} | {f"samples_{k}" for k in fixed if self.drawn.min() >= k})

    @property
    def most(self) -> float:
        """Return the largest mean pass rate over these documents that fits with no pass at all: the upper end of a 95 %
        interval (Clopper and Pearson 1934). Equal rates make it least unlikely that all samples fail.
        """
        return float(1 - 0.025 ** (1 / self.drawn.mean() / len(self)))

    @property
    def n_truncated(self) -> int:
        """Documents whose prompts lost their left."""
        return int(self.truncated.sum())

    def take(self, docs: Ints) -> Samples:
        """Return the samples of some documents, in the order of their numbers `docs` (k,)."""
        rows = np.concatenate([np.arange(self.first[d], self.first[d] + self.drawn[d]) for d in docs])
        per_doc = {name: getattr(self, name)[docs] for name in ("doc_ids", "group", "truncated")}
        first = np.concatenate([[0], np.cumsum(self.drawn[docs])[:-1]])
        return replace(self, first=first, outcome=self.outcome[rows], n_tokens=self.n_tokens[rows], **per_doc)

    def pass_rates(self) -> Floats:
        """Return an unbiased estimate of the rate at which each document passes (n,).

        c / K for c passes among K samples; (r - 1) / (K - 1) where drawing ended with success number r (Haldane 1945;
        both are the estimate of Girshick, Mosteller and Savage 1946 for their way to stop).
        """
        if self.until is None:
            return self.passed / self.drawn
        stopped = self.passed >= self.until
        return np.where(stopped, (self.until - 1) / np.maximum(self.drawn - 1, 1), self.passed / self.drawn)


def counted(rows: Mapping[str, NDArray[Any]], n: int, until: int | None) -> tuple[Ints, Ints]:
    """Return which rows count, in the order of documents and samples, and the first of each document (n,).

    Raises MetricError where a document has no samples, or lacks one before its last.
    """
    order = np.lexsort((rows["sample"], rows["doc"]))
    doc, passed = rows["doc"][order], rows["outcome"][order] == "passed"
    counts = np.bincount(doc, minlength=n)
    first = np.cumsum(np.append(0, counts[:-1]))
    place = np.arange(len(doc)) - first[doc]
    if (counts == 0).any() or (rows["sample"][order] != place).any():
        raise MetricError("samples are missing; run harness eval again")
    if until is not None:
        before = np.cumsum(passed) - passed
        before -= before[first][doc]  # passes of the same document before this sample
        order, doc = order[before < until], doc[before < until]
        counts = np.bincount(doc, minlength=n)
        first = np.cumsum(np.append(0, counts[:-1]))
    return order, first


Scored = Scores | Samples
