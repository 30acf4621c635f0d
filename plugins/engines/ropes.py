"""Rotary embeddings whose frequencies depend on the longest sequence that a module reads or has read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

KEY = "original_max_position_embeddings"


def rope_switch(config: Mapping[str, Any]) -> int | None:
    """Return the sequence length above which rotary frequencies change for the whole batch, or None."""
    places = [kind.get(KEY) or config.get(KEY) for kind in _kinds(config) if _type(kind) in {"longrope", "su"}]
    if rope_grows(config):
        places.append(config.get("max_position_embeddings", 1) - 1)  # only shorter ones have the original frequencies
    return min((place for place in places if place), default=None)


def rope_grows(config: Mapping[str, Any]) -> bool:
    """Tell whether frequencies depend on the exact length beyond the switch, and stay until a short sequence is read.

    Transformers computes such (dynamic NTK) frequencies from the longest sequence so far.
    """
    return any("dynamic" in _type(kind) for kind in _kinds(config))


def _kinds(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of rotary embeddings: one for all layers, or one per type of layer."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    yield from (kind for kind in (rope, *rope.values()) if isinstance(kind, Mapping))


def _type(kind: Mapping[str, Any]) -> str:
    return str(kind.get("rope_type", kind.get("type")))
