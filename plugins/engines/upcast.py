"""Half precision computed in float32: the output head of every pass, and whole modules where structure is decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

HALVES = ("torch.bfloat16", "torch.float16")


def is_half(tensor: Any) -> bool:
    """Tell whether a tensor has half precision."""
    return str(tensor.dtype) in HALVES


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Compute a module of half precision in float32 with the same weights; one of float32 is left as it is.

    The blocks of the module (what its outermost lists hold) are upcast one at a time, while each is computed; all else
    is upcast for the whole context. The additional memory is that of the embeddings, the head and one block.
    """
    blocks = list(_blocks(model))
    inside = {id(tensor) for block in blocks for tensor in _tensors(block)}
    stacks: dict[int, list[tuple[Any, Any]]] = {}

    def begin(block: Any, *_: Any) -> None:
        stacks[id(block)] = _replace(_tensors(block))

    def end(block: Any, *_: Any) -> None:
        _restore(stacks.pop(id(block), []))

    handles = [block.register_forward_pre_hook(begin) for block in blocks]
    handles += [block.register_forward_hook(end, always_call=True) for block in blocks]
    outside = _replace(tensor for tensor in _tensors(model) if id(tensor) not in inside)
    try:
        yield
    finally:
        _restore(chain(outside, *stacks.values()))
        for handle in handles:
            handle.remove()


def _blocks(module: Any) -> Iterator[Any]:
    import torch

    for child in module.children():
        yield from child if isinstance(child, torch.nn.ModuleList) else _blocks(child)


def _tensors(module: Any) -> Iterator[Any]:
    return chain(module.parameters(), module.buffers())


def _replace(tensors: Iterable[Any], by: Mapping[int, Any] | None = None) -> list[tuple[Any, Any]]:
    """Give tensors of half precision data of float32, and return them with their own data."""
    replaced = []
    for tensor in tensors:
        if is_half(tensor):
            replaced.append((tensor, tensor.data))
            tensor.data = by[id(tensor)] if by else tensor.data.float()
    return replaced


def _restore(replaced: Iterable[tuple[Any, Any]]) -> None:
    for tensor, data in replaced:
        tensor.data = data


class Float32Head:
    """Lets the output head of a module of half precision compute in float32, from the same weights.

    Logits of half precision are rounded to two or three digits, which makes ties and costs hundredths of a nat a token.
    What the module does after its head (scaling, soft caps) is done by its own code, on logits of float32.
    """

    def __init__(self, model: Any) -> None:
        self.head = model.get_output_embeddings()
        self.handles: list[Any] = []
        self.replaced: list[tuple[Any, Any]] = []
        self.weights: dict[int, Any] = {}

    @property
    def applies(self) -> bool:
        """Tell whether there is a head of half precision."""
        return self.head is not None and any(map(is_half, _tensors(self.head)))

    def install(self) -> None:
        """Compute in float32 from now on."""
        self.weights = {id(tensor): tensor.data.float() for tensor in _tensors(self.head) if is_half(tensor)}
        self.handles = [
            self.head.register_forward_pre_hook(self._begin),
            self.head.register_forward_hook(self._end, always_call=True),
        ]

    def remove(self) -> None:
        """Let the head compute in its own precision again."""
        for handle in self.handles:
            handle.remove()
        self.handles, self.weights = [], {}

    def _begin(self, head: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not arguments or not is_half(arguments[0]):
            return None  # the whole module computes in float32, or the head is called in its own way
        self.replaced = _replace(_tensors(head), self.weights)
        return (arguments[0].float(), *arguments[1:])

    def _end(self, *_: Any) -> None:
        _restore(self.replaced)
        self.replaced = []
