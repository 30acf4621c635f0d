"""The cost of the missing cells of a plan: documents, tokens and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.checkpoints.families import active_params
from harness.checkpoints.flops import inference_flops
from harness.evaluation.encoder_pool import EncoderPool
from harness.evaluation.plan import Plan
from harness.evaluation.tokens import EncodedTask
from harness.store.token_cells import BYTES
from harness.tables import Table


@dataclass(frozen=True)
class Cost:
    """Cost of the missing cells of one task: documents and tokens over all checkpoints, and forward FLOPs.

    `scored` counts the tokens of continuations.
    """

    task: str
    cells: int
    documents: int
    tokens: int
    flops: float
    scored: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.task,
            self.cells + other.cells,
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.flops + other.flops,
            self.scored + other.scored,
        )


def costs(plan: Plan) -> list[Cost]:
    """Return the cost of a plan per task; reads tokenizers but no weights. Raises TokenError as an evaluation does."""
    pool, by_task = EncoderPool(), dict[str, Cost]()
    for job, task, _ in plan.missing():
        encoded = pool.encode(job, task)
        tokens = encoded.total_tokens * (plan.samples if task.generation else 1)
        scored = int(encoded.n_tokens.sum()) if isinstance(encoded, EncodedTask) else 0
        flops = inference_flops(active_params(job.checkpoint), tokens)
        cell = Cost(task.name, 1, len(task.docs), tokens, flops, scored)
        by_task[task.name] = by_task[task.name] + cell if task.name in by_task else cell
    return sorted(by_task.values(), key=lambda cost: cost.task)


def cost_table(plan: Plan) -> Table:
    """Return the cost of a plan: one row per task, and their sum."""
    rows = costs(plan)
    everything = sum(rows, Cost("all", 0, 0, 0, 0.0))
    stored = f"{len(plan.already_stored)} of {len(plan.already_stored) + everything.cells} cells are in the store."
    about = "Tokens count every choice with its context, and generated text at its maximal length. "
    about += "FLOPs are 2 x parameters x tokens."
    columns = ("task", "cells", "documents", "tokens", "FLOPs")
    cells = tuple((c.task, c.cells, c.documents, c.tokens, float(c.flops)) for c in [*rows, everything])
    size = f"{everything.scored * BYTES / 1e6:,.3g} MB before compression"
    of_tokens = f"Log-probabilities of {everything.scored:,} tokens will be kept: {size}."
    notes = (stored, about, *([of_tokens] if plan.keep_tokens else []), *plan.notes)
    return Table("plan", "Planned evaluation", columns, cells, notes)
