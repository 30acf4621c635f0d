"""The vLLM engine: continuous batching on GPUs (and on CPUs, for tests), one process per group of checkpoints.

vLLM runs in a child process (vllm_worker.py), which ends with the group and frees its memory. If the child dies, it is
restarted and receives the unanswered requests again. The weights of the group's next checkpoints are loaded into the
running engine (a swap). On some devices a swap leaves old weights in place, so the first swap is compared with a fresh
engine. After every swap the workers compare the weights that their kernels use with the checkpoint (vllm_checks.py).
If they differ, a fresh engine is started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness import Checkpoint, ChoiceScore, EngineError, EngineInfo, OutOfMemory, Request, Sample, SampleRequest
from harness.engines import config_digest, how_to_install, read_config, tensors_digest, weight_files
from harness_plugins.engines.processes import WINDOW, Batch, Child, ChildDied
from harness_plugins.engines.transformers import inspect as inspect_transformers
from harness_plugins.engines.transformers import open_engine as open_transformers
from harness_plugins.engines.vllm_asks import canary_of, differs

STARTS = 4  # starts of a child for one checkpoint, after crashes or lack of memory, before the checkpoint fails
SHARE, LESS = 0.9, 0.8  # share of the GPU's memory that vLLM takes by default; factor after running out of memory
BATCHED, LEAST = 8192, 256  # tokens per batch, halved each time memory runs out: default and smallest
WORKER = (sys.executable, "-m", "harness_plugins.engines.vllm_worker")
SECOND_OPINION = 2**32  # bytes; at the first swap of a kind, smaller weights are also compared with transformers
OWN = {"max_model_len": "max_length", "model": "a family"}  # vLLM's option names: the harness's names for them


def has_cuda() -> bool:
    """Tell whether this process may use an NVIDIA GPU, without loading any library."""
    return any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in {"", "-1"}


def free_memory() -> int:
    """Return the available memory in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def is_preferred() -> bool:
    """Tell whether vLLM is the default engine: it is installed, and there is a GPU."""
    return has_cuda() and find_spec("vllm") is not None


def inspect(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: str = "auto",
    max_length: int | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> EngineInfo:
    """Resolve dtype and max_length as the transformers engine does; report weight and cache types as quantisation."""
    for name in set(options) & set(OWN):
        raise EngineError(f"{checkpoint.label}: option {name} is set by the harness; use {OWN[name]} instead")
    settings: dict[str, Any] = {"dtype": dtype, "max_length": max_length, "trust_remote_code": trust_remote_code}
    info: EngineInfo = inspect_transformers(checkpoint, folder, device="cuda" if has_cuda() else "cpu", **settings)
    kinds = [options.get("quantization") or info.quantisation]
    if options.get("kv_cache_dtype", "auto") != "auto":
        kinds.append(f"kv_cache {options['kv_cache_dtype']}")
    shape = f"{config_digest(folder)} {info.dtype} {tensors_digest(folder)} vllm"
    return replace(info, quantisation=", ".join(kinds), shape=shape)


@contextmanager
def open_engine(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: str = "auto",
    max_length: int | None = None,
    trust_remote_code: bool = False,
    batch_invariant: bool = False,
    prompt_ids: bool = False,
    **options: Any,
) -> Iterator[VllmEngine]:
    """Start vLLM on a checkpoint; end its processes and free their memory when the context ends.

    `batch_invariant` requests kernels whose results do not depend on the batch. `prompt_ids` tries
    `prompt_logprob_token_ids` for choices of several tokens, which reads shared prefixes from the cache. All other
    options are passed to vLLM under its own names.
    """
    if batch_invariant and not has_cuda():
        raise EngineError("batch_invariant: vLLM has such kernels for GPUs only, and found no GPU; leave it out")
    resolved: dict[str, Any] = {"dtype": dtype, "max_length": max_length, "trust_remote_code": trust_remote_code}
    info = inspect(checkpoint, folder, **resolved, **options)
    settings = {
        "dtype": info.dtype,
        "max_model_len": info.max_length + 1,  # room for the token that vLLM generates after the longest prompt
        "trust_remote_code": trust_remote_code,
        **options,
    }
    environment = {"VLLM_BATCH_INVARIANT": "1"} if batch_invariant else {}
    engine = VllmEngine(folder, Settings(settings, environment, prompt_ids, info.max_length))
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


@dataclass(frozen=True)
class Settings:
    """How to start a child: vLLM's options, environment, whether to try `prompt_ids`, maximum length in tokens."""

    options: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    prompt_ids: bool = False
    max_length: int = 2048
    worker: Sequence[str] = WORKER


@cache
def verdicts() -> dict[tuple[Any, ...], str]:
    """Return the results of first swaps in this process, by kind of engine: why swaps are wrong, or ""."""
    return {}


@cache
def checked() -> set[tuple[Any, ...]]:
    """Return the kinds of engine whose weights were verified in this process."""
    return set()


@dataclass(frozen=True)
class Swapped:
    """The result of a swap: the canary's scores, and why the workers found the weights wrong, or ""."""

    canary: list[float]
    why_not: str


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
        if not self.unchecked:
            checked().add(self._kind())
        elif self._kind() in checked():
            self.close()
            raise EngineError(f"a fresh engine of vLLM does not serve the weights of {self.folder}: {self.unchecked}")

    def close(self) -> None:
        """End the child and all processes that it started."""
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
        lines = self.child.last_lines().lower()
        raise Failed("memory" if kind == "engine" and "out of memory" in lines else kind, text)

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
        for file in weight_files(folder):
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Load another checkpoint's weights into the engine and verify them; start a fresh engine if that fails."""
        self.folder, self.starts = folder, 0
        why_not = self.unchecked or verdicts().get(self._kind())
        is_first = why_not is None
        swapped = None if why_not else self._swapped()
        if swapped and not swapped.why_not and not is_first:
            self.canary = swapped.canary
            return
        self.start()
        if is_first:
            why_not = self._why_swap_is_wrong(swapped)
            self._compare_with_transformers(checkpoint)
        elif swapped:
            why_not = f"a later swap was wrong: {swapped.why_not}"
        verdicts()[self._kind()] = why_not or ""
        if why_not:
            self._note([f"weights are not swapped, each checkpoint has its own engine: {why_not}"])

    def _kind(self) -> tuple[Any, ...]:
        """Return everything on which the correctness of a swap may depend."""
        config = read_config(self.folder)
        architecture = (*config.get("architectures", ()), config.get("tie_word_embeddings"))
        versions = (self.about.get("vllm"), self.about.get("device"))
        options = {k: v for k, v in self.options.items() if k not in {"max_model_len", "gpu_memory_utilization"}}
        return (*architecture, *versions, *sorted((k, str(v)) for k, v in options.items()))

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

    def _why_swap_is_wrong(self, swapped: Swapped | None) -> str:
        """Return why the result of a swap is wrong, compared with the canary of a fresh engine; "" if it is right."""
        if swapped is None:
            return "it failed"
        why_not = differs(swapped.canary, self.canary, self.options["dtype"])
        return f"{why_not} from those of a fresh engine" if why_not else swapped.why_not

    def _compare_with_transformers(self, checkpoint: Checkpoint) -> None:
        """Compare the fresh engine with transformers on the CPU, if memory allows; note a difference."""
        size = sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
        if not 0 < size < min(SECOND_OPINION, free_memory() / 4) or "quantization" in self.options:
            return
        asked = [Request(a.number, a.context, a.continuations) for a in canary_of(*self.about["canary_of"])]
        settings = {"dtype": self.options["dtype"], "max_length": self.settings.max_length, "device": "cpu"}
        trust = self.options.get("trust_remote_code", False)
        with open_transformers(checkpoint, self.folder, share=False, trust_remote_code=trust, **settings) as other:
            logprobs = {score.key: score.logprobs for score in other.score(asked)}
        expected = [float(x) for request in asked for x in logprobs[request.key]]
        why_not = differs(self.canary, expected, self.options["dtype"])
        if why_not:
            self._note([f"{why_not} between a fresh engine of vLLM and transformers on the CPU"])

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


@harness.hookimpl
def register_engines(register: harness.Register) -> None:
    """Register the engine."""
    register("vllm", open_engine, inspect, is_preferred, modules=("vllm",), install=lambda: how_to_install("vllm"))
