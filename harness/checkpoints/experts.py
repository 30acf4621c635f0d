"""Mixtures of experts: parameters that are active per token, from config.json and the names and shapes of tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

NUMBER = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")  # keys of the experts of a layer
PER_TOKEN = ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_top_k", "moe_topk", "moe_k")
PARTS = ("text_config", "llm_config", "language_config", "decoder", "ffn_config", "thinker_config")
UNEQUAL = ("zero_expert_num",)  # experts without parameters may be chosen, so that the count depends on the token
EXPERTS = re.compile(r"(^|\.)experts\.")
OF_EXPERT = re.compile(r"(^|\.)experts\.(?:expert_)?(\d+)\.")
FUSED = re.compile(r"(^|[._])(experts|moe)\.")  # one tensor has all experts of a layer, along its first axis
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Routing:
    """Experts of a layer, and how many of them one token is sent to; None where config.json does not say it."""

    experts: int | None
    per_token: int | None


def routing_of(config: Mapping[str, Any], shapes: Shapes) -> Routing | None:
    """Return how tokens are sent to experts; None for a dense model."""
    parts = [config, *(config[name] for name in PARTS if isinstance(config.get(name), Mapping))]
    experts, per_token = _number(parts, NUMBER), _number(parts, PER_TOKEN)
    if any(part.get(name) for part in parts for name in UNEQUAL):
        per_token = None
    if (experts or 0) > 1 or any(EXPERTS.search(name) for name in shapes):
        return Routing(experts, per_token)
    return None


def _number(parts: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> int | None:
    """Return the one positive whole number that some keys have; None without one, or with several that differ."""
    values = {part[key] for part in parts for key in keys if type(part.get(key)) is int and part[key] > 0}
    return values.pop() if len(values) == 1 else None


def active_counts(routing: Routing, shapes: Shapes) -> dict[str, int] | None:
    """Return by tensor how many of its parameters one token uses; None where the files do not say it.

    Routed experts count by the share that a token is sent to. Everything else (attention, routers, shared experts)
    counts whole. The experts that config.json names must be those of the tensors, in every layer.
    """
    experts, per_token = routing.experts, routing.per_token
    if experts is None or per_token is None or per_token > experts:
        return None
    numbered = {name: int(match[2]) for name in shapes if (match := OF_EXPERT.search(name))}
    fused = {name for name in shapes if name not in numbered and _is_fused(name, shapes[name], experts)}
    unclear = {name for name in shapes if EXPERTS.search(name)} - set(numbered) - fused
    if unclear or not (numbered or fused) or not all(_complete(numbered, shapes, experts)):
        return None
    return {name: _active(name, prod(shape), numbered, fused, routing) for name, shape in shapes.items()}


def _active(name: str, count: int, numbered: Mapping[str, int], fused: set[str], routing: Routing) -> int:
    experts, per_token = routing.experts or 1, routing.per_token or 1
    if name in fused:
        return count // experts * per_token
    return 0 if numbered.get(name, -1) >= per_token else count  # experts are equal: the first ones stand for those used


def _is_fused(name: str, shape: Sequence[int], experts: int) -> bool:
    of_experts = EXPERTS.search(name) is not None or (FUSED.search(name) is not None and len(shape) > 2)
    return of_experts and len(shape) > 1 and shape[0] == experts


def _complete(numbered: Mapping[str, int], shapes: Shapes, experts: int) -> Iterator[bool]:
    """Yield for each numbered tensor of a layer whether all experts have it, in one shape."""
    layers: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, number in numbered.items():
        layers.setdefault(OF_EXPERT.sub(".experts.*.", name), {})[number] = tuple(shapes[name])
    for tensors in layers.values():
        yield set(tensors) == set(range(experts)) and len(set(tensors.values())) == 1
