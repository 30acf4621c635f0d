"""Text generation with a transformers module: every sample is independent of the others in its batch.

Prompts of equal length are batched, so that no padding is needed and every generating architecture is supported. Their
common prefix is read once if the module shares prefixes exactly. Random numbers come from the seed of each sample.
Texts are drawn from the distribution of the model: only EOS is taken from generation_config.json (drawn_texts.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np

from harness import EngineError, OutOfMemory, Sample, SampleRequest
from harness.engines import common_prefix
from harness_plugins.engines.drawn_texts import Stops
from harness_plugins.engines.forwards import Forwards
from harness_plugins.engines.memory import ran_out
from harness_plugins.engines.packing import LEAST_SHARED

WINDOW = 256  # requests sorted together
KEPT = {"cpu": 2**14, "cuda": 2**18}  # largest number of tokens in the key-value cache


@dataclass(frozen=True)
class Draw:
    """One sample to draw, and its largest number of tokens."""

    request: SampleRequest
    index: int
    most: int

    @property
    def seed(self) -> int:
        """Return the seed of this sample."""
        return self.request.seed + self.index


class Ends:
    """Stopping criterion: records where each row of a batch (b,) ends, and why."""

    def __init__(self, draws: Sequence[Draw], tokenizer: Any, eos: frozenset[int]) -> None:
        self.draws, self.stops = draws, Stops(tokenizer)
        self.eos = [eos.union(self.stops.tokens(draw.request.stop)) for draw in draws]
        self.begin = len(draws[0].request.prompt)
        self.ends = [0] * len(draws)
        self.finish = ["length"] * len(draws)
        self.longest = max(map(_longest, draws))

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002  # the contract of stopping criteria
        """Return which rows are finished, (b,)."""
        import torch

        n = input_ids.shape[1] - self.begin
        last = input_ids[:, -min(n, self.longest) :].tolist()  # one transfer from the device for all rows
        for row, draw in enumerate(self.draws):
            if self.ends[row]:
                continue
            if last[row][-1] in self.eos[row] or self._stops(draw, last[row]):
                self.ends[row], self.finish[row] = n, "stop"
            elif n >= draw.most:
                self.ends[row] = n
        return torch.tensor([end > 0 for end in self.ends], device=input_ids.device)

    def _stops(self, draw: Draw, ids: Sequence[int]) -> bool:
        """Return whether the last tokens contain a stop text."""
        if not draw.request.stop:
            return False
        is_over: bool = self.stops.end(ids[-_longest(draw) :], draw.request.stop)
        return is_over

    def sample(self, row: int, ids: Sequence[int]) -> Sample:
        """Return a finished sample from its row of tokens."""
        draw = self.draws[row]
        drawn = tuple(ids[self.begin : self.begin + self.ends[row]])
        text = self.stops.text_of(draw.request.prompt, drawn, draw.request.stop)
        return Sample(draw.request.key, draw.index, draw.seed, text, drawn, self.finish[row])


def _longest(draw: Draw) -> int:
    """Return the number of last tokens in which a stop text of a draw ends; a character has at most four tokens."""
    return 4 * max(map(len, draw.request.stop), default=0) + 4


class Choosing:
    """Logits processor: draws the next token of each row (b,) with the random numbers of its sample."""

    def __init__(self, draws: Sequence[Draw], device: str) -> None:
        import torch

        self.begin = len(draws[0].request.prompt)
        most = max(draw.most for draw in draws)
        uniforms = np.stack([np.random.default_rng(draw.seed).random(most) for draw in draws])
        self.uniforms = torch.as_tensor(uniforms, device=device)  # (b, most)
        self.temperature = torch.tensor([[draw.request.temperature] for draw in draws], device=device).double()
        self.top_p = torch.tensor([[draw.request.top_p] for draw in draws], device=device).double()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return logits that allow one token per row: (b, V) to (b, V)."""
        import torch

        chosen = scores.argmax(-1)
        if (self.temperature > 0).any():
            drawn = self._draw(scores, self.uniforms[:, input_ids.shape[1] - self.begin, None])
            chosen = torch.where(self.temperature[:, 0] > 0, drawn, chosen)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None], 0)

    def _draw(self, scores: Any, uniform: Any) -> Any:
        """Return tokens (b,) at which the cumulated probabilities within `top_p` exceed `uniform` (b, 1).

        Probabilities are cumulated in the order of the vocabulary, which does not depend on rounding.
        """
        import torch

        p = torch.softmax(scores.double() / self.temperature.clamp_min(1e-9), -1)
        largest, order = p.sort(dim=-1, descending=True, stable=True)
        outside = largest.cumsum(-1) - largest >= self.top_p
        p = p.masked_fill(torch.zeros_like(outside).scatter_(1, order, outside), 0).cumsum(-1)
        return torch.searchsorted(p, uniform * p[:, -1:], right=True).clamp_max(p.shape[1] - 1)[:, 0]


@dataclass
class Generator:
    """A module that draws samples; `max_length` limits the tokens of prompt and sample together."""

    forwards: Forwards
    tokenizer: Any
    max_length: int
    shares: bool = False

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw the samples of requests, window by window and never across cells."""
        for _, cell in groupby(requests, key=lambda request: request.cell):
            while window := list(islice(cell, WINDOW)):
                draws = [draw for request in window for draw in self._draws(request)]
                draws.sort(key=lambda draw: (len(draw.request.prompt), draw.request.prompt, draw.most))
                for _, alike in groupby(draws, key=lambda draw: len(draw.request.prompt)):
                    yield from self._in_batches(list(alike))

    def _draws(self, request: SampleRequest) -> Iterator[Draw]:
        room = self.max_length - len(request.prompt)
        if room < 1:
            raise EngineError(
                f"the prompt {request.key!r} has {len(request.prompt)} tokens; max_length is {self.max_length}"
            )
        yield from (Draw(request, index, min(request.max_tokens, room)) for index in range(request.n))

    def _in_batches(self, draws: list[Draw]) -> Iterator[Sample]:
        """Draw samples for prompts of one length; halve the batch when memory runs out."""
        cached_rows = KEPT[self.forwards.device.split(":", maxsplit=1)[0]]
        longest = len(draws[0].request.prompt) + max(draw.most for draw in draws)
        rows = max(1, cached_rows // longest)
        while draws:
            try:
                yield from self._batch(draws[:rows])
            except OutOfMemory:
                if rows == 1:
                    raise
                rows = (rows + 1) // 2
                continue
            draws = draws[rows:]

    def _batch(self, draws: Sequence[Draw]) -> list[Sample]:
        import torch
        from transformers import GenerationConfig

        model, device = self.forwards.model, self.forwards.device
        self.forwards.forget_length()
        eos = eos_of(model, self.tokenizer)
        ends = Ends(draws, self.tokenizer, eos)
        most = max(draw.most for draw in draws)
        settings = GenerationConfig(
            do_sample=False, max_new_tokens=most, pad_token_id=0, eos_token_id=sorted(eos) or None, use_cache=True
        )
        self.forwards.expect_known([draw.request.prompt for draw in draws])
        prompts = torch.tensor([draw.request.prompt for draw in draws], device=device)
        try:
            with _without_defaults(model):
                ids = model.generate(
                    prompts,
                    attention_mask=torch.ones_like(prompts),
                    generation_config=settings,
                    logits_processor=[Choosing(draws, device)],
                    stopping_criteria=[ends],
                    **self._prefix_cache([draw.request.prompt for draw in draws]),
                )
        except Exception as error:  # torch raises many types of errors
            if ran_out(error):
                raise OutOfMemory(
                    f"{len(draws)} samples after {prompts.shape[1]} tokens do not fit into memory"
                ) from error
            raise EngineError(f"generation failed: {error}") from error
        return [ends.sample(row, tokens) for row, tokens in enumerate(ids.tolist())]

    def _prefix_cache(self, prompts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """Return the keys and values of the common prefix of sorted prompts, if it is long enough."""
        shared = min(common_prefix(prompts[0], prompts[-1]), len(prompts[0]) - 1)
        if not self.shares or len(prompts) == 1 or shared < LEAST_SHARED or self.forwards.misreads(len(prompts[0])):
            return {}
        return {"past_key_values": self.forwards.cache_of(prompts[0][:shared], len(prompts))}


def eos_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a text: those of generation_config.json or config.json, and the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*ids, tokenizer.eos_token_id) if i is not None)


@contextmanager
def _without_defaults(model: Any) -> Iterator[None]:
    """Keep `generate` from adding settings of generation_config.json, such as a repetition penalty, to its own."""
    from transformers import GenerationConfig

    theirs, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = theirs
