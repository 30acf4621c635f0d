"""The parent's side of the vLLM engine: one child process (vllm_worker.py) per group of checkpoints of one shape.

The child ends with the group and frees its memory. If it dies, it is restarted and receives the unanswered requests
again. The weights of the group's next checkpoints are loaded into the running engine (a swap). On some devices a swap
leaves old weights in place, so the first swap is compared with a fresh engine (vllm_swaps.py). After every swap the
workers compare the weights that their kernels use with the checkpoint (vllm_checks.py). If they differ, a fresh engine
is started.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np

from harness import Checkpoint, ChoiceScore, EngineError, OutOfMemory, Request, Sample, SampleRequest
from harness.engines import weight_files
from harness_plugins.engines.drawn_texts import note_of_unused, settings_beside
from harness_plugins.engines.memory import ReadAhead, ran_out
from harness_plugins.engines.processes import WINDOW, Batch, Child, ChildDied
from harness_plugins.engines.vllm_asks import differs
from harness_plugins.engines.vllm_swaps import (
    Swapped,
    Verdict,
    checked,
    keep_verdict,
    kind_of,
    second_opinion,
    verdict_of,
)

STARTS = 4  # starts of a child for one checkpoint, after crashes or lack of memory, before the checkpoint fails
SHARE, LESS = 0.9, 0.8  # share of the GPU's memory that vLLM takes by default; factor after running out of memory
BATCHED, LEAST = 8192, 256  # tokens per batch, halved each time memory runs out: default and smallest
ERROR = re.compile(r"^(?:.*[\])] )?((?:\w+\.)*\w*(?:Error|Exception): .+)$", re.MULTILINE)
WORKER = (sys.executable, "-m", "harness_plugins.engines.vllm_worker")


@dataclass(frozen=True)
class Settings:
    """How to start a child: vLLM's options, environment, whether to try `prompt_ids`, maximum length in tokens."""

    options: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    prompt_ids: bool = False
    max_length: int = 2048
    worker: Sequence[str] = WORKER


def errors_in(log: str) -> list[str]:
    """Return the errors in a log of vLLM, except those that only point to other ones."""
    return [error for error in map(str.strip, ERROR.findall(log)) if not re.search("root cause|stack trace", error)]


class VllmEngine:
    """Serve checkpoints of one shape with vLLM in a child process."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.options = dict(settings.options)
        self.child: Child | None = None
        self.about: dict[str, Any] = {}
        self.canary: list[float] = []
        self.unchecked = ""  # why swaps of this model cannot be verified, or ""
        self.notes: list[str] = []
        self.starts = 0
        self.numbers = count()
        self.ahead = ReadAhead()

    # --- the child ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a child on the current checkpoint; reduce its memory settings and retry if memory runs out."""
        self.close()
        while True:
            self.starts += 1
            self.child = Child(self.settings.worker, self.settings.environment)
            try:
                self.child.send(("open", str(self.folder), self.options, self.settings.prompt_ids))
                _, self.about = self._receive()
            except (ChildDied, Failed) as error:
                self._lower_or_raise(error, at_start=True)
                continue
            self.canary, self.unchecked = self.about.pop("canary"), self.about.pop("unchecked")
            self._note(self.about.pop("notes"))
            self._check_as_before()
            return

    def _check_as_before(self) -> None:
        """Raise EngineError if a fresh engine cannot be verified although others of its kind were."""
        kind = kind_of(self.folder, self.about, self.options, self.settings.environment)
        if not self.unchecked:
            checked().add(kind)
        elif kind in checked():
            self.close()
            raise EngineError(f"a fresh engine of vLLM does not serve the weights of {self.folder}: {self.unchecked}")

    def close(self) -> None:
        """End the child and all processes that it started."""
        self.ahead.stop()
        child, self.child = self.child, None
        if child:
            child.stop()

    def _receive(self) -> Any:
        """Return the child's next message; raise Failed if it reports an error."""
        assert self.child
        message = self.child.receive()
        if message[0] != "failed":
            return message
        _, kind, text = message
        if kind == "engine":  # an error of another process of vLLM, which is in the log only
            errors = errors_in(self.child.last_lines())
            shortages = list(filter(ran_out, errors))
            causes = [error for error in shortages or errors if error not in text]
            kind, text = "memory" if shortages else kind, ": ".join([text, *causes[-1:]])
        raise Failed(kind, text)

    def _lower_or_raise(self, error: ChildDied | Failed, *, at_start: bool) -> None:
        """Reduce the memory settings if memory ran out; raise if a restart cannot help."""
        kind = error.kind if isinstance(error, Failed) else "engine"
        if kind == "request" or (at_start and kind != "memory") or self.starts >= STARTS:
            self.close()
            wrong = OutOfMemory if kind == "memory" else EngineError
            raise wrong(f"vLLM cannot serve {self.folder}: {error}") from error
        self.close()
        if kind != "memory":
            return
        if at_start:
            name, value = "gpu_memory_utilization", LESS * self.options.get("gpu_memory_utilization", SHARE)
        else:
            tokens, _ = self.about.get("batch", (BATCHED, 0))
            name, value = "max_num_batched_tokens", self.options.get("max_num_batched_tokens", tokens) // 2
        self.options[name] = round(value, 3) if at_start else max(LEAST, value)
        self._note([f"out of memory: {name} is {self.options[name]} from now on"])

    def _note(self, notes: Iterable[str]) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    # --- scores and samples ------------------------------------------------------------------------------------------

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests, one cell at a time; requests with a common prefix are neighbours."""
        for _, cell in groupby(requests, key=lambda request: request.cell):
            for request, (logprobs, greedy) in self._stream("score", cell):
                is_greedy = None if greedy is None else np.array(greedy)
                yield ChoiceScore(request.key, np.array(logprobs, dtype=np.float64), is_greedy)

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw the samples of requests, one cell at a time."""
        self._note(filter(None, [note_of_unused(settings_beside(self.folder))]))
        for _, cell in groupby(requests, key=lambda request: request.cell):
            fitting = (self._fitting(request) for request in cell)
            for request, (index, text, ids, finish) in self._stream("generate", fitting):
                yield Sample(request.key, index, request.seed + index, text, tuple(ids), finish)

    def _fitting(self, request: SampleRequest) -> SampleRequest:
        if len(request.prompt) < self.settings.max_length:
            return request
        raise EngineError(
            f"the prompt {request.key!r} has {len(request.prompt)} tokens; max_length is {self.settings.max_length}"
        )

    def _stream(self, kind: str, items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield each request of a cell with each of its results while sending more; replace a child that dies."""
        batch, waiting = Batch(kind), iter(items)
        try:
            while not batch.is_done:
                try:
                    if self.child is None:
                        self.start()
                        self._send(batch, batch.left)
                    if batch.is_open and len(batch.left) < WINDOW:
                        self._send(batch, batch.take(waiting, self.numbers))
                    _, number, result = self._receive()
                except (ChildDied, Failed) as error:
                    self._lower_or_raise(error, at_start=False)
                    first = str(error).splitlines()[0]
                    self._note([f"{first}; vLLM was restarted and received {len(batch.left)} requests again"])
                    continue
                yield from batch.answered(number, result)
        finally:
            if not batch.is_done:
                self.close()  # otherwise the pending results would reach the next caller

    def _send(self, batch: Batch, items: Mapping[int, Any]) -> None:
        assert self.child
        self.child.send((batch.kind, [batch.message(n, item) for n, item in items.items()], not batch.is_open))

    # --- other checkpoints -------------------------------------------------------------------------------------------

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:  # noqa: ARG002  # the contract of engines
        """Have the operating system read the weights of the next swap into its cache."""
        self.ahead.read(weight_files(folder))

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Load another checkpoint's weights into the engine and verify them; start a fresh engine if that fails."""
        if checkpoint.adapter:
            raise EngineError(f"{checkpoint.label}: adapters are not swapped in; open an engine for each")
        self.folder, self.starts = folder, 0
        kind = kind_of(folder, self.about, self.options, self.settings.environment)
        seen = Verdict(self.unchecked) if self.unchecked else verdict_of(kind)
        swapped = None if seen and seen.why_not else self._swapped()
        if seen and swapped and not swapped.why_not:
            self.canary = swapped.canary
            return
        self.start()
        if seen is None:
            seen = self._first_verdict(checkpoint, swapped)
            keep_verdict(kind, seen)
        elif swapped:
            seen = Verdict(f"a later swap was wrong: {swapped.why_not}", lasting=True)
            keep_verdict(kind, seen)
        if seen.why_not:
            self._note([f"weights are not swapped, each checkpoint has its own engine: {seen}"])

    def _swapped(self) -> Swapped | None:
        """Swap the weights; return None if vLLM fails."""
        if self.child is None:
            return None
        try:
            self.child.send(("swap", str(self.folder)))
            _, canary, why_not = self._receive()
        except (ChildDied, Failed) as error:
            self._note([f"a swap failed: {error}".splitlines()[0]])
            return None
        return Swapped(list(canary), why_not)

    def _first_verdict(self, checkpoint: Checkpoint, swapped: Swapped | None) -> Verdict:
        """Compare the first swap of a kind with a fresh engine, and the fresh engine with transformers."""
        settings = {name: self.options.get(name) for name in ("dtype", "quantization", "trust_remote_code")}
        told = second_opinion(checkpoint, self.folder, settings, self.about.get("canary_of"), self.canary)
        self._note([told] if told else [])
        if swapped is None:
            return Verdict("it failed")
        why_not = differs(swapped.canary, self.canary, self.options["dtype"])
        why_not = f"{why_not} from those of a fresh engine" if why_not else swapped.why_not
        return Verdict(why_not, lasting=bool(why_not) or not told)

    def describe(self) -> Mapping[str, Any]:
        """Return versions, device, options, scoring methods, and notes on deviations from the usual path."""
        options = {k: v for k, v in self.options.items() if k not in {"dtype", "max_model_len"}}
        if self.settings.environment:
            options["batch_invariant"] = True
        return {
            "engine": "vllm",
            **{name: value for name, value in self.about.items() if name != "canary_of"},
            "dtype": self.options["dtype"],
            "options": options,
            "notes": list(self.notes),
        }


class Failed(EngineError):
    """An error that the child reported. `kind` is memory, request (it would fail again) or engine."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
