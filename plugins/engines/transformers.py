"""The transformers engine for CPU and CUDA: exact, and fast because requests share computation.

A context is read once for all its choices, and a common prefix once for consecutive requests (packing.py). At every
load, a canary compares this with the plain pass, which has one row per choice. If they differ, the plain pass is used
and a note reports it. Batches have a budget of tokens, which is halved when memory runs out.
"""

from __future__ import annotations

import gc
import platform
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from importlib.util import find_spec
from itertools import chain, compress, groupby, islice, starmap
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness import Checkpoint, ChoiceScore, EngineError, EngineInfo, OutOfMemory, Request, Sample, SampleRequest
from harness.engines import config_digest, how_to_install, read_config, tokenizer_digest
from harness_plugins.engines.forwards import Answer, Forwards, rows_of
from harness_plugins.engines.generation import Generator
from harness_plugins.engines.loading import add_adapter, copy_tensors, load_module, read_tensors
from harness_plugins.engines.memory import give_back, keep_freed
from harness_plugins.engines.packing import Batch, Run, extent, grow, pack, path, runs
from harness_plugins.engines.sharing import (
    Sharing,
    length_of,
    real_tree_differs,
    rope_switch,
    sharing_of,
    sharing_with_other_weights,
)
from harness_plugins.engines.tokenizers import tokenizer_of

WINDOW = 256  # requests sorted and batched together, and returned before the next window
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
DEFAULT_LENGTH = 2048  # default if config.json has none, as in lm-eval
QUANTISED = {  # method of quantization_config: packages, one of which transformers needs for it
    "gptq": ("gptqmodel",),
    "awq": ("gptqmodel", "awq"),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "aqlm": ("aqlm",),
    "hqq": ("hqq",),
    "quanto": ("optimum",),
    "torchao": ("torchao",),
    "eetq": ("eetq",),
    "fp8": ("accelerate",),
}
DTYPES = ("float32", "bfloat16", "float16")
BUDGET = {"cpu": 1024, "cuda": 65536}  # tokens per batch, including padding
LOGITS = {"cpu": 2**26, "cuda": 2**30}  # logits per batch
ROW = (
    128,
    512,
)  # tokens of a row that several trees are packed in: a quarter of the model's width, within these bounds


def inspect(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: str = "auto",
    max_length: int | None = None,
    device: str = "auto",
    batch_tokens: int | None = None,  # noqa: ARG001  # inspect and open_engine have the same options
    share: bool = True,  # noqa: ARG001
    trust_remote_code: bool = False,
) -> EngineInfo:
    """Resolve dtype and max_length: the dtype of the checkpoint on CUDA, float32 on CPU, which is exact."""
    config = read_config(folder)
    own = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = (own if _device(device) == "cuda" else "float32") if dtype == "auto" else dtype
    if dtype not in DTYPES:
        raise EngineError(f"{checkpoint.label}: dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    own_length = length_of(config, LENGTHS)
    if max_length and own_length and max_length > own_length and not _is_rotary(config):
        raise EngineError(
            f"{checkpoint.label}: max_length {max_length} exceeds its {own_length} learned positions; lower it"
        )
    quantisation = (config.get("quantization_config") or {}).get("quant_method", "none")
    length = max_length or own_length or DEFAULT_LENGTH
    return EngineInfo(
        dtype=dtype,
        max_length=length,
        load_tokenizer=lambda: tokenizer_of(str(folder), tokenizer_digest(folder), trust_remote_code),
        quantisation=quantisation,
        shape="" if checkpoint.adapter else f"{dtype} {length}",  # other architectures are swapped in
    )


@wraps(inspect)
def inspect_installed(checkpoint: Checkpoint, folder: Path, **options: Any) -> EngineInfo:
    """Raise EngineError where weights are quantised by a method whose library is not installed; else as inspect."""
    info: EngineInfo = inspect(checkpoint, folder, **options)
    quantisation = info.quantisation
    modules = QUANTISED.get(quantisation, ())
    if modules and not any(find_spec(module) for module in modules):
        raise EngineError(
            f"{checkpoint.label}: its weights are quantised by {quantisation}, which needs the package "
            f"{' or '.join(modules)}: pip install {modules[0]}, or use --engine vllm"
        )
    return info


def _is_rotary(config: Mapping[str, Any]) -> bool:
    return any(key.startswith(("rope", "rotary")) for key in config)


def _device(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def open_engine(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: str = "auto",
    max_length: int | None = None,
    device: str = "auto",
    batch_tokens: int | None = None,
    share: bool = True,
    trust_remote_code: bool = False,
) -> Iterator[TransformersEngine]:
    """Load a checkpoint; its memory is released at exit. `share=False` uses the plain pass only."""
    device = _device(device)
    info = inspect(checkpoint, folder, dtype=dtype, max_length=max_length, device=device)
    settings = Settings(info.dtype, device, batch_tokens, share, trust_remote_code, info.max_length, checkpoint.adapter)
    engine = TransformersEngine(folder, settings)
    try:
        yield engine
    finally:
        engine.close()


@dataclass(frozen=True)
class Settings:
    """How an engine loads and batches."""

    dtype: str = "float32"
    device: str = "cpu"
    batch_tokens: int | None = None
    share: bool = True
    trust_remote_code: bool = False
    max_length: int = DEFAULT_LENGTH
    adapter: str = ""

    @property
    def device_type(self) -> str:
        """Return the device without its number."""
        return self.device.split(":")[0]


class TransformersEngine:
    """A causal language model of transformers, for log-probabilities and samples."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        if settings.device_type == "cpu":
            keep_freed()
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self.ahead: tuple[Path, Future[Any]] | None = None  # tensors for the current module, or the next module
        self.model: Any = None
        self.forwards: Any = None
        self.sharing = Sharing()
        self.folder = folder
        self.config = config_digest(folder)
        self._serve(self._load(folder))

    def close(self) -> None:
        """Free the model and prefetched weights."""
        import torch

        self.reader.shutdown(wait=True, cancel_futures=True)
        self.ahead = None
        self._free()
        if self.settings.device_type == "cuda":
            torch.cuda.empty_cache()

    def _free(self) -> None:
        """Drop the module; run the garbage collector, which is slow, only if the module is still referenced."""
        module = weakref.ref(self.model) if self.model is not None else lambda: None
        self.model = self.forwards = None
        if module() is not None:
            gc.collect()
        give_back()

    def describe(self) -> Mapping[str, Any]:
        """Return versions, device and batch size, with notes on disabled optimisations."""
        import torch
        import transformers

        return {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if self.settings.device_type == "cuda" else platform.machine(),
            "dtype": self.settings.dtype,
            "batch_tokens": self.batch_tokens,
            "shares": str(self.sharing),
            "notes": list(self.notes),
        }

    # --- weights ---------------------------------------------------------------------------------------------------

    def _load(self, folder: Path) -> Any:
        model = load_module(folder, self.settings.dtype, trust_remote_code=self.settings.trust_remote_code)
        return add_adapter(model, Path(self.settings.adapter)) if self.settings.adapter else model

    def _serve(self, model: Any) -> None:
        """Use a module and its weights from now on, with the optimisations that are exact for them."""
        known = self.sharing if model is self.model else Sharing()
        if model is not self.model:
            self.batch_tokens = self.settings.batch_tokens or BUDGET[self.settings.device_type]
            self.notes: list[str] = []
        self.model = model.to(self.settings.device)
        if self.forwards:
            self.forwards.close()
        self.forwards = Forwards(self.model, self.settings.device)
        config = model.config.get_text_config()
        name = type(model).__name__
        self.context = max(length_of(config.to_dict(), LENGTHS) or 0, self.settings.max_length)
        self.rope_switch = rope_switch(config.to_dict()) or self.context
        if why_not := self.forwards.settle_head():
            self._note(f"{name} computes all logits with its own head: {why_not}")
        if known.lasting:
            self.sharing = sharing_with_other_weights(self.forwards, known, self.context)
        else:
            self.sharing = sharing_of(self.forwards, self.context) if self.settings.share else Sharing()
            self.proven: dict[
                bool, tuple[int, int, int]
            ] = {}  # with and without prefix: longest verified tree, path and prefix
        self.scored = max(1, LOGITS[self.settings.device_type] // config.vocab_size)
        self.row: int = min(max(getattr(config, "hidden_size", 0) // 4, ROW[0]), ROW[1], self.context)
        if self.sharing.why_not:
            limit = f"{self.sharing} only" if self.sharing.reach or self.sharing.prefixes else "nothing"
            self._note(f"{name} shares {limit}: {self.sharing.why_not}")

    def _note(self, note: str) -> None:
        self.notes += [note] if note not in self.notes else []

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:  # noqa: ARG002  # the contract of engines
        """Start to read the next checkpoint: weights for the current module, or another module.

        Modules of half precision are not built ahead, because transformers sets the default dtype of all threads.
        """
        if config_digest(folder) == self.config and list(folder.glob("*.safetensors")):
            self.ahead = (folder, self.reader.submit(read_tensors, folder))
        elif self.settings.dtype == "float32":
            self.ahead = (folder, self.reader.submit(self._load, folder))

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:  # noqa: ARG002  # the contract of engines
        """Serve another checkpoint: copy its weights into the module, use the prefetched module, or load it."""
        read, self.folder, self.config = self._read_ahead(folder), folder, config_digest(folder)
        if isinstance(read, Mapping) and copy_tensors(self.model, read):
            self._serve(self.model)
            return
        self._free()
        self._serve(self._load(folder) if read is None or isinstance(read, Mapping) else read)

    def _read_ahead(self, folder: Path) -> Any:
        """Return the prefetched weights or module of a folder, or None; after a failure it is loaded again.

        The prefetch is awaited even if unused, because transformers must not build two modules at a time.
        """
        ahead, self.ahead = self.ahead, None
        try:
            read = ahead[1].result() if ahead else None
        except Exception:
            return None
        return read if ahead and ahead[0] == folder else None

    # --- scores ----------------------------------------------------------------------------------------------------

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests window by window, never across cells; common prefixes are computed once."""
        for _, cell in groupby(requests, key=lambda request: request.cell):
            while window := list(islice(cell, WINDOW)):
                short = [extent(request) <= self.sharing.reach for request in window]
                packed = list(compress(window, short))
                for run in runs(packed) if self.sharing.prefixes else [Run(packed)]:
                    yield from self._score_run(run) if self._is_proven(run) else self._score_plain(run.requests)
                yield from self._score_plain(
                    [request for request, is_short in zip(window, short, strict=True) if not is_short]
                )

    def _is_proven(self, run: Run) -> bool:
        """Return whether trees as long as those of a run are exact; the longest one is compared with separate rows."""
        for i, length in enumerate((extent, path)):
            longest = max(run.requests, key=length, default=None)
            known = self.proven.get(bool(run.shared), (0, 0, 0))
            if longest is None:
                continue
            sizes = (extent(longest), path(longest), len(run.shared))
            if sizes[i] <= known[i] and sizes[2] <= known[2]:
                continue
            if why_not := real_tree_differs(self.forwards, longest, run.shared, self._row(run)):
                self.sharing = replace(self.sharing, reach=min(known[i], self.sharing.reach))
                self._note(f"trees of {length(longest)} tokens are not shared: {why_not}")
                return False
            self.proven[bool(run.shared)] = (max(sizes[0], known[0]), max(sizes[1], known[1]), max(sizes[2], known[2]))
        return True

    def _row(self, run: Run) -> int:
        """Return the tokens per row after the prefix of a run; a sliding window may count tokens of the row."""
        row: int = min(self.row, self.sharing.reach - len(run.shared))
        return row

    def _score_run(self, run: Run) -> Iterator[ChoiceScore]:
        """Score the trees of a run after their common prefix, longest first.

        A batch is read after the next one has started, so that the device computes while the host packs and writes.
        """
        trees = [grow(request, len(run.shared)) for request in run.requests]
        trees.sort(key=lambda tree: len(tree.ids), reverse=True)
        row = self._row(run)
        read = self.row / max(self.row, (len(run.shared) + self.row) / 2)  # every row has a copy of the cache
        under_way: list[tuple[Batch, Answer]] = []
        while trees:
            batch = pack(trees, row, int(self.batch_tokens * read), self.scored)
            alone = batch.ids.size if len(batch.trees) == 1 else 0
            try:
                answer = self._or_halve(partial(self.forwards.packed, batch, run.shared), alone)
            except OutOfMemory:  # the separate rows of a tree need less memory
                yield from self._score_plain([trees.pop(0).request])
                continue
            if answer:
                trees = trees[len(batch.trees) :]
                under_way.append((batch, answer))
                yield from chain.from_iterable(starmap(_scores, under_way[:-1]))
                del under_way[:-1]
        yield from chain.from_iterable(starmap(_scores, under_way))

    def _score_plain(self, requests: Sequence[Request]) -> Iterator[ChoiceScore]:
        """Score every choice as a separate row, longest first."""
        rows = rows_of(requests)
        most = max((row.n_scored for row in rows), default=1)
        found: dict[tuple[int, int], tuple[float, bool, Any]] = {}
        keeps = any(request.tokens for request in requests)
        while rows:
            batch = rows[: max(1, min(self.batch_tokens // len(rows[0].ids), self.scored // most))]
            if len(batch[0].ids) - 1 > self.rope_switch:  # shorter rows have other frequencies without longer ones
                batch = [row for row in batch if len(row.ids) - 1 > self.rope_switch]
            alone = len(batch[0].ids) if len(batch) == 1 else 0
            answer = self._or_halve(partial(self.forwards.plain, batch), alone)
            if answer:
                rows = rows[len(batch) :]
                places = ((row.request, row.choice) for row in batch)
                tokens = answer.tokens() if keeps else [None] * len(batch)
                found.update(zip(places, zip(*answer.read(), tokens, strict=True), strict=True))
        for i, request in enumerate(requests):
            logprobs, greedy, tokens = zip(*(found[i, k] for k in range(len(request.continuations))), strict=True)
            yield ChoiceScore(request.key, np.array(logprobs), np.array(greedy), tokens if request.tokens else None)

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw the samples of requests, batched by prompt length, never across cells."""
        settings = self.settings
        tokenizer = tokenizer_of(str(self.folder), tokenizer_digest(self.folder), settings.trust_remote_code).inner
        shares = self.sharing.prefixes and settings.max_length <= self.sharing.reach
        yield from Generator(self.forwards, tokenizer, settings.max_length, shares).generate(requests)

    def _or_halve(self, forward: Callable[[], Answer], alone: int) -> Answer | None:
        """Run a forward pass; when memory runs out, halve the budget for the rest of the run and return None.

        `alone` is the length of a sequence that is alone in its batch, which a smaller budget does not help, or 0.
        """
        try:
            return forward()
        except (RuntimeError, MemoryError, IndexError) as error:
            if not _is_out_of_memory(error):
                raise EngineError(f"the forward pass failed: {error}") from error
            gc.collect()
            if alone:
                raise OutOfMemory(f"one sequence of {alone} tokens does not fit into memory") from error
            self.batch_tokens = max(self.batch_tokens // 2, 1)
        self.notes.append(f"out of memory: batches of {self.batch_tokens} tokens from now on")
        return None


def _scores(batch: Batch, answer: Answer) -> Iterator[ChoiceScore]:
    logprobs, greedy = answer.read()
    tokens = answer.tokens() if any(tree.request.tokens for tree in batch.trees) else []
    for request, choices in batch.slices():
        own = tuple(tokens[choices]) if request.tokens else None
        yield ChoiceScore(request.key, logprobs[choices], greedy[choices], own)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)


@harness.hookimpl
def register_engines(register: harness.Register) -> None:
    """Register it."""
    modules = ("safetensors", "tokenizers", "torch", "transformers")
    register(
        "transformers",
        open_engine,
        inspect_installed,
        modules=modules,
        install=lambda: how_to_install("transformers"),
        adapters=True,
        tokens=True,
    )
