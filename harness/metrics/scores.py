"""The scores of one cell as a ragged array, the input of metrics: one row per choice, ordered by document."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.errors import MetricError
from harness.types import Bools, Column, Floats, Ints, PerDoc

N = TypeVar("N", np.float64, np.int64, np.bool_)
TIE = 1e-6  # nats; two best choices that differ by less are tied


def expect_no_changes(scores: object) -> None:
    """Make the arrays of a dataclass read-only: all metrics get the same arrays, so that none may change them."""
    for name, column in vars(scores).items():
        if isinstance(column, np.ndarray) and column.flags.writeable:
            view = column.view()
            view.flags.writeable = False
            object.__setattr__(scores, name, view)


@dataclass(frozen=True)
class Scores:
    """Log-probabilities (nats) of all m choices of n documents.

    `first` (n,) is the first row of each document; `logprob`, `is_gold`, `n_tokens`, `n_chars`, `n_bytes`, `truncated`
    and, if available, `logprob_unconditional`, `is_greedy` and `n_words` (of plain text) are (m,). `group` (n,) are
    strata, or clusters if `clustered`.
    """

    kind: str
    doc_ids: NDArray[np.str_]
    first: Ints
    logprob: Floats
    is_gold: Bools
    n_tokens: Ints
    n_chars: Ints
    n_bytes: Ints
    truncated: Bools
    group: NDArray[np.object_]
    logprob_unconditional: Floats | None = None
    is_greedy: Bools | None = None
    clustered: bool = False
    n_words: Ints | None = None

    def __post_init__(self) -> None:
        expect_no_changes(self)
        if not len(self):
            raise MetricError("no documents to compute a metric from")
        for column in (self.logprob, self.logprob_unconditional):
            if column is not None and not np.isfinite(column).all():
                row = int(np.flatnonzero(~np.isfinite(column))[0])
                raise MetricError(
                    f"{self.where(row)}: the log-probability is {column[row]}; expected a finite number: check the "
                    "model"
                )
        without = np.flatnonzero(~np.logical_or.reduceat(self.is_gold, self.first))
        if len(without) and self.kind != "unjudged":
            raise MetricError(f"document {self.doc_ids[without[0]]}: no gold choice; expected one or more")

    def __len__(self) -> int:
        return len(self.first)

    @cached_property
    def doc(self) -> Ints:
        """Return the document of each row (m,)."""
        return np.repeat(np.arange(len(self)), self.n_choices)

    @cached_property
    def n_choices(self) -> Ints:
        """Return the number of choices of each document (n,)."""
        return np.diff(np.append(self.first, len(self.logprob)))

    @cached_property
    def offers(self) -> frozenset[str]:
        """Return what these scores offer for the needs of metrics."""
        one_gold = bool((self.sum(self.is_gold) == 1).all())
        offered = {
            "answers": self.kind not in {"text", "unjudged"},
            "choices": self.kind == "choice",
            "two_choices": self.kind == "choice" and bool((self.n_choices == 2).all()),
            "cloze": self.kind == "cloze",
            "text": self.kind == "text",
            "one_gold": one_gold,
            "several_gold": not one_gold and self.kind != "unjudged",
            "unconditional": self.logprob_unconditional is not None,
            "greedy": self.is_greedy is not None,
            "words": self.n_words is not None,
            "token_counts": bool((self.n_tokens > 0).all()),  # 0 where samples of others do not say
        }
        return frozenset(name for name, is_offered in offered.items() if is_offered)

    @property
    def n_truncated(self) -> int:
        """Return the number of documents with a truncated context."""
        return int(np.logical_or.reduceat(self.truncated, self.first).sum())

    @cached_property
    def chance(self) -> float:
        """Return the accuracy of random guessing."""
        return float(np.mean(self.sum(self.is_gold) / self.n_choices))

    def where(self, row: int) -> str:
        """Return document and choice of a row, for a message."""
        doc = int(np.searchsorted(self.first, row, side="right")) - 1
        return f"document {self.doc_ids[doc]}, choice {row - self.first[doc]}"

    def take(self, docs: Ints) -> Scores:
        """Return the scores of some documents, in the order of their numbers `docs` (k,)."""
        rows = np.concatenate([np.arange(self.first[d], self.first[d] + self.n_choices[d]) for d in docs])
        return self._cut(docs, rows, np.concatenate([[0], np.cumsum(self.n_choices[docs])[:-1]]))

    def part(self, number: int, count: int) -> Scores:
        """Return one of `count` parts that have equal numbers of documents and of choices."""
        n, m = len(self) // count, len(self.logprob) // count
        docs = slice(n * number, n * (number + 1))
        return self._cut(docs, slice(m * number, m * (number + 1)), self.first[docs] - m * number)

    def _cut(self, docs: Ints | slice, rows: Ints | slice, first: Ints) -> Scores:
        per_doc = {"doc_ids", "group"}
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"kind", "first", "clustered"}}
        cut = {
            name: column[docs] if name in per_doc else column[rows]
            for name, column in columns.items()
            if column is not None
        }
        return replace(self, first=first, **cut)

    def sum(self, values: Column) -> Floats:
        """Sum (m,) over the choices of each document to (n,)."""
        return np.add.reduceat(values.astype(np.float64), self.first)

    def max(self, values: Floats) -> Floats:
        """Return the largest of (m,) within each document (n,)."""
        return np.maximum.reduceat(values, self.first)

    def logsumexp(self, values: Floats) -> Floats:
        """Return ln sum exp of (m,) within each document (n,); -inf where all values are -inf."""
        top = self.max(values)
        shift = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore"):
            return np.log(self.sum(np.exp(values - shift[self.doc]))) + shift

    def gold(self, values: NDArray[N]) -> NDArray[N]:
        """Return the value (n,) of the one gold choice of each document."""
        return values[self.is_gold]

    def pick(self, values: Floats) -> Ints:
        """Return the row (n,) of the largest value of each document; the first of tied rows, as in lm-eval."""
        rows = np.arange(len(values))
        is_best = values == self.max(values)[self.doc]
        return np.minimum.reduceat(np.where(is_best, rows, len(values)), self.first)

    def picks_gold(self, values: Floats) -> PerDoc:
        """Return 1.0 for documents whose choice with the largest value is gold, and whether the two best are tied."""
        near = values >= self.max(values)[self.doc] - TIE
        return PerDoc(self.is_gold[self.pick(values)].astype(np.float64), self.sum(near) > 1)
