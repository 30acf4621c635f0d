"""The child process of the vLLM engine, and the only file that imports vllm.

A request becomes one ask for each body: what its continuations hold before their last token. Last tokens are scored
where the body ends, all that share it at once; choices of one token have an empty body, and are one ask a document.
Rows of a body come from `prompt_logprobs`, for which vLLM reads the prompt without its prefix cache. Each way that is
quicker than the plain one is tried on canaries at the start, and taken if it gives the same numbers.
"""

from __future__ import annotations

import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from harness_plugins.engines.processes import Parent

AT_ONCE = 512  # asks that vLLM holds at a time
LAST_TOKENS = 100  # of one ask; vLLM takes 128
TOLERANCE = {"float32": 2e-4}  # share of a log-probability by which two exact ways may differ
TOLERANCE_OF_HALVES = 0.03
PLAIN: Mapping[str, bool] = {"flat": False, "last": False, "rows": False}


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


@dataclass
class Answer:
    """What has come of a request: log-probabilities (K,) in float64, and whether all of each is greedy (K,)."""

    left: int
    logprobs: list[float]
    greedy: list[bool | None]


class Vllm:
    """A vLLM engine with the ways to score that its probe has found right."""

    def __init__(self, folder: str, options: Mapping[str, Any], *, rows: bool) -> None:
        self.engine = _start(folder, options)
        self.dtype = str(self.engine.model_config.dtype).removeprefix("torch.")
        self.vocabulary = int(self.engine.model_config.get_vocab_size())
        self.max_length = int(self.engine.model_config.max_model_len) - 1
        self.asks = 0
        self.held: dict[str, Any] = {}  # what vLLM is at work on, by the names that it has there
        self.notes: list[str] = []
        self.ways = dict(PLAIN)
        self.reference: list[float] = []
        self.canary = _canary(self.vocabulary, self.max_length)
        self._probe(rows=rows)

    # --- the ways ----------------------------------------------------------------------------------------------------

    def _probe(self, *, rows: bool) -> None:
        """Take each quicker way that gives the numbers of the plain one, twice: the second time with a warm cache."""
        self.reference = self.scores_of_canary()
        for way in ("flat", "last", *(["rows"] if rows else [])):
            before, self.ways = self.ways, {**self.ways, way: True}
            why_not = self._differs() or self._differs()
            if why_not:
                self.ways = before
                self.notes.append(f"{WAYS[way]} is not used: {why_not}")

    def scores_of_canary(self) -> list[float]:
        """Return the log-probabilities of the canary, as the engine scores now."""
        found = dict(self.score(self.canary))
        return [x for asked in self.canary for x in found[asked.number].logprobs]

    def _differs(self) -> str:
        try:
            return differs(self.scores_of_canary(), self.reference, self.dtype)
        except Exception as error:  # vLLM refuses in many ways what it cannot do
            return f"{type(error).__name__}: {error}".splitlines()[0]

    # --- scores ------------------------------------------------------------------------------------------------------

    def score(self, requests: Iterable[Asked]) -> Iterator[tuple[int, Answer]]:
        """Score requests, taken when there is room for them."""
        answers: dict[int, Answer] = {}
        for ask, output in self.run(self._asks(requests, answers), self._score_params):
            answer = answers[ask.asked.number]
            if not self._read(ask, output, answer):  # rows that the cache hid: once more, without it
                self._add(ask, self._score_params(ask, cache=False))
                continue
            answer.left -= 1
            if not answer.left:
                yield ask.asked.number, answers.pop(ask.asked.number)

    def _asks(self, requests: Iterable[Asked], answers: dict[int, Answer]) -> Iterator[Ask]:
        for asked in requests:
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
        """Add what vLLM says of an ask to the answer; return whether all rows were there."""
        (completion,) = output.outputs
        rows = _rows(ask, output) if ask.n_rows else (0.0, True)
        if rows is None:
            return False
        total, greedy = rows
        if not ask.lasts:
            (choice,) = ask.choices
            answer.logprobs[choice], answer.greedy[choice] = total, greedy
            return True
        of_lasts = _at(completion.logprobs, 0)
        for choice, last in zip(ask.choices, ask.lasts, strict=True):
            answer.logprobs[choice] = total + of_lasts[last][0]
            answer.greedy[choice] = None if greedy is None else greedy and completion.token_ids[0] == last
        return True

    # --- samples -----------------------------------------------------------------------------------------------------

    def generate(self, requests: Iterable[Any]) -> Iterator[tuple[int, int, str, tuple[int, ...], str]]:
        """Draw the samples of `harness.SampleRequest`s: their keys are numbers; (number, index, text, ids, finish)."""
        draws = ((request, index) for request in requests for index in range(request.n))
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
        """Let vLLM answer items, each with a `prompt`: as many at a time as it takes, the next when one is done."""
        waiting = iter(items)
        is_open = True
        try:
            while is_open or self.held:
                while is_open and len(self.held) < AT_ONCE:
                    item = next(waiting, None)
                    is_open = item is not None
                    if is_open:
                        self._add(item, params(item))
                for output in self.engine.step() if self.held else ():
                    if output.finished and output.request_id in self.held:
                        yield self.held.pop(output.request_id), output
        finally:  # a refused item leaves the others behind
            self.engine.abort_request(list(self.held))
            self.held.clear()

    def _add(self, item: Any, params: Any) -> None:
        prompt = item.prompt if isinstance(item, Ask) else item[0].prompt
        self.asks += 1
        name = str(self.asks)
        self.held[name] = item
        self.engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)

    def swap(self, folder: str) -> list[float]:
        """Read other weights into the engine; return the scores of the canary."""
        self.engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        if self.engine.reset_prefix_cache() is False:
            raise RuntimeError("the prefix cache is not empty")
        return self.scores_of_canary()

    def describe(self) -> dict[str, Any]:
        """Return versions, device, and the ways taken."""
        import vllm
        from vllm.platforms import current_platform

        return {
            "vllm": vllm.__version__,
            "torch": version("torch"),
            "transformers": version("transformers"),
            "device": platform.machine() if current_platform.is_cpu() else current_platform.get_device_name(),
            "ways": [way for way, is_taken in self.ways.items() if is_taken],
            "notes": self.notes,
            "canary": self.reference,
        }


WAYS = {
    "flat": "the flat container of log-probabilities",
    "last": "logprob_token_ids, by which choices that differ in their last token are read together,",
    "rows": "prompt_logprob_token_ids",
}


def differs(found: Sequence[float], expected: Sequence[float], dtype: str) -> str:
    """Return how log-probabilities differ from those expected, beyond rounding; nothing where they do not."""
    a, b = np.asarray(found), np.asarray(expected)
    if (np.abs(a - b) <= TOLERANCE.get(dtype, TOLERANCE_OF_HALVES) * (1 + np.abs(b))).all():  # NaN is not
        return ""
    return f"log-probabilities differ by {np.abs(a - b).max():.2g} nats"


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


def _rows(ask: Ask, output: Any) -> tuple[float, bool | None] | None:
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
    rows = [_at(output.prompt_logprobs, begin + i)[token] for i, token in enumerate(tokens)]
    return sum(logprob for logprob, _ in rows), all(rank == 1 for _, rank in rows)


def _at(container: Any, position: int) -> dict[int, tuple[float, int]]:
    """Return {token: (log-probability, rank)} at a position of either container that vLLM has."""
    if hasattr(container, "start_indices"):
        here = slice(container.start_indices[position], container.end_indices[position])
        pairs = zip(container.logprobs[here], container.ranks[here], strict=True)
        return dict(zip(container.token_ids[here], pairs, strict=True))
    return {token: (found.logprob, found.rank) for token, found in container[position].items()}


def _canary(vocabulary: int, max_length: int) -> list[Asked]:
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


def _start(folder: str, options: Mapping[str, Any]) -> Any:
    """Start vLLM on a checkpoint with options of its own, by their names."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")  # room for the token that is drawn behind a prompt
    if options.get("enforce_eager"):
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.llm_engine import LLMEngine

    if current_platform.is_cpu():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # this is a process of its own
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB; vLLM would take most of the memory there is
    settings = {"disable_log_stats": True, "enable_prefix_caching": True, "logprobs_mode": "raw_logprobs", "seed": 0}
    return LLMEngine.from_engine_args(EngineArgs(model=folder, **{**settings, **options}))


# --- the loop ------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """Answers the messages of the parent, one after the other."""

    parent: Parent
    vllm: Any = field(init=False)

    def run(self) -> None:
        """Serve until the parent wants an end; what goes wrong is told, and ends the process."""
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
        """End vLLM's own processes, and this one without the minutes that some libraries take for it."""
        if hasattr(self, "vllm"):
            self.vllm.engine.engine_core.shutdown()
        os._exit(0)

    def _open(self, folder: str, options: Mapping[str, Any], rows: bool) -> None:
        self.vllm = Vllm(folder, options, rows=rows)
        self.parent.send(("opened", self.vllm.describe()))

    def _swap(self, folder: str) -> None:
        self.parent.send(("swapped", self.vllm.swap(folder)))

    def _score(self, requests: list[Any], is_last: bool) -> None:
        asked = (Asked(*request) for request in self._stream("score", requests, is_last))
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
        """Yield the requests of one cell, of which more messages tell until the last."""
        waiting = deque(requests)
        while True:
            while waiting:
                yield waiting.popleft()
            if is_last:
                return
            message = self.parent.next()
            if message is None:
                raise Closed
            found, more, is_last = message
            if found != kind:
                raise ValueError(f"{found} in the middle of {kind}")
            waiting.extend(more)


class Closed(Exception):
    """The parent wants an end in the middle of a cell."""


def _kind(error: BaseException) -> str:
    """Return what a parent must know of an error: memory, request (it will fail again), or engine."""
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
