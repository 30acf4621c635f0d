"""Texts from a transformers module: every sample is that of a row of its own, whatever is drawn beside it.

Prompts of one length go together, so that nothing is padded and every architecture that can generate will do; what they
begin with is read once where the module shares prefixes exactly. Random numbers are a sample's own, from its seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np

from harness import EngineError, OutOfMemory, Sample, SampleRequest
from harness.engines import common_prefix
from harness_plugins.engines.forwards import Forwards
from harness_plugins.engines.packing import LEAST_SHARED

WINDOW = 256  # requests looked at together
KEPT = {"cpu": 2**14, "cuda": 2**18}  # tokens whose keys and values are kept at a time
BEFORE = 8  # tokens of the prompt that are decoded with a sample, which decides on its first space


@dataclass(frozen=True)
class Draw:
    """One sample to be drawn, and the tokens it may have."""

    request: SampleRequest
    index: int
    most: int

    @property
    def seed(self) -> int:
        """Return the seed of this sample."""
        return self.request.seed + self.index


class Ends:
    """Watches the rows of a batch, (b,): where each sample ends, and why. transformers asks it after every token."""

    def __init__(self, draws: Sequence[Draw], tokenizer: Any, eos: frozenset[int]) -> None:
        self.draws, self.tokenizer, self.eos = draws, tokenizer, eos
        self.begin = len(draws[0].request.prompt)
        self.ends = [0] * len(draws)
        self.finish = ["length"] * len(draws)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002  # the contract of stopping criteria
        """Return which rows are done, (b,)."""
        import torch

        n = input_ids.shape[1] - self.begin
        last = input_ids[:, -1].tolist()
        for row, draw in enumerate(self.draws):
            if self.ends[row]:
                continue
            if last[row] in self.eos or self._stops(draw, input_ids[row, self.begin :]):
                self.ends[row], self.finish[row] = n, "stop"
            elif n >= draw.most:
                self.ends[row] = n
        return torch.tensor([end > 0 for end in self.ends], device=input_ids.device)

    def _stops(self, draw: Draw, ids: Any) -> bool:
        """Tell whether the text of the last tokens holds a stop text; a character takes four tokens at most."""
        if not draw.request.stop:
            return False
        longest = 4 * max(map(len, draw.request.stop)) + 4
        text = self.tokenizer.decode(ids[-longest:].tolist(), skip_special_tokens=True)
        return any(stop in text for stop in draw.request.stop)

    def sample(self, row: int, ids: Sequence[int]) -> Sample:
        """Return a finished sample, given its row of tokens."""
        draw = self.draws[row]
        own = tuple(ids[self.begin : self.begin + self.ends[row]])
        text = self._text(draw.request.prompt, own)
        found = [text.index(stop) for stop in draw.request.stop if stop in text]
        text = text[: min(found, default=len(text))]
        return Sample(draw.request.key, draw.index, draw.seed, text, own, self.finish[row])

    def _text(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """Decode tokens as they read behind their prompt; a character that is cut off at the end is left out."""
        settings = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        before = self.tokenizer.decode(list(prompt[-BEFORE:]), **settings)
        whole = self.tokenizer.decode([*prompt[-BEFORE:], *ids], **settings)
        text = whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(list(ids), **settings)
        return str(text).rstrip("\ufffd")


class Choosing:
    """Draws the next token of each row, (b,), with the random numbers of its sample; asked as a logits processor."""

    def __init__(self, draws: Sequence[Draw], device: str) -> None:
        import torch

        self.begin = len(draws[0].request.prompt)
        most = max(draw.most for draw in draws)
        uniforms = np.stack([np.random.default_rng(draw.seed).random(most) for draw in draws])
        self.uniforms = torch.as_tensor(uniforms, device=device)  # (b, most)
        self.temperature = torch.tensor([[draw.request.temperature] for draw in draws], device=device).double()
        self.top_p = torch.tensor([[draw.request.top_p] for draw in draws], device=device).double()

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return logits that leave one token to each row: (b, V) to (b, V)."""
        import torch

        chosen = scores.argmax(-1)
        if (self.temperature > 0).any():
            drawn = self._draw(scores, self.uniforms[:, input_ids.shape[1] - self.begin, None])
            chosen = torch.where(self.temperature[:, 0] > 0, drawn, chosen)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None], 0)

    def _draw(self, scores: Any, uniform: Any) -> Any:
        """Return tokens (b,) where the cumulated probabilities of those that `top_p` leaves pass `uniform` (b, 1).

        They are cumulated in the order of the vocabulary, which rounding does not change.
        """
        import torch

        p = torch.softmax(scores.double() / self.temperature.clamp_min(1e-9), -1)
        largest, order = p.sort(dim=-1, descending=True, stable=True)
        outside = largest.cumsum(-1) - largest >= self.top_p
        p = p.masked_fill(torch.zeros_like(outside).scatter_(1, order, outside), 0).cumsum(-1)
        return torch.searchsorted(p, uniform * p[:, -1:], right=True).clamp_max(p.shape[1] - 1)[:, 0]


@dataclass
class Generator:
    """A module that draws samples; `max_length` is the most tokens of prompt and sample together."""

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
        """Draw samples behind prompts of one length; where memory runs out, half of a batch at a time."""
        kept = KEPT[self.forwards.device.split(":", maxsplit=1)[0]]
        longest = len(draws[0].request.prompt) + max(draw.most for draw in draws)
        rows = max(1, kept // longest)
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
        ends = Ends(draws, self.tokenizer, self._eos())
        settings = GenerationConfig(
            do_sample=False, max_new_tokens=max(draw.most for draw in draws), pad_token_id=0, use_cache=True
        )
        prompts = torch.tensor([draw.request.prompt for draw in draws], device=device)
        try:
            ids = model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                generation_config=settings,
                logits_processor=[Choosing(draws, device)],
                stopping_criteria=[ends],
                **self._behind([draw.request.prompt for draw in draws]),
            )
        except Exception as error:  # torch raises errors of many kinds
            if isinstance(error, MemoryError) or "out of memory" in str(error):
                raise OutOfMemory(f"{len(draws)} samples behind {prompts.shape[1]} tokens do not fit") from error
            raise EngineError(f"generation failed: {error}") from error
        return [ends.sample(row, own) for row, own in enumerate(ids.tolist())]

    def _behind(self, prompts: Sequence[tuple[int, ...]]) -> dict[str, Any]:
        """Return the keys and values of what sorted prompts begin with, if it is worth while; a last token is not."""
        shared = min(common_prefix(prompts[0], prompts[-1]), len(prompts[0]) - 1)
        if not self.shares or len(prompts) == 1 or shared < LEAST_SHARED:
            return {}
        return {"past_key_values": self.forwards.behind(prompts[0][:shared], len(prompts))}

    def _eos(self) -> frozenset[int]:
        own = getattr(self.forwards.model.generation_config, "eos_token_id", None)
        found = own if isinstance(own, list) else [own]
        return frozenset(i for i in (*found, self.tokenizer.eos_token_id) if i is not None)
