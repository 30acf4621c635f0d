"""Convert requests to vLLM sequences (asks) and read log-probabilities from its outputs, without importing vLLM.

The body of a continuation is all of it except its last token. A request becomes one ask per distinct body. All last
tokens that share a body are scored together, at the end of that body. Choices of one token have an empty body, so they
need one ask per document. Log-probabilities of body tokens (rows) come from `prompt_logprobs`. If vLLM reads the start
of the prompt from its prefix cache, the first rows may be missing, because a row needs the token before it to be
computed. Each missing row is requested separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

LAST_TOKENS = 100  # at most, per ask; vLLM accepts 128
TOLERANCE = {"float32": 2e-4}  # relative difference that rounding explains, times 1 + |log-probability|
TOLERANCE_OF_HALVES = 0.03
WAYS = {
    "flat": "the flat container of log-probabilities",
    "last": "logprob_token_ids, by which choices that differ in their last token are read together,",
    "bulk": "taking over the rows of a prompt at once",
    "cached": "the prefix cache for prompts whose rows are read",
    "rows": "prompt_logprob_token_ids",
}


@dataclass
class Answer:
    """The results of a request so far: log-probabilities (K,), and whether each continuation is greedy (K,)."""

    left: int
    logprobs: list[float]
    greedy: list[bool | None] = field(default_factory=list)

    @classmethod
    def of(cls, n: int, asks: int) -> Answer:
        """Return an empty answer to `n` continuations, for which `asks` outputs are needed."""
        return cls(asks, [0.0] * n, [True] * n)

    def add(self, choice: int, logprob: float, *, greedy: bool | None) -> None:
        """Add the log-probability of some tokens of a continuation; `greedy` is None if unknown."""
        before = self.greedy[choice]
        self.logprobs[choice] += logprob
        self.greedy[choice] = None if before is None or greedy is None else before and greedy


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


def repairs_of(ask: Ask, lost: int) -> Iterator[Ask]:
    """Yield an ask for each of the first `lost` rows of an ask; its prompt ends before the row's token."""
    begin = len(ask.prompt) - ask.n_rows
    for place in range(begin, begin + lost):
        token = (ask.prompt[place],) * len(ask.choices)
        yield Ask(ask.asked, ask.prompt[:place], 0, token, ask.choices)


class Rows(NamedTuple):
    """Sum of the rows of a body in nats, whether all are greedy, and how many of the first rows are not in it."""

    logprob: float
    greedy: bool | None
    lost: int = 0


def rows_of(ask: Ask, output: Any) -> Rows | None:
    """Return the sum of the last `n_rows` rows of a prompt; None if they cannot be identified.

    If the first n tokens of the prompt were cached, one model runner of vLLM returns a list without n rows, the other a
    list of full length with undefined rows.
    """
    length, cached = len(ask.prompt), getattr(output, "num_cached_tokens", None) or 0
    matrix = getattr(output, "prompt_token_id_logprobs", None)
    if output.prompt_logprobs is None and matrix is not None:
        return Rows(float(np.sum(matrix, dtype=np.float64)), None) if len(matrix) == ask.n_rows else None
    if output.prompt_logprobs is None or len(output.prompt_logprobs) not in {length, length - cached}:
        return None
    lost = max(0, cached - (length - 1 - ask.n_rows))
    tokens = ask.prompt[length - ask.n_rows + lost :]
    rows = _last_rows(output.prompt_logprobs, tokens)
    return Rows(sum(logprob for logprob, _ in rows), all(rank == 1 for _, rank in rows), lost)


def _last_rows(container: Any, tokens: Sequence[int]) -> list[tuple[float, int]]:
    """Return (log-probability, rank) of the last tokens of a prompt; raise ValueError if the rows have other tokens."""
    begin = len(container) - len(tokens)
    if tokens and hasattr(container, "start_indices"):
        first, end = container.start_indices[begin], container.end_indices[-1]
        if end - first == len(tokens):  # one token a row
            _expect(container.token_ids[first:end], tokens)
            return list(zip(container.logprobs[first:end], container.ranks[first:end], strict=True))
    rows = [at(container, begin + i) for i in range(len(tokens))]
    _expect([token if token in row else next(iter(row), None) for token, row in zip(tokens, rows, strict=True)], tokens)
    return [row[token] for token, row in zip(tokens, rows, strict=True)]


def _expect(returned: Sequence[int | None], tokens: Sequence[int]) -> None:
    if list(returned) != list(tokens):
        raise ValueError(f"vLLM returns log-probabilities of the tokens {returned}; expected those of {list(tokens)}")


def at(container: Any, position: int) -> dict[int, tuple[float, int]]:
    """Return {token: (log-probability, rank)} at a position of either of vLLM's containers."""
    if hasattr(container, "start_indices"):
        here = slice(container.start_indices[position], container.end_indices[position])
        pairs = zip(container.logprobs[here], container.ranks[here], strict=True)
        return dict(zip(container.token_ids[here], pairs, strict=True))
    return {token: (entry.logprob, entry.rank) for token, entry in container[position].items()}


def differs(logprobs: Sequence[float], expected: Sequence[float], dtype: str) -> str:
    """Return how log-probabilities differ from the expected ones beyond rounding, or ""."""
    a, b = np.asarray(logprobs), np.asarray(expected)
    if (np.abs(a - b) <= TOLERANCE.get(dtype, TOLERANCE_OF_HALVES) * (1 + np.abs(b))).all():  # false for NaN
        return ""
    return f"log-probabilities differ by {np.abs(a - b).max():.2g} nats"


def canary_of(vocabulary: int, max_length: int, block: int = 0) -> list[Asked]:
    """Return requests that cover all kinds of asks: shared long prompts, one-token choices, shared bodies, others.

    If the blocks of the prefix cache have `block` tokens, one context ends at the end of a block, and the continuations
    of another share tokens on both sides of it.
    """
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
    if fits_blocks(max_length, block):
        short_stem, long_stem = ids(1), ids(4)
        contexts += [ids(block), ids(block - 2)]
        ends.append(((*short_stem, *ids(2)), (*short_stem, *ids(2)), ids(3), ids(1)))
        ends.append(((*long_stem, *ids(2)), (*long_stem, *ids(2)), (*long_stem, *ids(1)), ids(3)))
    return [Asked(-1 - i, c, e, greedy=False) for i, (c, e) in enumerate(zip(contexts, ends, strict=True))]


def fits_blocks(max_length: int, block: int) -> bool:
    """Tell whether the canary has contexts that end near the end of a block."""
    return 2 < block <= max_length - 8
