"""The vLLM engine: continuous batches on GPUs (and on CPUs, where its tests run), a process a group of checkpoints.

vLLM lives in a child process (vllm_worker.py), which is gone, with its memory, when the group ends. A child that dies
is started again and asked what it had not answered. Other checkpoints of the group are read into the same engine. The
first such swap is compared with a fresh engine, since on some devices it leaves old weights in place. After every swap
the workers compare what their kernels use with the checkpoint (vllm_checks.py); on doubt a fresh engine is started.
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

STARTS = 4  # of a child, after deaths or where memory runs out, before the checkpoint is given up
SHARE, LESS = 0.9, 0.8  # of a GPU's memory that vLLM takes by default, and the factor when it is too much
BATCHED, LEAST = 8192, 256  # tokens of a batch when memory runs out for the first time, halved each time
WORKER = (sys.executable, "-m", "harness_plugins.engines.vllm_worker")
SECOND_OPINION = 2**32  # bytes of the largest weights that transformers reads too, at the first swap of a kind
OWN = {"max_model_len": "max_length", "model": "a family"}  # vLLM's names of what the harness has its own names for


def has_cuda() -> bool:
    """Tell whether there is a GPU of NVIDIA that this process may use, without loading any library."""
    return any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in {"", "-1"}


def free_memory() -> int:
    """Return the bytes of memory that are to be had."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def is_preferred() -> bool:
    """Tell whether vLLM is the engine to use where none is named: it is installed, and there is a GPU."""
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
    """Resolve dtype and max_length as the transformers engine does; what changes weights or cache is quantisation."""
    for name in set(options) & set(OWN):
        raise EngineError(f"{checkpoint.label}: option {name}; name it by {OWN[name]}")
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
    """Start vLLM on a checkpoint; its processes and their memory are gone when the context ends.

    `batch_invariant` asks for kernels whose numbers do not depend on the batch. `prompt_ids` tries
    `prompt_logprob_token_ids` for choices of several tokens, which reads shared prefixes from the cache. All other
    options are vLLM's own, by its names.
    """
    if batch_invariant and not has_cuda():
        raise EngineError("batch_invariant: vLLM has such kernels for GPUs only; leave it out here")
    own: dict[str, Any] = {"dtype": dtype, "max_length": max_length, "trust_remote_code": trust_remote_code}
    info = inspect(checkpoint, folder, **own, **options)
    settings = {
        "dtype": info.dtype,
        "max_model_len": info.max_length + 1,  # the token that is drawn behind the longest prompt
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
    """How a child is started: vLLM's options, the environment, whether rows by id are tried, and the longest text."""

    options: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    prompt_ids: bool = False
    max_length: int = 2048
    worker: Sequence[str] = WORKER


@cache
def verdicts() -> dict[tuple[Any, ...], str]:
    """Return what swaps have shown in this process: why not, or nothing, by what their rightness depends on."""
    return {}


@cache
def checked() -> set[tuple[Any, ...]]:
    """Return the kinds of engines whose weights were verified in this process."""
    return set()


@dataclass(frozen=True)
class Swapped:
    """What a swap led to: the scores of the canary, and why the workers do not trust the weights, or nothing."""

    canary: list[float]
    why_not: str


class VllmEngine:
    """Checkpoints of one shape, served by vLLM in a child process."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.options = dict(settings.options)
        self.child: Child | None = None
        self.about: dict[str, Any] = {}
        self.canary: list[float] = []
        self.unchecked = ""  # why swaps of this model cannot be verified
        self.notes: list[str] = []
        self.starts = 0
        self.numbers = count()

    # --- the child ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a child on the present checkpoint; where memory does not suffice, with less."""
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
        """Raise EngineError where a fresh engine is not verified though others of its kind were."""
        if not self.unchecked:
            checked().add(self._kind())
        elif self._kind() in checked():
            self.close()
            raise EngineError(f"a fresh engine of vLLM does not serve the weights of {self.folder}: {self.unchecked}")

    def close(self) -> None:
        """End the child and all that it started."""
        child, self.child = self.child, None
        if child:
            child.stop()

    def _receive(self) -> Any:
        """Return the next message of the child; raise Failed where it says that something went wrong."""
        assert self.child
        message = self.child.receive()
        if message[0] != "failed":
            return message
        _, kind, text = message
        lines = self.child.last_lines().lower()
        raise Failed("memory" if kind == "engine" and "out of memory" in lines else kind, text)

    def _lower_or_raise(self, error: ChildDied | Failed, *, at_start: bool) -> None:
        """Take less memory where it ran out; raise what no other start would mend."""
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
        self._note([f"out of memory: {name} {self.options[name]} from here on"])

    def _note(self, notes: Iterable[str]) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    # --- scores and samples ------------------------------------------------------------------------------------------

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests, never across cells; those that begin alike are neighbours."""
        for _, cell in groupby(requests, key=lambda request: request.cell):
            for request, (logprobs, greedy) in self._stream("score", cell):
                is_greedy = None if greedy is None else np.array(greedy)
                yield ChoiceScore(request.key, np.array(logprobs, dtype=np.float64), is_greedy)

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw the samples of requests, never across cells."""
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
        """Yield each request of a cell with each of its results, while more are sent; a child that dies is replaced."""
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
                    self._note([f"{first}; it was started again, and asked {len(batch.left)} requests once more"])
                    continue
                yield from batch.answered(number, result)
        finally:
            if not batch.is_done:
                self.close()  # what is under way would come back to another caller

    def _send(self, batch: Batch, items: Mapping[int, Any]) -> None:
        assert self.child
        self.child.send((batch.kind, [batch.message(n, item) for n, item in items.items()], not batch.is_open))

    # --- other checkpoints -------------------------------------------------------------------------------------------

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:  # noqa: ARG002  # the contract of engines
        """Let the system read the weights that will be swapped in next."""
        for file in weight_files(folder):
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Read other weights into the engine and verify them, or start a fresh one where they are in doubt."""
        self.folder, self.starts = folder, 0
        why_not = self.unchecked or verdicts().get(self._kind())
        is_first = why_not is None
        swapped = None if why_not else self._swapped()
        if swapped and not swapped.why_not and not is_first:
            self.canary = swapped.canary
            return
        self.start()
        if is_first:
            why_not = self._tell_apart(swapped)
            self._hear_transformers(checkpoint)
        elif swapped:
            why_not = f"a later swap was wrong: {swapped.why_not}"
        verdicts()[self._kind()] = why_not or ""
        if why_not:
            self._note([f"weights are not swapped, each checkpoint has an engine of its own: {why_not}"])

    def _kind(self) -> tuple[Any, ...]:
        """Return what the rightness of a swap may depend on."""
        config = read_config(self.folder)
        architecture = (*config.get("architectures", ()), config.get("tie_word_embeddings"))
        versions = (self.about.get("vllm"), self.about.get("device"))
        options = {k: v for k, v in self.options.items() if k not in {"max_model_len", "gpu_memory_utilization"}}
        return (*architecture, *versions, *sorted((k, str(v)) for k, v in options.items()))

    def _swapped(self) -> Swapped | None:
        """Swap; return None where vLLM cannot."""
        if self.child is None:
            return None
        try:
            self.child.send(("swap", str(self.folder)))
            _, canary, why_not = self._receive()
        except (ChildDied, Failed) as error:
            self._note([f"a swap failed: {error}".splitlines()[0]])
            return None
        return Swapped(list(canary), why_not)

    def _tell_apart(self, swapped: Swapped | None) -> str:
        """Return why a swap must not be trusted, given the canary of a fresh engine; nothing where it was right."""
        if swapped is None:
            return "it failed"
        why_not = differs(swapped.canary, self.canary, self.options["dtype"])
        return f"{why_not} from those of a fresh engine" if why_not else swapped.why_not

    def _hear_transformers(self, checkpoint: Checkpoint) -> None:
        """Compare the fresh engine with transformers on the CPU, where its memory allows; say where they differ."""
        size = sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
        if not 0 < size < min(SECOND_OPINION, free_memory() / 4) or "quantization" in self.options:
            return
        asked = [Request(a.number, a.context, a.continuations) for a in canary_of(*self.about["canary_of"])]
        settings = {"dtype": self.options["dtype"], "max_length": self.settings.max_length, "device": "cpu"}
        trust = self.options.get("trust_remote_code", False)
        with open_transformers(checkpoint, self.folder, share=False, trust_remote_code=trust, **settings) as other:
            found = {score.key: score.logprobs for score in other.score(asked)}
        expected = [float(x) for request in asked for x in found[request.key]]
        why_not = differs(self.canary, expected, self.options["dtype"])
        if why_not:
            self._note([f"{why_not} between a fresh engine of vLLM and transformers on the CPU"])

    def describe(self) -> Mapping[str, Any]:
        """Return versions, device, options and ways; notes say where the engine left its usual path."""
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
    """The child says what went wrong: `kind` is memory, request (it would fail again) or engine."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@harness.hookimpl
def register_engines(register: harness.Register) -> None:
    """Register it."""
    register("vllm", open_engine, inspect, is_preferred, modules=("vllm",), install=lambda: how_to_install("vllm"))
