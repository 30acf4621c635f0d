"""The samples of one cell as a ragged array, the input of metrics: one row per sample, ordered by document."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from harness.errors import MetricError
from harness.metrics.scores import Scores, expect_no_changes
from harness.types import PASS_AT, Bools, Floats, Ints


class SampleColumns(TypedDict, total=False):
    """Stored samples as columns (s,); none of them where nothing is stored."""

    doc: Ints
    sample: Ints
    seed: Ints
    text: NDArray[np.object_]
    n_tokens: Ints
    finish: NDArray[np.object_]
    outcome: NDArray[np.object_]
    detail: NDArray[np.object_]


@dataclass(frozen=True)
class Samples:
    """The m samples of n documents, ordered by document: the input of metrics of generated text.

    `first` (n,) is the first sample of each document; `outcome` and `n_tokens` are (m,); `group` and `truncated` are
    (n,). With `until`, sampling of a document stopped at that number of successes, or at the largest number of samples.
    Samples drawn after that success, because requests are batched, are not included. `texts` (m,) and `references`
    (n,), the answers that each document accepts, are None where texts are not stored or a document has no answer.
    """

    doc_ids: NDArray[np.str_]
    first: Ints
    outcome: NDArray[np.str_]
    n_tokens: Ints
    group: NDArray[np.object_]
    truncated: Bools
    until: int | None = None
    kind: str = "generate"
    clustered: bool = False  # groups are sampled, not strata
    chance: float = 0.0  # generated text has no chance level
    texts: NDArray[np.object_] | None = None
    references: NDArray[np.object_] | None = None  # tuples of texts

    def __post_init__(self) -> None:
        expect_no_changes(self)

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def drawn(self) -> Ints:
        """Return the number of samples of each document (n,)."""
        return np.diff(np.append(self.first, len(self.outcome)))

    @cached_property
    def passed(self) -> Ints:
        """Return the number of samples of each document that passed (n,)."""
        return self.count("passed")

    def count(self, outcome: str) -> Ints:
        """Return the number of samples of each document with an outcome (n,)."""
        return np.add.reduceat((self.outcome == outcome).astype(np.int64), self.first)

    @property
    def offers(self) -> frozenset[str]:
        """What a metric may need and these samples have; pass@k needs a number of samples fixed beforehand.

        Where a text is unjudged, no rate of passing is known.
        """
        compared = {"references"} if self.texts is not None and self.references is not None else set[str]()
        if (self.outcome == "unjudged").any():
            return frozenset(compared)
        fixed = PASS_AT if self.until is None else ()
        return frozenset(compared | {"samples"} | {f"samples_{k}" for k in fixed if self.drawn.min() >= k})

    def compared(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return each text (m,) with the references of its document; raise MetricError where there are none."""
        if self.texts is None or self.references is None:
            raise MetricError("no texts, or no reference answers, are stored; evaluate without --no-texts")
        return list(zip(self.texts, np.repeat(self.references, self.drawn), strict=True))

    @property
    def most(self) -> float:
        """Return the upper end of the 95 % interval of the mean pass rate for zero passes (Clopper and Pearson 1934).

        Rates are assumed equal over documents, which gives the largest probability that all samples fail.
        """
        return float(1 - 0.025 ** (1 / self.drawn.mean() / len(self)))

    @property
    def n_truncated(self) -> int:
        """Return the number of documents with a truncated prompt."""
        return int(self.truncated.sum())

    def take(self, docs: Ints) -> Samples:
        """Return the samples of some documents, in the order of their numbers `docs` (k,)."""
        rows = np.concatenate([np.arange(self.first[d], self.first[d] + self.drawn[d]) for d in docs])
        per_doc = {name: getattr(self, name)[docs] for name in ("doc_ids", "group", "truncated")}
        texts = None if self.texts is None else self.texts[rows]
        references = None if self.references is None else self.references[docs]
        of_rows = {"outcome": self.outcome[rows], "n_tokens": self.n_tokens[rows], "texts": texts}
        first = np.concatenate([[0], np.cumsum(self.drawn[docs])[:-1]])
        return replace(self, first=first, references=references, **of_rows, **per_doc)

    def pass_rates(self) -> Floats:
        """Return an unbiased estimate of the pass rate of each document (n,).

        It is c / K for c passes among K samples, and (r - 1) / (K - 1) if sampling stopped at success r (Haldane 1945).
        Both are the estimator of Girshick, Mosteller and Savage (1946) for their stopping rule.
        """
        if self.until is None:
            return self.passed / self.drawn
        stopped = self.passed >= self.until
        return np.where(stopped, (self.until - 1) / np.maximum(self.drawn - 1, 1), self.passed / self.drawn)


def counted(rows: SampleColumns, n: int, until: int | None) -> tuple[Ints, Ints]:
    """Return the rows to use, ordered by document and sample, and the first of each document (n,).

    Raises MetricError if a document has no samples, or lacks one before its last.
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
