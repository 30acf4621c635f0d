"""The transformers engine for CPU and CUDA: exact, and fast because requests share computation.

A context is read once for all its choices, and a common prefix once for consecutive requests (packing.py). At every
load, a canary compares this with the plain pass, which has one row per choice. If they differ, the plain pass is used
and a note reports it. Batches have a budget of tokens, which is halved when memory runs out.
"""

from __future__ import annotations

import gc
import platform
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import harness
from harness import Checkpoint, ChoiceScore, EngineError, OutOfMemory, Request, Sample, SampleRequest
from harness.engines import config_digest, how_to_install, own_ends, safetensors_files, tokenizer_digest
from harness_plugins.engines.causality import expect_causal
from harness_plugins.engines.drawn_texts import note_of_unused
from harness_plugins.engines.exact_kernels import exact_kernels
from harness_plugins.engines.forwards import Forwards
from harness_plugins.engines.generation import Generator
from harness_plugins.engines.inspection import DEFAULT_LENGTH, LENGTHS, device_of, inspect, inspect_installed
from harness_plugins.engines.loading import copy_tensors, load_module, read_tensors
from harness_plugins.engines.memory import empty_pinned, give_back, keep_freed, ran_out
from harness_plugins.engines.merging import add_adapter
from harness_plugins.engines.ropes import rope_switch
from harness_plugins.engines.scoring import BATCHES, CACHED, Scorer
from harness_plugins.engines.sharing import (
    SELECTED,
    Sharing,
    length_of,
    sharing_of,
    sharing_with_other_weights,
)
from harness_plugins.engines.tokenizers import tokenizer_of

BUDGET = {"cpu": 1024, "cuda": 65536}  # tokens per batch, including padding
LOGITS = {"cpu": 2**26, "cuda": 2**30}  # logits per batch
ROW = (128, 512)  # tokens of a row with several trees: a quarter of the model's width, within these bounds


def module_of(folder: Path) -> tuple[str, str]:
    """Return what checkpoints that are served by one module have in common: config.json, and the ends of texts."""
    return config_digest(folder), str(own_ends(folder))


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
    device = device_of(device)
    info = inspect(checkpoint, folder, dtype=dtype, max_length=max_length, device=device)
    settings = Settings(info.dtype, device, batch_tokens, share, trust_remote_code, info.max_length, checkpoint.adapter)
    with exact_kernels():
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
        self.over = threading.Event()  # set when the prefetched weights are not needed any more
        self.ahead: tuple[Path, Future[Any]] | None = None  # tensors for the current module, or the next module
        self.model: Any = None
        self.scorer: Any = Scorer()
        self.folder = folder
        self.config = module_of(folder)
        self._serve(self._load(folder))

    def close(self) -> None:
        """Free the model and prefetched weights."""
        import torch

        self.over.set()
        self.reader.shutdown(wait=True, cancel_futures=True)
        self.ahead = None
        self._free()
        if self.settings.device_type == "cuda":
            try:
                torch.cuda.empty_cache()
                empty_pinned()
            except RuntimeError as error:
                first = str(error).split("\n", maxsplit=1)[0]
                raise EngineError(
                    f"this process cannot use the GPU any more after an error in one of its kernels ({first}); run the "
                    "same command again to compute the missing cells"
                ) from error

    def _free(self) -> None:
        """Drop the module; run the garbage collector, which is slow, only if the module is still referenced."""
        module = weakref.ref(self.model) if self.model is not None else lambda: None
        self.model = self.scorer.forwards = None
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
            "device": torch.cuda.get_device_name(self.settings.device)
            if self.settings.device_type == "cuda"
            else platform.machine(),
            "dtype": self.settings.dtype,
            "batch_tokens": self.scorer.batch_tokens,
            "shares": str(self.scorer.sharing),
            "notes": list(self.scorer.notes),
        }

    # --- weights ---------------------------------------------------------------------------------------------------

    def _load(self, folder: Path) -> Any:
        model = load_module(folder, self.settings.dtype, trust_remote_code=self.settings.trust_remote_code)
        return add_adapter(model, Path(self.settings.adapter)) if self.settings.adapter else model

    def _serve(self, model: Any) -> None:
        """Use a module and its weights from now on, with the optimisations that are exact for them."""
        scorer, kind = self.scorer, self.settings.device_type
        known = scorer.sharing if model is self.model else Sharing()
        last_block = scorer.forwards.last_block if model is self.model and scorer.forwards else None
        if scorer.forwards:
            scorer.forwards.close()
        if model is not self.model:
            self.scorer = scorer = Scorer(self.settings.batch_tokens or BUDGET[kind], BATCHES[kind], CACHED[kind])
        self.model = model.to(self.settings.device)
        scorer.forwards = forwards = Forwards(self.model, self.settings.device, last_block)
        config = model.config.get_text_config()
        name = type(model).__name__
        self.context = max(length_of(config.to_dict(), LENGTHS) or 0, self.settings.max_length)
        scorer.rope_switch = rope_switch(config.to_dict()) or self.context
        scorer.selects = length_of(config.to_dict(), SELECTED) or self.context
        if why_not := self._settled(forwards):
            scorer.note(f"{name} computes all logits with its own head: {why_not}")
        if not known.lasting:
            expect_causal(forwards, min(self.context, scorer.rope_switch, scorer.selects))
        if known.lasting:
            scorer.sharing = sharing_with_other_weights(forwards, known, self.context)
        else:
            scorer.sharing = sharing_of(forwards, self.context) if self.settings.share else Sharing()
            scorer.proven = {}
        scorer.scored = max(1, LOGITS[kind] // config.vocab_size)
        scorer.row = min(max(getattr(config, "hidden_size", 0) // 4, ROW[0]), ROW[1], self.context)
        if scorer.sharing.why_not:
            limit = f"{scorer.sharing} only" if scorer.sharing.reach or scorer.sharing.prefixes else "nothing"
            scorer.note(f"{name} shares {limit}: {scorer.sharing.why_not}")

    def _settled(self, forwards: Forwards) -> str:
        """Return why a module computes logits with its own head, or ""; raise EngineError if it computes none."""
        try:
            why_not: str = forwards.settle_head()
        except Exception as error:  # a module may raise any error in a dtype that it does not support
            dtype, first = self.settings.dtype, str(error).split("\n", maxsplit=1)[0]
            if ran_out(error):
                raise OutOfMemory(f"24 tokens do not fit into memory beside the weights: {first}") from error
            advice = "" if dtype == "float32" else "; use -O dtype=float32"
            raise EngineError(f"{type(self.model).__name__} does not compute in {dtype}: {first}{advice}") from error
        return why_not

    def prefetch(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Start to read the next checkpoint: weights for the current module, or another module.

        Modules of half precision are not built ahead, because transformers sets the default dtype of all threads.
        """
        if checkpoint.adapter or self.settings.adapter:
            return
        if module_of(folder) == self.config and safetensors_files(folder):
            self.ahead = (folder, self.reader.submit(read_tensors, folder, self.settings.device_type, self.over.is_set))
        elif self.settings.dtype == "float32":
            self.ahead = (folder, self.reader.submit(self._load, folder))

    def swap(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Serve another checkpoint: copy its weights into the module, use the prefetched module, or load it."""
        read, self.folder, self.config = self._read_ahead(folder), folder, module_of(folder)
        if checkpoint.adapter or self.settings.adapter:
            read, self.settings = None, replace(self.settings, adapter=checkpoint.adapter)
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

    def score(self, requests: Iterable[Request]) -> Iterator[ChoiceScore]:
        """Score requests window by window, never across cells; common prefixes are computed once."""
        yield from self.scorer.score(requests)

    def generate(self, requests: Iterable[SampleRequest]) -> Iterator[Sample]:
        """Draw the samples of requests, batched by prompt length, never across cells."""
        settings = self.settings
        tokenizer = tokenizer_of(str(self.folder), tokenizer_digest(self.folder), settings.trust_remote_code).inner
        beside = self.model.generation_config
        if note := note_of_unused(beside.to_diff_dict() if beside else {}):
            self.scorer.note(note)
        shares = self.scorer.sharing.prefixes and settings.max_length <= self.scorer.sharing.reach
        yield from Generator(self.scorer.forwards, tokenizer, settings.max_length, shares).generate(requests)


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
