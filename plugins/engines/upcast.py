"""Compute modules of half precision in float32: the output head always, whole modules to compare structures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

HALVES = ("torch.bfloat16", "torch.float16")


def is_half(tensor: Any) -> bool:
    """Return whether a tensor, or anything else with a dtype, has half precision."""
    return str(tensor.dtype) in HALVES


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Compute a module of half precision in float32 with the same weights; a float32 module is unchanged.

    The blocks of the module (the elements of its outermost lists) are upcast one at a time, while each is computed. All
    other tensors are upcast for the whole context. The additional memory is that of embeddings, head and one block.
    """
    blocks = list(blocks_of(model))
    inside = {id(tensor) for block in blocks for tensor in _tensors(block)}
    stacks: dict[int, list[tuple[Any, Any]]] = {}

    def begin(block: Any, *_: Any) -> None:
        stacks[id(block)] = _replace(_tensors(block))

    def end(block: Any, *_: Any) -> None:
        _restore(stacks.pop(id(block), []))

    handles = [block.register_forward_pre_hook(begin) for block in blocks]
    handles += [block.register_forward_hook(end, always_call=True) for block in blocks]
    outside: list[tuple[Any, Any]] = []
    try:
        outside = _replace(tensor for tensor in _tensors(model) if id(tensor) not in inside)
        yield
    finally:
        _restore(chain(outside, *stacks.values()))
        for handle in handles:
            handle.remove()


def blocks_of(module: Any) -> Iterator[Any]:
    """Yield the blocks of a module: the elements of its outermost lists."""
    import torch

    for child in module.children():
        yield from child if isinstance(child, torch.nn.ModuleList) else blocks_of(child)


def _tensors(module: Any) -> Iterator[Any]:
    return chain(module.parameters(), module.buffers())


def _replace(tensors: Iterable[Any], by: Mapping[int, Any] | None = None) -> list[tuple[Any, Any]]:
    """Replace the data of tensors of half precision by float32, and return them with their original data.

    If memory runs out, all of them are restored, so that the module can still be used.
    """
    replaced: list[tuple[Any, Any]] = []
    try:
        for tensor in filter(is_half, tensors):
            data = by[id(tensor)] if by else tensor.data.float()
            replaced.append((tensor, tensor.data))
            tensor.data = data
    except BaseException:
        _restore(replaced)
        raise
    return replaced


def _restore(replaced: Iterable[tuple[Any, Any]]) -> None:
    for tensor, data in replaced:
        tensor.data = data


class Float32Head:
    """Computes the output head of a module of half precision in float32, from the same weights.

    Logits of half precision have two or three digits, which causes ties and errors of hundredths of a nat per token.
    Operations after the head (scaling, soft caps) run in the module's code on float32 logits.
    """

    def __init__(self, model: Any) -> None:
        self.head = model.get_output_embeddings()
        self.handles: list[Any] = []
        self.replaced: list[tuple[Any, Any]] = []
        self.weights: dict[int, Any] = {}

    @property
    def applies(self) -> bool:
        """Return whether the head has half precision."""
        return self.head is not None and any(map(is_half, _tensors(self.head)))

    def install(self) -> None:
        """Compute the head in float32."""
        self.weights = {id(tensor): tensor.data.float() for tensor in _tensors(self.head) if is_half(tensor)}
        self.handles = [
            self.head.register_forward_pre_hook(self._begin),
            self.head.register_forward_hook(self._end, always_call=True),
        ]

    def remove(self) -> None:
        """Compute the head in its original precision."""
        for handle in self.handles:
            handle.remove()
        self.handles, self.weights = [], {}

    def _begin(self, head: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not arguments or not is_half(arguments[0]):
            return None  # the whole module is in float32, or the head has another call signature
        self.replaced = _replace(_tensors(head), self.weights)
        return (arguments[0].float(), *arguments[1:])

    def _end(self, *_: Any) -> None:
        _restore(self.replaced)
        self.replaced = []
