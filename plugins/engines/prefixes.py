"""Keys and values of a common prefix: read once, and shared by the caches of all batches after it.

On a CPU they are also copied once only. The caches of consecutive batches use the same tensors, which have the prefix
in every row and room for new tokens after it. A module must not change the prefix in them; this is verified before the
tensors are used again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

Pair = tuple[Any, Any]  # keys and values of one layer
STEP = 64  # the room for new tokens is a multiple of this, so that it seldom grows


class Prefix:
    """The last common prefix of a module, with the keys and values of its layers."""

    def __init__(self, model: Any, device: str) -> None:
        self.model, self.device = model, device
        self.known: tuple[Any, ...] = ()  # tokens and their precision
        self.new_cache: Any = None
        self.kept: list[Pair] = []  # (1, heads, p, d)
        self.rooms: list[Pair] = []  # (rows, heads, p + room, d)
        self.appends = False  # whether every layer of the cache only appends new tokens
        self.is_verified = False  # whether the module leaves the prefix in `rooms` unchanged

    def read(self, shared: tuple[int, ...], dtype: Any) -> None:
        """Read a prefix, if it is not the last one."""
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer

        if (shared, dtype) == self.known:
            return
        self.forget()
        ids = torch.as_tensor([shared], device=self.device)
        cache = self.model.base_model(input_ids=ids, use_cache=True).past_key_values
        self.known, self.kept = (shared, dtype), [(layer.keys, layer.values) for layer in cache.layers]
        self.new_cache, self.is_verified = type(cache), False
        self.appends = type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)

    def forget(self) -> None:
        """Free the tensors of the caches; the prefix itself is kept."""
        self.rooms = []

    def cache(self, rows: int) -> Any:
        """Return a cache of any length with the prefix in each row."""
        cache = self.new_cache()
        for i, pair in enumerate(self.kept):
            expanded = [cached.expand(rows, -1, -1, -1) for cached in pair]
            if self.appends:
                _add_layer(cache, *expanded)  # the module copies them when it appends
            else:
                cache.update(*expanded, i)
        return cache

    def cache_for(self, rows: int, new: int) -> Any:
        """Return a cache with the prefix in each row and room for `new` tokens, valid until the next call."""
        if not self.device.startswith("cpu") or not self._may_use_again():
            return self.cache(rows)
        self._make_room(rows, new)
        cache = self.new_cache()
        for pair, room in zip(self.kept, self.rooms, strict=True):
            length = pair[0].shape[-2]
            layer = _add_layer(cache, *(tensor[:rows, :, :length] for tensor in room))
            layer.update = partial(_append, layer, room)
        return cache

    def _may_use_again(self) -> bool:
        """Return whether the tensors of the last batch may be used again: they still contain the prefix."""
        import torch

        if self.appends and self.rooms and not self.is_verified:
            self.is_verified = self.appends = all(
                torch.equal(tensor[:, :, : cached.shape[-2]], cached.expand(len(tensor), -1, -1, -1))
                for pair, room in zip(self.kept, self.rooms, strict=True)
                for cached, tensor in zip(pair, room, strict=True)
            )
        return self.appends

    def _make_room(self, rows: int, new: int) -> None:
        """Make tensors for at least `rows` rows with `new` tokens after the prefix, unless there are some."""
        length = self.kept[0][0].shape[-2]
        if self.rooms:
            most, _, size, _ = self.rooms[0][0].shape
            if rows <= most and length + new <= size:
                return
            rows, new = max(rows, most), max(new, size - length)
        self.forget()
        new = -(-new // STEP) * STEP
        self.rooms = [(_with_room(keys, rows, new), _with_room(values, rows, new)) for keys, values in self.kept]


def _with_room(cached: Any, rows: int, new: int) -> Any:
    """Return a tensor (rows, heads, p + new, d) that begins with `kept` (1, heads, p, d) in each row."""
    _, heads, length, size = cached.shape
    tensor = cached.new_empty(rows, heads, length + new, size)
    tensor[:, :, :length] = cached
    return tensor


def _add_layer(cache: Any, keys: Any, values: Any) -> Any:
    """Add a layer with keys and values to a cache, without a copy."""
    from transformers.cache_utils import DynamicLayer

    layer = DynamicLayer()
    layer.update(keys[:, :, :0], values[:, :, :0])  # sets dtype and device
    layer.keys, layer.values = keys, values
    cache.layers.append(layer)
    return layer


def _append(layer: Any, room: Pair, keys: Any, values: Any, *_: Any, **__: Any) -> Pair:
    """Write new keys and values after those of a layer, as DynamicLayer.update does with a copy of all of them."""
    begin, rows = layer.keys.shape[-2], len(layer.keys)
    end = begin + keys.shape[-2]
    if end > room[0].shape[-2] or keys.dtype != room[0].dtype or values.dtype != room[1].dtype:
        updated: Pair = type(layer).update(layer, keys, values)
        return updated
    for tensor, new in zip(room, (keys, values), strict=True):
        tensor[:rows, :, begin:end] = new
    layer.keys, layer.values = (tensor[:rows, :, :end] for tensor in room)
    return layer.keys, layer.values
