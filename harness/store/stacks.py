"""Read cells of choices of one task, one or many at once, joined with its documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.metrics.scores import Scores
from harness.metrics.stacks import Stack
from harness.store.choice_cells import columns_of
from harness.store.documents import Docs, TaskMeta

N = TypeVar("N", bound=np.generic)


def stacked(tables: Sequence[pa.Table], docs: Docs, meta: TaskMeta) -> Stack:
    """Return the scores of k cells of a task, whose tables have equal columns and the rows of its documents."""
    count = len(tables)
    columns = columns_of(tables[0] if count == 1 else pa.concat_tables(tables))

    def tiled(column: NDArray[N]) -> NDArray[N]:
        return column if count == 1 else np.tile(column, count)

    starts = len(docs.is_gold) * np.arange(count)
    scores = Scores(
        kind=meta["kind"],
        doc_ids=tiled(docs.doc_ids),
        first=(starts[:, None] + docs.first).ravel(),
        is_gold=tiled(docs.is_gold),
        n_chars=tiled(docs.n_chars),
        n_bytes=tiled(docs.n_bytes),
        group=tiled(docs.group),
        n_words=tiled(docs.n_words) if meta["kind"] == "text" else None,
        clustered=meta.get("groups") == "clusters",
        logprob=columns["logprob"],
        n_tokens=columns["n_tokens"],
        truncated=columns["truncated"],
        logprob_unconditional=columns.get("logprob_unconditional"),
        is_greedy=columns.get("is_greedy"),
    )
    return Stack(scores, count)
