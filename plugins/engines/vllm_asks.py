"""What vLLM is asked, and how its answers are read: token ids in, log-probabilities out, and no vLLM.

A request becomes one ask for each body: what its continuations hold before their last token. Last tokens are scored
where the body ends, all that share it at once; choices of one token have an empty body, and are one ask a document.
Rows of a body come from `prompt_logprobs`, for which vLLM reads the prompt without its prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LAST_TOKENS = 100  # of one ask; vLLM takes 128
TOLERANCE = {"float32": 2e-4}  # share of a log-probability by which two exact ways may differ
TOLERANCE_OF_HALVES = 0.03
WAYS = {
    "flat": "the flat container of log-probabilities",
    "last": "logprob_token_ids, by which choices that differ in their last token are read together,",
    "rows": "prompt_logprob_token_ids",
}


@dataclass(frozen=True)
class Asked:
    """A request to score, as it comes through the pipe."""

    number: int
    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    greedy: bool


@dataclass(frozen=True)
class Ask:
    """One sequence for vLLM: the last `n_rows` tokens of `prompt` are scored, and then each of `lasts`.

    `choices` (k,) are the continuations that it answers, in the order of `lasts`, or the one that `prompt` ends with.
    """

    asked: Asked
    prompt: tuple[int, ...]
    n_rows: int
    lasts: tuple[int, ...]
    choices: tuple[int, ...]


def asks_of(asked: Asked, *, last: bool) -> Iterator[Ask]:
    """Yield the asks of a request; `last` lets continuations that differ in their last token alone share one."""
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
    """Return the sum of the last `n_rows` rows of a prompt, nats, and whether all are greedy; None if some lack."""
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
    """Return {token: (log-probability, rank)} at a position of either container that vLLM has."""
    if hasattr(container, "start_indices"):
        here = slice(container.start_indices[position], container.end_indices[position])
        pairs = zip(container.logprobs[here], container.ranks[here], strict=True)
        return dict(zip(container.token_ids[here], pairs, strict=True))
    return {token: (found.logprob, found.rank) for token, found in container[position].items()}


def differs(found: Sequence[float], expected: Sequence[float], dtype: str) -> str:
    """Return how log-probabilities differ from those expected, beyond rounding; nothing where they do not."""
    a, b = np.asarray(found), np.asarray(expected)
    if (np.abs(a - b) <= TOLERANCE.get(dtype, TOLERANCE_OF_HALVES) * (1 + np.abs(b))).all():  # NaN is not
        return ""
    return f"log-probabilities differ by {np.abs(a - b).max():.2g} nats"


def canary_of(vocabulary: int, max_length: int) -> list[Asked]:
    """Return requests with all that asks have: long prompts in common, one-token choices, forks, and others."""
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
