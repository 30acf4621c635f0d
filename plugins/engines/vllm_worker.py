"""The child process of the vLLM engine; the only module that imports vllm.

At start-up, each optimisation of scoring is verified on canary requests, and used only if it gives the same
log-probabilities as the unoptimised path. New requests are added as soon as others finish, so vLLM is never idle.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from harness_plugins.engines.processes import Parent
from harness_plugins.engines.vllm_asks import WAYS, Ask, Asked, asks_of, at, canary_of, differs, rows_of

AT_ONCE = 512  # asks in vLLM's queue; more if twice the largest batch is more
CHECKS = "harness_plugins.engines.vllm_checks.Checks"  # class that vLLM adds to its workers
END = object()  # end of the items
PLAIN: Mapping[str, bool] = {"flat": False, "last": False, "rows": False}


@dataclass
class Answer:
    """The results of a request so far: log-probabilities (K,), and whether each continuation is greedy (K,)."""

    left: int
    logprobs: list[float]
    greedy: list[bool | None]


class Vllm:
    """A vLLM engine, and the optimisations of scoring that it verified at start-up."""

    def __init__(self, folder: str, options: Mapping[str, Any], *, rows: bool) -> None:
        self.engine = _start(folder, options)
        self.dtype = str(self.engine.model_config.dtype).removeprefix("torch.")
        self.vocabulary = int(self.engine.model_config.get_vocab_size())
        self.max_length = int(self.engine.model_config.max_model_len) - 1
        scheduler = self.engine.vllm_config.scheduler_config
        self.batch = (int(scheduler.max_num_batched_tokens), int(scheduler.max_num_seqs))
        self.at_once = max(AT_ONCE, 2 * self.batch[1])
        self.asks = 0
        self.held: dict[str, Any] = {}  # unfinished items by vLLM's request id
        self.notes: list[str] = []
        self.ways = dict(PLAIN)
        self.reference: list[float] = []
        self.canary = canary_of(self.vocabulary, self.max_length)
        self.unchecked = self._check(folder)
        self._probe(rows=rows)

    def _check(self, folder: str) -> str:
        """Compare the weights in use with the checkpoint; return why swaps cannot be verified, or ""."""
        if self.engine.vllm_config.parallel_config.worker_extension_cls != CHECKS:
            return "the option worker_extension_cls replaces the class that verifies weights"
        lacks, why_not = zip(*self.engine.collective_rpc("harness_check", args=(folder,)), strict=True)
        if any(lacks):
            raise ValueError(f"{folder} {'; '.join(dict.fromkeys(filter(None, lacks)))}; copy it again")
        return "; ".join(dict.fromkeys(filter(None, why_not)))

    # --- the ways ----------------------------------------------------------------------------------------------------

    def _probe(self, *, rows: bool) -> None:
        """Enable each optimisation that reproduces the unoptimised results twice (the second time from the cache)."""
        self.reference = self.scores_of_canary()
        for way in ("flat", "last", *(["rows"] if rows else [])):
            before, self.ways = self.ways, {**self.ways, way: True}
            why_not = self._differs() or self._differs()
            if why_not:
                self.ways = before
                self.notes.append(f"{WAYS[way]} is not used: {why_not}")

    def scores_of_canary(self) -> list[float]:
        """Return the canary's log-probabilities with the enabled optimisations."""
        answers = dict(self.score(self.canary))
        return [x for asked in self.canary for x in answers[asked.number].logprobs]

    def _differs(self) -> str:
        try:
            why_not: str = differs(self.scores_of_canary(), self.reference, self.dtype)
        except Exception as error:  # vLLM raises many kinds of error for unsupported parameters
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return why_not

    # --- scores ------------------------------------------------------------------------------------------------------

    def score(self, requests: Iterable[Asked | None]) -> Iterator[tuple[int, Answer]]:
        """Score requests, read when there is room for them; None means that the next one has not arrived yet."""
        answers: dict[int, Answer] = {}
        for ask, output in self.run(self._asks(requests, answers), self._score_params):
            answer = answers[ask.asked.number]
            if not self._read(ask, output, answer):  # the prefix cache left rows out: retry without it
                self._add(ask, self._score_params(ask, cache=False))
                continue
            answer.left -= 1
            if not answer.left:
                yield ask.asked.number, answers.pop(ask.asked.number)

    def _asks(self, requests: Iterable[Asked | None], answers: dict[int, Answer]) -> Iterator[Ask | None]:
        for asked in requests:
            if asked is None:
                yield None
                continue
            n = len(asked.continuations)
            asks = list(asks_of(asked, last=self.ways["last"]))
            answers[asked.number] = Answer(len(asks), [0.0] * n, [None] * n)
            yield from asks

    def _score_params(self, ask: Ask, *, cache: bool = True) -> Any:
        from vllm import SamplingParams

        settings: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1, "detokenize": False}
        if ask.lasts:
            settings["logprob_token_ids"] = list(ask.lasts)
        if self.ways["flat"]:
            settings["flat_logprobs"] = True
        if ask.n_rows and self.ways["rows"] and cache and not ask.asked.greedy:
            rows = [[token] for token in ask.prompt[-ask.n_rows :]]
            start = len(ask.prompt) - 1 - ask.n_rows
            settings |= {"prompt_logprob_token_ids": rows, "prompt_logprob_start": start}
            settings["skip_reading_prefix_cache"] = False
        elif ask.n_rows:
            settings["prompt_logprobs"] = 0
        return SamplingParams(**settings)

    def _read(self, ask: Ask, output: Any, answer: Answer) -> bool:
        """Add the output of an ask to the answer; return False if rows are missing."""
        (completion,) = output.outputs
        rows = rows_of(ask, output) if ask.n_rows else (0.0, True)
        if rows is None:
            return False
        total, greedy = rows
        if not ask.lasts:
            (choice,) = ask.choices
            answer.logprobs[choice], answer.greedy[choice] = total, greedy
            return True
        of_lasts = at(completion.logprobs, 0)
        for choice, last in zip(ask.choices, ask.lasts, strict=True):
            answer.logprobs[choice] = total + of_lasts[last][0]
            answer.greedy[choice] = None if greedy is None else greedy and completion.token_ids[0] == last
        return True

    # --- samples -----------------------------------------------------------------------------------------------------

    def generate(self, requests: Iterable[Any]) -> Iterator[tuple[int, int, str, tuple[int, ...], str]]:
        """Draw samples of `harness.SampleRequest`s with numbers as keys; yield (number, index, text, ids, finish)."""
        draws = (draw for request in requests for draw in _draws_of(request))
        for (request, index), output in self.run(draws, self._sample_params):
            (completion,) = output.outputs
            yield request.key, index, completion.text, tuple(completion.token_ids), completion.finish_reason

    def _sample_params(self, draw: Any) -> Any:
        from vllm import SamplingParams

        request, index = draw
        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_tokens, self.max_length - len(request.prompt)),
            stop=list(request.stop),
            seed=request.seed + index,
        )

    # --- the engine --------------------------------------------------------------------------------------------------

    def run(self, items: Iterable[Any], params: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
        """Have vLLM process items that have a `prompt`; add the next item when one finishes.

        If an item is None, continue with the items in the queue: the sender may wait for an answer first.
        """
        waiting = iter(items)
        is_open = True
        try:
            while is_open or self.held:
                while is_open and len(self.held) < self.at_once:
                    item = next(waiting, END)
                    is_open = item is not END
                    if item is None:
                        break
                    if is_open:
                        self._add(item, params(item))
                for output in self.engine.step() if self.held else ():
                    if output.finished and output.request_id in self.held:
                        yield self.held.pop(output.request_id), output
        finally:  # if vLLM refuses an item, the others are still in its queue
            self.engine.abort_request(list(self.held))
            self.held.clear()

    def _add(self, item: Any, params: Any) -> None:
        prompt = item.prompt if isinstance(item, Ask) else item[0].prompt
        self.asks += 1
        name = str(self.asks)
        self.held[name] = item
        self.engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)

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
            "canary_of": (self.vocabulary, self.max_length),
        }


def _draws_of(request: Any) -> Iterator[tuple[Any, int] | None]:
    """Yield each draw of a request; yield None if the request has not arrived yet."""
    if request is None:
        yield None
    else:
        yield from ((request, index) for index in range(request.n))


def _start(folder: str, options: Mapping[str, Any]) -> Any:
    """Start vLLM on a checkpoint with vLLM's own options."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")  # room for the token generated after a prompt
    if options.get("enforce_eager"):
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    if current_platform.is_cpu():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # this already is a separate process
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB; by default vLLM takes most of the memory
    settings = {"disable_log_stats": True, "enable_prefix_caching": True, "logprobs_mode": "raw_logprobs", "seed": 0}
    arguments = EngineArgs(model=folder, **{**settings, "worker_extension_cls": CHECKS, **options})
    # LLM_CLASS selects batch sizes for throughput; the other contexts optimise a server's latency
    return LLMEngine.from_engine_args(arguments, usage_context=UsageContext.LLM_CLASS)


# --- the loop ------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """Answer the parent's messages, one after the other."""

    parent: Parent
    vllm: Any = field(init=False)

    def run(self) -> None:
        """Serve until the parent closes the connection; report an error to the parent and end the process."""
        try:
            while (message := self.parent.next()) is not None:
                kind, *arguments = message
                getattr(self, f"_{kind}")(*arguments)
            self._end()
        except Closed:
            self._end()
        except BaseException as error:
            self.parent.send(("failed", _kind(error), f"{type(error).__name__}: {error}"))
            raise

    def _end(self) -> None:
        """End vLLM's processes, then this process at once: the exit handlers of some libraries take minutes."""
        if hasattr(self, "vllm"):
            self.vllm.engine.engine_core.shutdown()
        os._exit(0)

    def _open(self, folder: str, options: Mapping[str, Any], rows: bool) -> None:
        self.vllm = Vllm(folder, options, rows=rows)
        self.parent.send(("opened", self.vllm.describe()))

    def _swap(self, folder: str) -> None:
        self.parent.send(("swapped", *self.vllm.swap(folder)))

    def _score(self, requests: list[Any], is_last: bool) -> None:
        asked = (request and Asked(*request) for request in self._stream("score", requests, is_last))
        for number, answer in self.vllm.score(asked):
            greedy = None if None in answer.greedy else answer.greedy
            self._tell(number, (answer.logprobs, greedy))

    def _generate(self, requests: list[Any], is_last: bool) -> None:
        for number, *sample in self.vllm.generate(self._stream("generate", requests, is_last)):
            self._tell(number, sample)

    def _tell(self, number: int, result: Any) -> None:
        if self.parent.is_over:
            raise Closed
        self.parent.send(("result", number, result))

    def _stream(self, kind: str, requests: list[Any], is_last: bool) -> Iterator[Any]:
        """Yield the requests of one cell, which arrive in several messages; yield None while none has arrived."""
        waiting = deque(requests)
        while True:
            while waiting:
                yield waiting.popleft()
            if is_last:
                return
            while self.vllm.held and self.parent.is_silent:
                yield None
            message = self.parent.next()
            if message is None:
                raise Closed
            next_kind, more, is_last = message
            if next_kind != kind:
                raise ValueError(f"the parent sent {next_kind} before the last message of {kind}")
            waiting.extend(more)


class Closed(Exception):
    """The parent closed the connection in the middle of a cell."""


def _kind(error: BaseException) -> str:
    """Classify an error for the parent: memory, request (it will fail again), or engine."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        return "memory"
    return "request" if isinstance(error, (TypeError, ValueError)) else "engine"


OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "available memory on node",
    "no available memory for the cache",
    "free memory on device",
)

if __name__ == "__main__":
    Worker(Parent()).run()
