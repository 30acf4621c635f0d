"""Requests to engines, and what engines return."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from harness.errors import EngineError
from harness.types.arrays import Bools, Floats


@dataclass(frozen=True)
class Request:
    """One context and the continuations to score after it, as token ids; `key` is returned with the result.

    `cell` is equal for the consecutive requests of one cell. An engine batches only within a cell, so that its numbers
    do not depend on the other cells of a run. With `greedy` false, no metric needs to know whether a continuation is
    the most probable one, and an engine may omit it. With `tokens`, the log-probability of each token is wanted, too.
    """

    key: Hashable
    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    cell: Hashable = None
    greedy: bool = True
    tokens: bool = False


@dataclass(frozen=True)
class ChoiceScore:
    """The scores of one request: shapes (K,) for K continuations.

    `logprobs` are nats, summed over the tokens of each continuation; `is_greedy` says whether every token of the
    continuation is the most probable one, or is None if unknown. `tokens` has the log-probabilities of the tokens of
    each continuation, which add up to its `logprobs`, if the request asked for them.
    """

    key: Hashable
    logprobs: Floats
    is_greedy: Bools | None = None
    tokens: tuple[Floats, ...] | None = None


@dataclass(frozen=True)
class SampleRequest:
    """A prompt, as token ids, and how to continue it; `key` is returned with every sample.

    Temperature 0 takes the most probable token. Otherwise one is drawn from the smallest set of tokens whose
    probabilities, the largest first, reach `top_p` (Holtzman et al. 2020). A sample ends before the first of its
    `stop` texts, with EOS, after `max_tokens` tokens, or at the engine's max_length. Sample i of `n` has the seed
    `seed` + i and does not depend on other requests, so that more can be drawn later.
    """

    key: Hashable
    prompt: tuple[int, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    cell: Hashable = None

    def __post_init__(self) -> None:
        possible = {
            "prompt": len(self.prompt) > 0,
            "max_tokens": self.max_tokens >= 1,
            "n": self.n >= 1,
            "temperature": 0 <= self.temperature < float("inf"),
            "top_p": 0 < self.top_p <= 1,
            "stop": all(self.stop),
            "seed": self.seed >= 0,
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, is_possible in possible.items() if not is_possible]
        if wrong:
            raise EngineError(
                f"{self.key!r} cannot be sampled with {', '.join(wrong)}; expected a prompt, max_tokens >= 1, n >= 1, "
                "temperature >= 0, 0 < top_p <= 1, seed >= 0 and no empty stop text"
            )


@dataclass(frozen=True)
class Sample:
    """One generated text: sample `index` of its request.

    `ids` are all sampled tokens, including EOS and those of a stop text; `text` ends before these. `finish` is
    "stop" (EOS or a stop text) or "length".
    """

    key: Hashable
    index: int
    seed: int
    text: str
    ids: tuple[int, ...]
    finish: str
