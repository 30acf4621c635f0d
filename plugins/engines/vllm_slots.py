"""Map the parameters of a vLLM model to checkpoint tensors, which vLLM renames, fuses, transposes, ties and packs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

METHODS = {"UnquantizedLinearMethod", "UnquantizedEmbeddingMethod"}
TRANSPOSED = {"gpt2": ("c_attn", "c_proj", "c_fc")}  # modules stored as (inputs, outputs) in checkpoints
PREFIX = re.compile(r"^((model|transformer|gpt_neox|language_model)\.)+")
NAMES = {"embed_out": "lm_head"}  # modules that transformers renamed
HEADS = {"lm_head", "embed_out"}
CACHES = re.compile(r"^(kv_cache|_[kqv]_scale|_prob_scale|[kqv]_range)")  # tensors of attention that are not weights


class Unclear(Exception):
    """The checks do not know how a model stores its weights."""


@dataclass(frozen=True)
class Slot:
    """A parameter of a vLLM model: checkpoint tensors concatenated along the first axis.

    `names` are all names of its module in vLLM; `sources` are short names of tensors. `dtype`, `is_empty` (only a
    packed copy remains) and `address` are stored, because vLLM replaces the parameter while it loads weights.
    """

    names: tuple[str, ...]
    leaf: str
    module: Any
    sources: tuple[str, ...]
    dtype: Any
    address: int
    is_empty: bool
    is_linear: bool
    is_transposed: bool

    @property
    def parameter(self) -> Any:
        """Return the current parameter."""
        return getattr(self.module, self.leaf)

    @property
    def name(self) -> str:
        """Return the name of the parameter."""
        return f"{self.names[0]}.{self.leaf}".lstrip(".")


def listed(names: list[str]) -> str:
    """Return the first three names, and the total number if there are more."""
    return ", ".join(names[:3]) + (f" ({len(names)} in all)" if len(names) > 3 else "")


def short(name: str) -> str:
    """Return the name of a tensor without the prefixes in which checkpoints and vLLM differ."""
    name = PREFIX.sub("", name)
    module, _, leaf = name.rpartition(".")
    return f"{NAMES.get(module, module)}.{leaf}"


def pattern(name: str) -> str:
    """Return a name with the layer numbers replaced by *."""
    return re.sub(r"\d+", "*", name)


def slots_of(model: Any, config: Any) -> list[Slot]:
    """Return the parameters of a model with their source tensors; raise Unclear if these are unknown."""
    modules: dict[int, tuple[Any, list[str]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        modules.setdefault(id(module), (module, []))[1].append(name)
    stacked = _stacked(model)
    slots = []
    for module, names in modules.values():
        names.sort(key=_is_head)  # a module that is embedding and head has the embedding's name in the checkpoint
        _raise_for_hidden_tensors(names[0], module)
        leaves = [leaf for leaf, parameter in module._parameters.items() if parameter is not None]
        slots += [_slot(tuple(names), leaf, module, stacked, config) for leaf in leaves]
    return _tie(slots) if getattr(config, "tie_word_embeddings", False) else slots


def _raise_for_hidden_tensors(name: str, module: Any) -> None:
    """Raise Unclear for weights that a module may keep outside its parameters."""
    import torch

    known = ["weight"] if getattr(module, "has_weight", True) is False else []  # constant ones in norms without weights
    hidden = [
        key
        for key, value in vars(module).items()
        if isinstance(value, torch.Tensor) and not CACHES.match(key) and key not in known
    ]
    method = type(getattr(module, "quant_method", None)).__name__
    if hidden:
        raise Unclear(f"{name} ({type(module).__name__}) keeps tensors outside its parameters: {listed(hidden)}")
    has_weights = any(parameter is not None for parameter in module._parameters.values())
    if has_weights and method not in METHODS | {"NoneType"}:
        raise Unclear(f"{name} ({type(module).__name__}) uses the unsupported method {method}")


def _stacked(model: Any) -> Mapping[str, list[str]]:
    """Return, for each fused module of vLLM, the checkpoint's modules that it consists of, in order."""
    packed = getattr(model, "packed_modules_mapping", None) or {}
    fused = {whole: list(parts) for whole, parts in packed.items()}
    for module in model.modules():
        mapper = getattr(module, "hf_to_vllm_mapper", None)
        parts: dict[str, list[str]] = {}
        for part, (whole, _) in (getattr(mapper, "orig_to_new_stacked", None) or {}).items():
            parts.setdefault(whole.strip("."), []).append(part.strip("."))
        for whole, members in parts.items():
            fused.setdefault(whole, members)
    return fused


def _slot(names: tuple[str, ...], leaf: str, module: Any, stacked: Mapping[str, list[str]], config: Any) -> Slot:
    before, _, last = names[0].rpartition(".")
    parts = stacked.get(last, [last])
    sources = tuple(short(".".join(filter(None, (before, part, leaf)))) for part in parts)
    is_linear = leaf == "weight" and hasattr(module, "quant_method") and _computes(names, module)
    transposed = leaf == "weight" and last in TRANSPOSED.get(getattr(config, "model_type", ""), ())
    parameter = module._parameters[leaf]
    held = (parameter.dtype, parameter.data_ptr(), not parameter.numel())
    return Slot(names, leaf, module, sources, *held, is_linear, transposed)


def _computes(names: tuple[str, ...], module: Any) -> bool:
    """Tell whether the module multiplies by its weights; an embedding does so only if it is also the head."""
    return any(map(_is_head, names)) or type(module).__name__ != "VocabParallelEmbedding"


def own_heads(slot: Slot) -> list[str]:
    """Return the short names that a head has in addition to those of the embedding to which it is tied."""
    return [short(f"{name}.{slot.leaf}") for name in slot.names if _is_head(name)]


def _is_head(name: str) -> bool:
    return name.rpartition(".")[2] in HEADS


def _tie(slots: list[Slot]) -> list[Slot]:
    """Set the embedding's tensor as the source of the head."""
    embeddings = [slot for slot in slots if type(slot.module).__name__ == "VocabParallelEmbedding"]
    if len(embeddings) != 1:
        raise Unclear(f"the head is tied to an embedding, and the model has {len(embeddings)} of them")
    (embedding,) = embeddings
    return [
        replace(slot, sources=embedding.sources) if own_heads(slot) and slot.leaf == "weight" else slot
        for slot in slots
    ]
