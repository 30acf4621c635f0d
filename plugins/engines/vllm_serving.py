"""Scores and samples of a vLLM engine, in its child process.

At start-up, each optimisation of scoring is verified on canary requests, and used only if it gives the same
log-probabilities as the unoptimised path. New requests are added as soon as others finish, so vLLM is never idle.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from math import inf
from typing import Any

from harness_plugins.engines.drawn_texts import Stops
from harness_plugins.engines.vllm_asks import (
    WAYS,
    Answer,
    Ask,
    Asked,
    Rows,
    asks_of,
    at,
    canary_of,
    differs,
    fits_blocks,
    repairs_of,
    rows_of,
)
from harness_plugins.engines.vllm_start import CHECKS, start, take_over_at_once

AT_ONCE = 512  # asks in vLLM's queue; more if twice the largest batch is more
END = object()  # end of the items
PLAIN: Mapping[str, bool] = dict.fromkeys(WAYS, False)


class Vllm:
    """A vLLM engine, and the optimisations of scoring that it verified at start-up."""

    def __init__(self, folder: str, options: Mapping[str, Any], *, rows: bool) -> None:
        self.engine = start(folder, options)
        self.dtype = str(self.engine.model_config.dtype).removeprefix("torch.")
        self.vocabulary = int(self.engine.model_config.get_vocab_size())
        self.max_length = int(self.engine.model_config.max_model_len) - 1
        scheduler = self.engine.vllm_config.scheduler_config
        self.batch = (int(scheduler.max_num_batched_tokens), int(scheduler.max_num_seqs))
        self.at_once = max(AT_ONCE, 2 * self.batch[1])
        self.asks = 0
        self.held: dict[str, Any] = {}  # unfinished items by vLLM's request id
        self.held_tokens = 0
        self.notes: list[str] = []
        self.ways = dict(PLAIN)
        self.reference: list[float] = []
        self.unchecked = self._check(folder)
        self.block, self.room, self.no_cache = self._cache()
        self.repaired = 0  # rows that the prefix cache left out, requested separately
        self.most_cached = 0  # largest number of tokens that a prompt with rows read from the prefix cache
        self.canary = canary_of(self.vocabulary, self.max_length, self.block)
        self._probe(rows=rows)

    def _check(self, folder: str) -> str:
        """Compare the weights in use with the checkpoint; return why swaps cannot be verified, or ""."""
        if self.engine.vllm_config.parallel_config.worker_extension_cls != CHECKS:
            return "the option worker_extension_cls replaces the class that verifies weights"
        lacks, why_not = zip(*self.engine.collective_rpc("harness_check", args=(folder,)), strict=True)
        if any(lacks):
            raise ValueError(f"{folder} {'; '.join(dict.fromkeys(filter(None, lacks)))}; copy it again")
        return "; ".join(dict.fromkeys(filter(None, why_not)))

    def _cache(self) -> tuple[int, int, str]:
        """Return the tokens per block of the cache, the limit on queued tokens, and why rows cannot use it, or "".

        If vLLM preempted a request and resumed it from blocks that others have filled, its rows would be undefined. The
        queue is therefore limited to prompts that fit into the cache together, so that none is preempted.
        """
        if self.engine.vllm_config.parallel_config.worker_extension_cls != CHECKS:
            return 0, 0, "the option worker_extension_cls replaces the class that returns its size"
        blocks, sizes, why_not = zip(*self.engine.collective_rpc("harness_cache"), strict=True)
        block = min(sizes)
        room = min(blocks) * block - self.batch[0] - self.max_length
        if any(why_not) or room <= 0 or not fits_blocks(self.max_length, block):
            told = next(filter(None, why_not), f"it has {min(blocks)} blocks of {block} tokens")
            return 0, 0, told
        return block, room, ""

    # --- the ways ----------------------------------------------------------------------------------------------------

    def _probe(self, *, rows: bool) -> None:
        """Enable each optimisation that reproduces the unoptimised results twice (the second time from the cache)."""
        self.reference = self.scores_of_canary()
        for way in ("flat", "last", "bulk", "cached", *(["rows"] if rows else [])):
            before, self.ways = self.ways, {**self.ways, way: True}
            why_not = self._differs(way) or self._differs("")
            if way == "cached" and not why_not and not self.most_cached:
                why_not = "vLLM reports no cached tokens"
            if why_not:
                self.ways = before
                self.notes.append(f"{WAYS[way]} is not used: {why_not}")

    def scores_of_canary(self) -> list[float]:
        """Return the canary's log-probabilities with the enabled optimisations."""
        answers = dict(self.score(self.canary))
        return [x for asked in self.canary for x in answers[asked.number].logprobs]

    def _differs(self, way: str) -> str:
        """Enable an optimisation, if one is named; return how scores differ from the reference, or ""."""
        try:
            if way == "bulk":
                take_over_at_once(lambda: self.ways["bulk"])
            if way == "cached" and self.no_cache:
                return self.no_cache
            if way == "cached" and self.engine.reset_prefix_cache() is False:
                return "the prefix cache is not empty"
            why_not: str = differs(self.scores_of_canary(), self.reference, self.dtype)
        except Exception as error:  # vLLM raises many kinds of error for unsupported parameters
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return why_not

    # --- scores ------------------------------------------------------------------------------------------------------

    def score(self, requests: Iterable[Asked | None]) -> Iterator[tuple[int, Answer]]:
        """Score requests, read when there is room for them; None means that the next one has not arrived yet."""
        answers: dict[int, Answer] = {}
        room = self.room if self.ways["cached"] else inf
        for ask, output in self.run(self._asks(requests, answers), self._score_params, room):
            answer = answers[ask.asked.number]
            more = self._read(ask, output, answer)
            for other, cache in more:
                self._add(other, self._score_params(other, cache=cache))
            answer.left += len(more) - 1
            if not answer.left:
                yield ask.asked.number, answers.pop(ask.asked.number)

    def _asks(self, requests: Iterable[Asked | None], answers: dict[int, Answer]) -> Iterator[Ask | None]:
        for asked in requests:
            if asked is None:
                yield None
                continue
            asks = list(asks_of(asked, last=self.ways["last"]))
            answers[asked.number] = Answer.of(len(asked.continuations), len(asks))
            yield from asks

    def _score_params(self, ask: Ask, *, cache: bool = True) -> Any:
        from vllm import SamplingParams

        settings: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1, "detokenize": False}
        if ask.lasts:
            settings["logprob_token_ids"] = list(dict.fromkeys(ask.lasts))
        if self.ways["flat"]:
            settings["flat_logprobs"] = True
        if ask.n_rows and self.ways["rows"] and cache and not ask.asked.greedy:
            rows = [[token] for token in ask.prompt[-ask.n_rows :]]
            start = len(ask.prompt) - 1 - ask.n_rows
            settings |= {"prompt_logprob_token_ids": rows, "prompt_logprob_start": start}
            settings["skip_reading_prefix_cache"] = False
        elif ask.n_rows:
            settings["prompt_logprobs"] = 0
            settings |= {"skip_reading_prefix_cache": False} if self.ways["cached"] and cache else {}
        return SamplingParams(**settings)

    def _read(self, ask: Ask, output: Any, answer: Answer) -> list[tuple[Ask, bool]]:
        """Add the output of an ask to the answer; return further asks, each with whether it may read the cache.

        A row that the prefix cache left out is requested separately, which reads one block at most. If there are many,
        the whole ask is repeated without the cache.
        """
        (completion,) = output.outputs
        rows = rows_of(ask, output) if ask.n_rows else Rows(0.0, greedy=True)
        if rows is None or (rows.lost and (not self.ways["last"] or rows.lost * self.block > len(ask.prompt))):
            return [(ask, False)]
        if ask.n_rows:
            self.most_cached = max(self.most_cached, getattr(output, "num_cached_tokens", None) or 0)
        self.repaired += rows.lost
        for choice in ask.choices:
            answer.add(choice, rows.logprob, greedy=rows.greedy)
        if ask.lasts:
            of_lasts = at(completion.logprobs, 0)
            for choice, last in zip(ask.choices, ask.lasts, strict=True):
                answer.add(choice, of_lasts[last][0], greedy=completion.token_ids[0] == last)
        return [(repair, True) for repair in repairs_of(ask, rows.lost)]

    # --- samples -----------------------------------------------------------------------------------------------------

    def generate(self, requests: Iterable[Any]) -> Iterator[tuple[int, int, str, tuple[int, ...], str]]:
        """Draw samples of `harness.SampleRequest`s with numbers as keys; yield (number, index, text, ids, finish)."""
        draws = (draw for request in requests for draw in _draws_of(request))
        for (request, index), output in self.run(draws, self._sample_params):
            (completion,) = output.outputs
            ids = tuple(completion.token_ids)
            text = self._stops.text_of(request.prompt, ids, request.stop)
            yield request.key, index, text, ids, completion.finish_reason

    @cached_property
    def _stops(self) -> Stops:
        """Return the stop texts as special tokens that the model can draw."""
        return Stops(self.engine.tokenizer, self.vocabulary)

    def _sample_params(self, draw: Any) -> Any:
        from vllm import SamplingParams

        request, index = draw
        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_tokens, self.max_length - len(request.prompt)),
            stop=list(request.stop),
            stop_token_ids=self._stops.tokens(request.stop),
            skip_special_tokens=not self._stops.are_mixed(request.stop),
            seed=request.seed + index,
        )

    # --- the engine --------------------------------------------------------------------------------------------------

    def run(self, items: Iterable[Any], params: Callable[[Any], Any], room: float = inf) -> Iterator[tuple[Any, Any]]:
        """Have vLLM process items that have a `prompt`; add the next item when one finishes.

        None is added while the prompts in the queue have `room` tokens or more. If an item is None, continue with the
        items in the queue: the sender may wait for an answer first.
        """
        waiting = iter(items)
        is_open = True
        try:
            while is_open or self.held:
                while is_open and len(self.held) < self.at_once and self.held_tokens < room:
                    item = next(waiting, END)
                    is_open = item is not END
                    if item is None:
                        break
                    if is_open:
                        self._add(item, params(item))
                for output in self.engine.step() if self.held else ():
                    if output.finished and output.request_id in self.held:
                        item = self.held.pop(output.request_id)
                        self.held_tokens -= self._size(item)
                        yield item, output
        finally:  # if vLLM refuses an item, the others are still in its queue
            self.engine.abort_request(list(self.held))
            self.held.clear()
            self.held_tokens = 0

    def _size(self, item: Any) -> int:
        """Return the largest number of cache tokens that an item may use, rounded up to whole blocks."""
        return len(_prompt(item)) + self.block

    def _add(self, item: Any, params: Any) -> None:
        self.asks += 1
        name = str(self.asks)
        largest = max(*_prompt(item), *(item.lasts if isinstance(item, Ask) else ()), 0)
        if largest >= self.vocabulary:  # the rows that pad the embedding are no weights of the model
            raise ValueError(f"the model has no token {largest}: its vocabulary has {self.vocabulary} tokens")
        self.held[name] = item
        self.held_tokens += self._size(item)
        self.engine.add_request(name, {"prompt_token_ids": list(_prompt(item))}, params)

    def swap(self, folder: str) -> tuple[list[float], str]:
        """Load other weights into the engine; return the canary's scores and why the weights are wrong, or ""."""
        why_not = self.engine.collective_rpc("harness_swap", args=(folder,))
        if self.engine.reset_prefix_cache() is False:
            raise RuntimeError("the prefix cache is not empty")
        return self.scores_of_canary(), "; ".join(dict.fromkeys(filter(None, why_not)))

    def describe(self) -> dict[str, Any]:
        """Return versions, device, and the enabled optimisations."""
        import vllm
        from vllm.platforms import current_platform

        return {
            "vllm": vllm.__version__,
            "torch": version("torch"),
            "transformers": version("transformers"),
            "device": platform.machine() if current_platform.is_cpu() else current_platform.get_device_name(),
            "ways": [way for way, is_taken in self.ways.items() if is_taken],
            "batch": self.batch,
            "notes": self.notes,
            "unchecked": self.unchecked,
            "canary": self.reference,
            "canary_of": (self.vocabulary, self.max_length, self.block),
        }


def _prompt(item: Any) -> tuple[int, ...]:
    prompt: tuple[int, ...] = item.prompt if isinstance(item, Ask) else item[0].prompt
    return prompt


def _draws_of(request: Any) -> Iterator[tuple[Any, int] | None]:
    """Yield each draw of a request; yield None if the request has not arrived yet."""
    if request is None:
        yield None
    else:
        yield from ((request, index) for index in range(request.n))
