"""Single documents across checkpoints: which are hardest, flip along training, or divide families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from harness.errors import StoreError, UsageError, choose
from harness.fitting.columns import query
from harness.fitting.runs import ends, largest_known, runs_of
from harness.metrics.scores import Scores
from harness.store.documents import Docs
from harness.store.points import PointStore, checkpoint_columns
from harness.types import Bools, Floats, Ints

SORTS = ("disagreement", "flips", "hardest")


@dataclass(frozen=True)
class Documents:
    """The n documents of one task with choices on M checkpoints, from small to large and from early to late.

    `checkpoints` has a row (M) each; `scores` and `docs` hold every choice and text.
    """

    task: str
    checkpoints: pd.DataFrame
    scores: tuple[Scores, ...]
    docs: Docs

    @cached_property
    def margins(self) -> Floats:
        """Log-probability of the best gold choice minus that of the best wrong one (M, n), nats; above 0 is right."""
        return np.stack([_margins(scores) for scores in self.scores])

    @cached_property
    def right(self) -> Bools:
        """Whether the most probable choice is gold (M, n)."""
        return np.stack([scores.picks_gold(scores.logprob).values > 0 for scores in self.scores])

    @cached_property
    def picks(self) -> Ints:
        """The most probable choice (M, n), counted from 0 in each document."""
        return np.stack([scores.pick(scores.logprob) - scores.first for scores in self.scores])

    @cached_property
    def finals(self) -> Ints:
        """The rows of the last checkpoints of each family's largest size."""
        return np.flatnonzero(ends(self.checkpoints) & largest_known(self.checkpoints))

    def measure(self, sort: str) -> Floats:
        """Return what documents are sorted by (n,), the highest first; raise UsageError for another name."""
        if sort not in MEASURES:
            raise UsageError(f"sort {sort!r}; expected one of {choose(SORTS)}")
        return MEASURES[sort](self)

    def order(self, sort: str) -> Ints:
        """Return the numbers of documents (n,), those that a measure puts first at the front."""
        return np.argsort(-self.measure(sort), kind="stable")

    def number(self, doc_id: str) -> int:
        """Return the number of a document; raise UsageError where there is none of that name."""
        positions = np.flatnonzero(self.docs.doc_ids == doc_id)
        if not len(positions):
            raise UsageError(f"{self.task} has no document {doc_id!r}; it has {choose(map(str, self.docs.doc_ids))}")
        return int(positions[0])

    def choices(self, number: int) -> pd.DataFrame:
        """Return context, continuation, answer and is_gold of each choice of a document, as they were scored."""
        first, count = int(self.docs.first[number]), int(self.scores[0].n_choices[number])
        rows = {name: texts[first : first + count] for name, texts in self.prompts.items()}
        return pd.DataFrame({**rows, "is_gold": self.docs.is_gold[first : first + count]})

    @cached_property
    def prompts(self) -> dict[str, list[str]]:
        """Context, continuation and answer of each choice of all documents (m,)."""
        return self.docs.prompts

    def logprobs(self, number: int) -> Floats:
        """Return the log-probability of each choice of a document at each checkpoint (M, K), nats."""
        first, count = int(self.docs.first[number]), int(self.scores[0].n_choices[number])
        return np.stack([scores.logprob[first : first + count] for scores in self.scores])


def read_documents(
    store: PointStore, *, task: str | None = None, family: str | None = None, where: str | None = None
) -> list[Documents]:
    """Return the documents of every task with choices.

    :param where: an expression over columns of checkpoints; others are left out.

    Raises StoreError where no task has choices, UsageError where no checkpoint is left.
    """
    cells = [cell for cell in store.select(task, family) if not store.is_sampled(cell.id)]
    if not cells:
        raise StoreError(f"{task or 'every task here'} generates text and scores no choices; see store.samples()")
    frame = pd.DataFrame([{**checkpoint_columns(cell), "label": cell.checkpoint.label} for cell in cells])
    selected = query(frame, where)
    if selected.empty:
        raise UsageError(f"{where!r} selects 0 of {len(frame)} cells; columns are: {choose(frame.columns)}")
    order = ["family", "params", "size", "seed", "tokens", "step"]
    documents = []
    for _, task_rows in selected.sort_values(order, kind="stable").groupby(["task", "fingerprint"], sort=True):
        ids = [cells[int(str(i))].id for i in task_rows.index]
        if store.task_meta[ids[0].fingerprint]["kind"] == "choice":
            scores = tuple(store.load(cell_id) for cell_id in ids)
            docs = store.docs(ids[0].fingerprint)
            documents.append(Documents(str(task_rows["task"].iloc[0]), task_rows.reset_index(drop=True), scores, docs))
    if not documents:
        raise StoreError(f"{choose(set(selected['task']))}: tasks without choices, so no document is right or wrong")
    return documents


def _margins(scores: Scores) -> Floats:
    gold, wrong = (np.where(chosen, scores.logprob, -np.inf) for chosen in (scores.is_gold, ~scores.is_gold))
    return scores.max(gold) - scores.max(wrong)


def _disagreement(documents: Documents) -> Floats:
    """Return how far the largest models of families differ: their share of pairs, then the spread of margins."""
    right, margins = documents.right[documents.finals], documents.margins[documents.finals]
    share = right.mean(axis=0)
    return np.asarray(4 * share * (1 - share) + 1e-3 * np.tanh(margins.std(axis=0)))


def _flips(documents: Documents) -> Floats:
    """Return the changes between right and wrong along training and along sizes; later ones count more."""
    total = np.zeros(documents.right.shape[1])
    last = documents.checkpoints[ends(documents.checkpoints)]
    ladders = [np.asarray(sizes.index) for _, sizes in last.groupby("family", sort=False)]
    runs = runs_of(documents.checkpoints).number
    for rows in [*(np.flatnonzero(runs == run) for run in sorted(set(runs))), *ladders]:
        changes = documents.right[rows][1:] != documents.right[rows][:-1]
        total += (changes * np.linspace(0, 1, len(rows))[1:, None]).sum(axis=0)
    return total


def _hardest(documents: Documents) -> Floats:
    """Return by how much the largest models prefer a wrong choice, on average (nats)."""
    return np.asarray(-documents.margins[documents.finals].mean(axis=0))


MEASURES: dict[str, Callable[[Documents], Floats]] = {
    "disagreement": _disagreement,
    "flips": _flips,
    "hardest": _hardest,
}


def document_rows(documents: Sequence[Documents], *, sort: str, count: int) -> pd.DataFrame:
    """Return the margin of chosen documents at the last checkpoint of every run, one row per document and checkpoint.

    Columns: task, family, label, flops, doc_id, rank (from 1), context, gold, picked, margin (nats), right.
    """
    return pd.DataFrame([row for task_documents in documents for row in _rows(task_documents, sort, count)])


def _rows(documents: Documents, sort: str, count: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    last = np.flatnonzero(ends(documents.checkpoints))
    for rank, number in enumerate(documents.order(sort)[:count], 1):
        choices = documents.choices(int(number))
        gold = " / ".join(choices["answer"][choices["is_gold"]])
        for i in last:
            checkpoint = documents.checkpoints.iloc[int(i)]
            rows.append(
                {
                    **{name: checkpoint[name] for name in ("family", "label", "flops")},
                    "task": documents.task,
                    "doc_id": str(documents.docs.doc_ids[number]),
                    "rank": rank,
                    "context": choices["context"].iloc[0],
                    "gold": gold,
                    "picked": choices["answer"].iloc[int(documents.picks[i, number])],
                    "margin": float(documents.margins[i, number]),
                    "right": bool(documents.right[i, number]),
                }
            )
    return rows
