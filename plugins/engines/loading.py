"""Load a checkpoint as a transformers module with exactly the tensors of its files, or raise an error.

transformers only warns when it initialises missing tensors randomly and ignores unexpected ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import EngineError
from harness.engines import weight_files
from harness_plugins.engines.memory import free_memory, read_through

PINNED = 4  # free memory that weights need to be read into pinned memory, relative to their size
# Buffers that older versions of transformers saved; they are computed, not trained.
BUFFERS = re.compile(r"(^|\.)(inv_freq|masked_bias|position_ids)$|\.(attn|attention|self_attn|self_attention)\.bias$")


def load_module(folder: Path, dtype: str, *, trust_remote_code: bool = False) -> Any:
    """Return the module of a checkpoint folder; raise EngineError if files and architecture differ."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    settings = {"dtype": getattr(torch, dtype), "trust_remote_code": trust_remote_code}
    reports = {
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,
    }  # _check_shapes refuses these, and says why
    try:
        model, loading_info = AutoModelForCausalLM.from_pretrained(folder, **reports, **settings)
    except Exception as error:  # transformers raises errors of many libraries
        why = error if " " in str(error) else f"{type(error).__name__}: {error}"  # "101" says nothing
        raise EngineError(f"{folder} does not load in transformers: {why}") from error
    _check_shapes(folder, loading_info)
    _check_names(folder, loading_info)
    _check_ties(folder, model)
    return model.eval()


def _check_shapes(folder: Path, loading_info: Mapping[str, Any]) -> None:
    """Raise EngineError for tensors of another shape than that of config.json."""
    shapes = sorted(
        f"{name} is {' x '.join(map(str, in_file))} in the file and {' x '.join(map(str, expected))} by config.json"
        for name, in_file, expected in loading_info["mismatched_keys"]
    )
    if shapes:
        raise EngineError(f"{folder}: {some(shapes)}; correct config.json, such as vocab_size or hidden_size")


def _check_names(folder: Path, loading_info: Mapping[str, Any]) -> None:
    """Raise EngineError for missing tensors, and for unexpected ones that are not known buffers.

    transformers has already removed the names that the model class ignores (`_keys_to_ignore_on_load_unexpected`).
    """
    missing = sorted(loading_info["missing_keys"])
    if missing:
        raise EngineError(f"{folder} lacks the weights {some(missing)}; copy it again")
    unexpected = sorted(name for name in loading_info["unexpected_keys"] if not BUFFERS.search(name))
    if unexpected:
        raise EngineError(
            f"{folder} has weights that the model of its config.json does not use: {some(unexpected)}; "
            "check config.json (number of layers, architecture), or remove these tensors from the file"
        )


def some(names: list[str]) -> str:
    """Return the first three names and how many there are."""
    return f"{', '.join(names[:3])} ({len(names)} in all)"


def _check_ties(folder: Path, model: Any) -> None:
    """Raise EngineError if config.json ties head and embedding but the file has two different matrices."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    ties = getattr(model.config.get_text_config(), "tie_word_embeddings", False) and model._tied_weights_keys
    places = {module.weight.data_ptr() for module in (head, embedding) if hasattr(module, "weight")}
    if ties and len(places) > 1:
        raise EngineError(
            f"{folder}: config.json has tie_word_embeddings = true, but the output head of the file differs from its "
            "embedding; set tie_word_embeddings to false if the head was trained, else remove it from the file"
        )


def read_tensors(
    folder: Path, device: str = "cpu", is_over: Callable[[], bool] = lambda: False
) -> dict[str, Any] | None:
    """Return the tensors of a checkpoint's safetensors files by name, after reading the files completely.

    For CUDA they are copied to pinned memory, if that leaves enough for other processes. Returns None if `is_over()`,
    because the result is not needed any more, and if two files have a tensor of one name.
    """
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    is_pinned = device == "cuda" and _may_pin(weight_files(folder))
    for file in weight_files(folder):
        read_through(file, is_over)
        if is_over():
            return None
        file_tensors = load_file(file)
        if tensors.keys() & file_tensors.keys():
            return None  # which of them counts is decided by transformers
        tensors |= {name: tensor.pin_memory() for name, tensor in file_tensors.items()} if is_pinned else file_tensors
    return tensors


def _may_pin(files: Sequence[Path]) -> bool:
    """Tell whether files fit into pinned memory, which is never paged out; PyTorch takes up to twice their size."""
    fits: bool = free_memory() > PINNED * sum(file.stat().st_size for file in files)
    return fits


def copy_tensors(model: Any, tensors: Mapping[str, Any]) -> bool:
    """Copy tensors into a module if they are exactly its parameters; else return False and change nothing.

    Tied parameters are expected once, or as equal tensors.
    """
    import torch

    state = model.state_dict(keep_vars=True)
    if any(name not in state or state[name].shape != tensor.shape for name, tensor in tensors.items()):
        return False
    places: dict[int, list[str]] = {}
    for name in tensors:
        places.setdefault(state[name].data_ptr(), []).append(name)
    if set(places) != {tensor.data_ptr() for tensor in state.values()}:
        return False
    if not all(torch.equal(tensors[names[0]], tensors[name]) for names in places.values() for name in names[1:]):
        return False
    with torch.no_grad():
        for first, *_ in places.values():
            state[first].copy_(
                tensors[first], non_blocking=True
            )  # from pinned memory; what follows on the device waits
    return True
