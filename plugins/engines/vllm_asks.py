"""Convert requests to vLLM sequences (asks) and read log-probabilities from its outputs, without importing vLLM.

The body of a continuation is all of it except its last token. A request becomes one ask per distinct body. All last
tokens that share a body are scored together, at the end of that body. Choices of one token have an empty body, so they
need one ask per document. Log-probabilities of body tokens (rows) come from `prompt_logprobs`, for which vLLM reads
the prompt without its prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LAST_TOKENS = 100  # at most, per ask; vLLM accepts 128
TOLERANCE = {"float32": 2e-4}  # relative difference that rounding explains, times 1 + |log-probability|
TOLERANCE_OF_HALVES = 0.03
WAYS = {
    "flat": "the flat container of log-probabilities",
    "last": "logprob_token_ids, by which choices that differ in their last token are read together,",
    "rows": "prompt_logprob_token_ids",
}


@dataclass(frozen=True)
class Asked:
    """A request to score, as it arrives through the pipe."""

    number: int
    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    greedy: bool


@dataclass(frozen=True)
class Ask:
    """One sequence for vLLM: score the last `n_rows` tokens of `prompt`, then each token of `lasts` after it.

    `choices` (k,) are the indices of the scored continuations, in the order of `lasts`. If `lasts` is empty, `choices`
    is the one continuation with which `prompt` ends.
    """

    asked: Asked
    prompt: tuple[int, ...]
    n_rows: int
    lasts: tuple[int, ...]
    choices: tuple[int, ...]


def asks_of(asked: Asked, *, last: bool) -> Iterator[Ask]:
    """Yield the asks of a request; with `last`, continuations that differ only in their last token share one."""
    if not last:
        for k, continuation in enumerate(asked.continuations):
            yield Ask(asked, asked.context + continuation, len(continuation), (), (k,))
        return
    bodies: dict[tuple[int, ...], list[int]] = {}
    for k, continuation in enumerate(asked.continuations):
        bodies.setdefault(continuation[:-1], []).append(k)
    for body, choices in bodies.items():
        for begin in range(0, len(choices), LAST_TOKENS):
            some = tuple(choices[begin : begin + LAST_TOKENS])
            lasts = tuple(asked.continuations[k][-1] for k in some)
            yield Ask(asked, asked.context + body, len(body), lasts, some)


def rows_of(ask: Ask, output: Any) -> tuple[float, bool | None] | None:
    """Return the sum of the last `n_rows` rows in nats, and whether all are greedy; None if rows are missing."""
    tokens = ask.prompt[-ask.n_rows :]
    matrix = getattr(output, "prompt_token_id_logprobs", None)
    if output.prompt_logprobs is None and matrix is not None:
        if len(matrix) != len(tokens):
            return None
        return float(np.sum(matrix, dtype=np.float64)), None
    if output.prompt_logprobs is None or len(output.prompt_logprobs) != len(ask.prompt):
        return None
    begin = len(ask.prompt) - len(tokens)
    rows = [at(output.prompt_logprobs, begin + i)[token] for i, token in enumerate(tokens)]
    return sum(logprob for logprob, _ in rows), all(rank == 1 for _, rank in rows)


def at(container: Any, position: int) -> dict[int, tuple[float, int]]:
    """Return {token: (log-probability, rank)} at a position of either of vLLM's containers."""
    if hasattr(container, "start_indices"):
        here = slice(container.start_indices[position], container.end_indices[position])
        pairs = zip(container.logprobs[here], container.ranks[here], strict=True)
        return dict(zip(container.token_ids[here], pairs, strict=True))
    return {token: (found.logprob, found.rank) for token, found in container[position].items()}


def differs(found: Sequence[float], expected: Sequence[float], dtype: str) -> str:
    """Return how log-probabilities differ from the expected ones beyond rounding, or ""."""
    a, b = np.asarray(found), np.asarray(expected)
    if (np.abs(a - b) <= TOLERANCE.get(dtype, TOLERANCE_OF_HALVES) * (1 + np.abs(b))).all():  # false for NaN
        return ""
    return f"log-probabilities differ by {np.abs(a - b).max():.2g} nats"


def canary_of(vocabulary: int, max_length: int) -> list[Asked]:
    """Return requests that cover all kinds of asks: shared long prompts, one-token choices, shared bodies, others."""
    rng = np.random.default_rng(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(rng.integers(vocabulary, size=n).tolist())

    shared, fork = ids(min(150, max_length // 2)), ids(2)
    ends = [
        (ids(1), ids(1), ids(1)),
        ((*fork, *ids(1)), (*fork, *ids(1)), ids(4)),
        (ids(1), ids(3)),
    ]
    contexts = [ids(3), shared + ids(2), shared + ids(5)]
    return [Asked(-1 - i, c, e, greedy=False) for i, (c, e) in enumerate(zip(contexts, ends, strict=True))]
