"""What vLLM is asked, and how its answers are read: token ids in, log-probabilities out, and no vLLM.

A request becomes one ask for each body: what its continuations hold before their last token. Last tokens are scored
where the body ends, all that share it at once; choices of one token have an empty body, and are one ask a document.
Rows of a body come from `prompt_logprobs`. Where vLLM reads the prompt from its prefix cache, the first of these rows
may be lost: there is a row for a token only if the token before it was computed. Each lost row is asked by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

LAST_TOKENS = 100  # of one ask; vLLM takes 128
TOLERANCE = {"float32": 2e-4}  # share of a log-probability by which two exact ways may differ
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
    """What has come of a request: log-probabilities (K,) in float64, and whether all of each is greedy (K,)."""

    left: int
    logprobs: list[float]
    greedy: list[bool | None] = field(default_factory=list)

    @classmethod
    def of(cls, n: int, asks: int) -> Answer:
        """Return an answer of which nothing has come yet, to `n` continuations in a number of asks."""
        return cls(asks, [0.0] * n, [True] * n)

    def add(self, choice: int, logprob: float, *, greedy: bool | None) -> None:
        """Add what tokens of a continuation score; None where it is unknown whether they are greedy."""
        before = self.greedy[choice]
        self.logprobs[choice] += logprob
        self.greedy[choice] = None if before is None or greedy is None else before and greedy


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


def repairs_of(ask: Ask, lost: int) -> Iterator[Ask]:
    """Yield an ask for each of the first `lost` rows of an ask: its prompt ends where the row is predicted."""
    begin = len(ask.prompt) - ask.n_rows
    for place in range(begin, begin + lost):
        token = (ask.prompt[place],) * len(ask.choices)
        yield Ask(ask.asked, ask.prompt[:place], 0, token, ask.choices)


class Rows(NamedTuple):
    """The sum of the rows of a body, nats, whether all are greedy, and how many of the first rows are not in it."""

    logprob: float
    greedy: bool | None
    lost: int = 0


def rows_of(ask: Ask, output: Any) -> Rows | None:
    """Return what an output has of the last `n_rows` rows of a prompt; None where it does not say which they are.

    Of a prompt whose first n tokens were cached, one runner of vLLM returns a list without the first n rows, the other
    a list of full length in which they have any value.
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
    """Return (log-probability, rank) of the tokens that a prompt ends with; raise ValueError where it has others."""
    begin = len(container) - len(tokens)
    if tokens and hasattr(container, "start_indices"):
        first, end = container.start_indices[begin], container.end_indices[-1]
        if end - first == len(tokens):  # one token a row
            _expect(container.token_ids[first:end], tokens)
            return list(zip(container.logprobs[first:end], container.ranks[first:end], strict=True))
    rows = [at(container, begin + i) for i in range(len(tokens))]
    _expect([token if token in row else next(iter(row), None) for token, row in zip(tokens, rows, strict=True)], tokens)
    return [row[token] for token, row in zip(tokens, rows, strict=True)]


def _expect(found: Sequence[int | None], tokens: Sequence[int]) -> None:
    if list(found) != list(tokens):
        raise ValueError(f"vLLM returns log-probabilities of the tokens {found}; expected those of {list(tokens)}")


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


def canary_of(vocabulary: int, max_length: int, block: int = 0) -> list[Asked]:
    """Return requests with all that asks have: long prompts in common, one-token choices, forks, and others.

    Where blocks of the prefix cache have `block` tokens, one context ends with a block, and continuations of another
    share tokens on both sides of the end of a block.
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
        one, four = ids(1), ids(4)
        contexts += [ids(block), ids(block - 2)]
        ends.append(((*one, *ids(2)), (*one, *ids(2)), ids(3), ids(1)))
        ends.append(((*four, *ids(2)), (*four, *ids(2)), (*four, *ids(1)), ids(3)))
    return [Asked(-1 - i, c, e, greedy=False) for i, (c, e) in enumerate(zip(contexts, ends, strict=True))]


def fits_blocks(max_length: int, block: int) -> bool:
    """Tell whether the canary has contexts that end near the end of a block."""
    return 2 < block <= max_length - 8
