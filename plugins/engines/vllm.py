"""The vLLM engine: continuous batching on GPUs (and on CPUs, for tests), one process per group of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import harness
from harness import Checkpoint, EngineError, EngineInfo
from harness.engines import config_digest, how_to_install, own_ends, safetensors_files, tensors_digest, tokenizer_digest
from harness_plugins.engines.inspection import inspect as inspect_transformers
from harness_plugins.engines.merging import merged_folder
from harness_plugins.engines.vllm_engine import Settings, VllmEngine

OWN = {"max_model_len": "max_length", "model": "a family"}  # vLLM's option names: the harness's names for them
FIXED = {  # options that would change results of the same identity
    "generation_config", "logprobs_mode", "override_generation_config", "skip_tokenizer_init", "tokenizer",
}  # fmt: skip


def has_cuda() -> bool:
    """Tell whether this process may use an NVIDIA GPU, without loading any library."""
    return any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in {"", "-1"}


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
    if fixed := sorted(set(options) & FIXED):
        raise EngineError(f"{checkpoint.label}: option {fixed[0]} would change results without a trace; leave it out")
    _expect_no_others(checkpoint, folder)
    settings: dict[str, Any] = {"dtype": dtype, "max_length": max_length, "trust_remote_code": trust_remote_code}
    info: EngineInfo = inspect_transformers(checkpoint, folder, device="cuda" if has_cuda() else "cpu", **settings)
    kinds = [options.get("quantization") or info.quantisation]
    if options.get("kv_cache_dtype", "auto") != "auto":
        kinds.append(f"kv_cache {options['kv_cache_dtype']}")
    shape = (
        ""
        if checkpoint.adapter
        else f"{_texts_of(folder)} {config_digest(folder)} {info.dtype} {tensors_digest(folder)} vllm"
    )
    return replace(info, quantisation=", ".join(kinds), shape=shape)


def _texts_of(folder: Path) -> str:
    """Return what an engine reads once for all weights that it serves: the tokenizer, and the ends of texts."""
    return f"{tokenizer_digest(folder)} {own_ends(folder)}"


def _expect_no_others(checkpoint: Checkpoint, folder: Path) -> None:
    """Raise EngineError where vLLM, which reads every safetensors file without an index, would load other weights."""
    others = {file.name for file in folder.glob("*.safetensors")} - {file.name for file in safetensors_files(folder)}
    if others and not (folder / "model.safetensors.index.json").exists():
        raise EngineError(
            f"{checkpoint.label}: vLLM would also load {', '.join(sorted(others))} beside model.safetensors; move "
            "these files elsewhere, or use --engine transformers"
        )


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
    options are passed to vLLM under its own names. An adapter is merged into its base before vLLM starts: vLLM's
    own LoRA support lacks DoRA, biases and whole modules, and its weights could not be compared with files.
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
    load_options = {"dtype": info.dtype, "trust_remote_code": trust_remote_code}
    with merged_folder(checkpoint, folder, **load_options) as served:
        engine = VllmEngine(served, Settings(settings, environment, prompt_ids, info.max_length))
        if checkpoint.adapter:
            engine.notes.append(f"the adapter was merged into its base model in float32 and rounded to {info.dtype}")
        try:
            engine.start()
            yield engine
        finally:
            engine.close()


@harness.hookimpl
def register_engines(register: harness.Register) -> None:
    """Register the engine."""
    register(
        "vllm",
        open_engine,
        inspect,
        is_preferred,
        modules=("vllm",),
        install=lambda: how_to_install("vllm"),
        adapters=True,
    )
