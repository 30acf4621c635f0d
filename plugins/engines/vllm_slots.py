"""How a model of vLLM holds the tensors of a checkpoint: renamed, fused, transposed, tied, packed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

METHODS = {"UnquantizedLinearMethod", "UnquantizedEmbeddingMethod"}
TRANSPOSED = {"gpt2": ("c_attn", "c_proj", "c_fc")}  # modules whose weights checkpoints hold as (inputs, outputs)
PREFIX = re.compile(r"^((model|transformer|gpt_neox|language_model)\.)+")
NAMES = {"embed_out": "lm_head"}  # modules that transformers has renamed
HEADS = {"lm_head", "embed_out"}
CACHES = re.compile(r"^(kv_cache|_[kqv]_scale|_prob_scale|[kqv]_range)")  # tensors of attention that are no weights


class Unclear(Exception):
    """The checks do not know how a model holds its weights."""


@dataclass(frozen=True)
class Slot:
    """A parameter of vLLM, made of tensors of a checkpoint, one below the other.

    `names` are those in vLLM of all that is its module; `sources` are short names of tensors. `dtype`, `is_empty` (only
    a packed copy is left) and `address` are kept, since the parameter is another one while weights are read.
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
        """Return the parameter as it is now."""
        return getattr(self.module, self.leaf)

    @property
    def name(self) -> str:
        """Return the name of the parameter."""
        return f"{self.names[0]}.{self.leaf}".lstrip(".")


def listed(names: list[str]) -> str:
    """Return the first of many names, and how many there are."""
    return ", ".join(names[:3]) + (f" ({len(names)} in all)" if len(names) > 3 else "")


def short(name: str) -> str:
    """Return the name of a tensor without what checkpoints and vLLM differ in."""
    name = PREFIX.sub("", name)
    module, _, leaf = name.rpartition(".")
    return f"{NAMES.get(module, module)}.{leaf}"


def pattern(name: str) -> str:
    """Return a name with its numbers, those of layers, left out."""
    return re.sub(r"\d+", "*", name)


def slots_of(model: Any, config: Any) -> list[Slot]:
    """Return the parameters of a model and the tensors that they are made of; raise Unclear where that is unknown."""
    modules: dict[int, tuple[Any, list[str]]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        modules.setdefault(id(module), (module, []))[1].append(name)
    stacked = _stacked(model)
    slots = []
    for module, names in modules.values():
        names.sort(key=_is_head)  # what is both embedding and head is called as in the checkpoint
        _raise_for_hidden_tensors(names[0], module)
        own = [leaf for leaf, parameter in module._parameters.items() if parameter is not None]
        slots += [_slot(tuple(names), leaf, module, stacked, config) for leaf in own]
    return _tie(slots) if getattr(config, "tie_word_embeddings", False) else slots


def _raise_for_hidden_tensors(name: str, module: Any) -> None:
    """Raise Unclear for weights that a module may keep outside its parameters."""
    import torch

    known = ["weight"] if getattr(module, "has_weight", True) is False else []  # ones, of norms without weights
    hidden = [
        key
        for key, value in vars(module).items()
        if isinstance(value, torch.Tensor) and not CACHES.match(key) and key not in known
    ]
    method = type(getattr(module, "quant_method", None)).__name__
    if hidden:
        raise Unclear(f"{name} ({type(module).__name__}) keeps tensors of its own: {listed(hidden)}")
    has_weights = any(parameter is not None for parameter in module._parameters.values())
    if has_weights and method not in METHODS | {"NoneType"}:
        raise Unclear(f"{name} ({type(module).__name__}) has weights of {method}")


def _stacked(model: Any) -> Mapping[str, list[str]]:
    """Return which modules of a checkpoint are one in vLLM, in their order."""
    packed = getattr(model, "packed_modules_mapping", None) or {}
    found = {whole: list(parts) for whole, parts in packed.items()}
    for module in model.modules():
        mapper = getattr(module, "hf_to_vllm_mapper", None)
        parts: dict[str, list[str]] = {}
        for part, (whole, _) in (getattr(mapper, "orig_to_new_stacked", None) or {}).items():
            parts.setdefault(whole.strip("."), []).append(part.strip("."))
        for whole, those in parts.items():
            found.setdefault(whole, those)
    return found


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
    """Tell whether products with the weights are computed: with those of embeddings only where they are the head."""
    return any(map(_is_head, names)) or type(module).__name__ != "VocabParallelEmbedding"


def own_heads(slot: Slot) -> list[str]:
    """Return the short names that a head has of its own, though it is tied to the embedding."""
    return [short(f"{name}.{slot.leaf}") for name in slot.names if _is_head(name)]


def _is_head(name: str) -> bool:
    return name.rpartition(".")[2] in HEADS


def _tie(slots: list[Slot]) -> list[Slot]:
    """Let the head be made of the tensor of the embedding."""
    embeddings = [slot for slot in slots if type(slot.module).__name__ == "VocabParallelEmbedding"]
    if len(embeddings) != 1:
        raise Unclear(f"the head is tied to one of {len(embeddings)} embeddings")
    (embedding,) = embeddings
    return [
        replace(slot, sources=embedding.sources) if own_heads(slot) and slot.leaf == "weight" else slot
        for slot in slots
    ]
