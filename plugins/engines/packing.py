"""Requests as packed rows, so that what they share is computed once. Numbers only; the model is the engine's.

A request becomes a tree: a trunk (its context, and what all its continuations have in common) and a branch for each
continuation that goes on alone; continuations that differ in their last token alone share a branch, since a last token
is never read. Trees lie side by side in the rows of a batch. A token sees the trunk of its tree and its own branch,
and its position counts from the start of its own sequence, so that every number is that of a row of its own. What
neighbouring requests have in common (a block of solved examples) is left out of all of them and read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness import Request
from harness.engines import common_prefix

Ints = NDArray[np.int64]
LEAST_SHARED = 32  # tokens that requests must have in common before they are read apart
LEAST_REQUESTS = 4  # and so many requests
PADDING = -1  # the tree that padding belongs to


@dataclass(frozen=True)
class Run:
    """Neighbouring requests and what all their contexts begin with (possibly nothing)."""

    requests: Sequence[Request]
    shared: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tree:
    """A request without its first `skip` tokens: (n,) lists over its tokens, (t,) lists over what is scored.

    `branch` is 0 on the trunk. Token `target[i]` of continuation `choice[i]` is predicted at the token `at[i]`.
    """

    request: Request
    ids: list[int]
    branch: list[int]
    position: list[int]
    choice: list[int]
    at: list[int]
    target: list[int]


@dataclass(frozen=True)
class Batch:
    """Trees in rows of equal length: ids, position, tree and branch are (b, r).

    What is scored is (t,): `at` counts through the flattened rows, `slot` through the choices of all trees.
    """

    trees: tuple[Tree, ...]
    ids: Ints
    position: Ints
    tree: Ints
    branch: Ints
    at: Ints
    target: Ints
    slot: Ints

    def slices(self) -> Iterator[tuple[Request, slice]]:
        """Yield each request and where the slots of its choices are."""
        end = 0
        for tree in self.trees:
            begin, end = end, end + len(tree.request.continuations)
            yield tree.request, slice(begin, end)

    @property
    def n_slots(self) -> int:
        """Return the choices of all trees."""
        return sum(len(tree.request.continuations) for tree in self.trees)


def extent(request: Request) -> int:
    """Return the most tokens that the tree of a request can have."""
    return len(request.context) + sum(map(len, request.continuations))


def path(request: Request) -> int:
    """Return the tokens of the longest sequence of a request."""
    return len(request.context) + max(map(len, request.continuations))


def runs(window: Sequence[Request]) -> Iterator[Run]:
    """Cut a window of requests where what neighbours share changes.

    A run shares at least LEAST_SHARED tokens among LEAST_REQUESTS requests, and leaves at least one token to each
    context (the one that predicts what follows); what lies between such runs shares nothing.
    """
    begin = alone = 0
    while begin < len(window):
        end, shared = _run_from(window, begin)
        if end - begin >= LEAST_REQUESTS:
            if alone < begin:
                yield Run(window[alone:begin])
            yield Run(window[begin:end], window[begin].context[:shared])
            alone = end
        begin = end
    if alone < len(window):
        yield Run(window[alone:])


def _run_from(window: Sequence[Request], begin: int) -> tuple[int, int]:
    """Return the end of the run that begins here, and the tokens it shares.

    It ends where the next request would leave less than half of what was shared so far.
    """
    first = window[begin].context
    end, shared = begin + 1, len(first) - 1
    while end < len(window):
        context = window[end].context
        common = min(common_prefix(first[:shared], context), len(context) - 1)
        least = LEAST_SHARED if end == begin + 1 else max(LEAST_SHARED, shared / 2)
        if common < least:
            break
        end, shared = end + 1, common
    return end, shared


def grow(request: Request, skip: int = 0) -> Tree:
    """Return the tree of a request whose first `skip` tokens are read elsewhere."""
    context = len(request.context)
    read = [continuation[:-1] for continuation in request.continuations]  # a last token is never read
    common = min(common_prefix(read[0], body) for body in read)
    ids = [*request.context[skip:], *read[0][:common]]
    trunk, fork = len(ids), context + common  # tokens of the trunk; where branches begin in their sequences
    branch, position = [0] * trunk, list(range(skip, fork))
    begins: dict[tuple[int, ...], int] = {}  # where each branch begins in the tree
    choice, at, target = list[int](), list[int](), list[int]()
    for k, continuation in enumerate(request.continuations):
        tail = read[k][common:]
        if tail not in begins:
            begins[tail] = len(ids)
            ids += tail
            branch += [len(begins)] * len(tail)
            position += range(fork, fork + len(tail))
        own = begins[tail]
        choice += [k] * len(continuation)
        at += range(context - skip - 1, trunk)
        at += range(own, own + len(tail))
        target += continuation
    return Tree(request, ids, branch, position, choice, at, target)


def pack(trees: Sequence[Tree], length: int, tokens: int, scored: int) -> Batch:
    """Lay as many trees as fit, in their order and at least one, into rows of `length` tokens or the longest tree's.

    A batch has at most `tokens` tokens, padding included, and `scored` scored ones. Trees that come longest first
    leave the least padding.
    """
    length = max(min(length, tokens), *(len(tree.ids) for tree in trees))
    rows: list[list[Tree]] = []
    room: list[int] = []
    left = scored
    for taken, tree in enumerate(trees):
        row = next((i for i, free in enumerate(room) if free >= len(tree.ids)), len(rows))
        full = row == len(rows) and (row + 1) * length > tokens
        if taken and (full or left < len(tree.target)):
            break
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append(tree)
        room[row] -= len(tree.ids)
        left -= len(tree.target)
    return _lay(rows, length - min(room))


def _lay(rows: Sequence[Sequence[Tree]], length: int) -> Batch:
    """Write the arrays of a batch."""
    shape = (len(rows), length)
    ids, position, branch = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    number = np.full(shape, PADDING, dtype=np.int64)
    at, target, slot = list[NDArray[np.int64]](), list[int](), list[NDArray[np.int64]]()
    placed: list[Tree] = []
    slots = 0
    for r, row in enumerate(rows):
        begin = 0
        for tree in row:
            here = slice(begin, begin + len(tree.ids))
            ids[r, here], position[r, here], branch[r, here] = tree.ids, tree.position, tree.branch
            number[r, here] = len(placed)
            at.append(np.array(tree.at) + (r * length + begin))
            slot.append(np.array(tree.choice) + slots)
            target += tree.target
            placed.append(tree)
            slots += len(tree.request.continuations)
            begin = here.stop
    joined = (np.concatenate(at), np.array(target), np.concatenate(slot))
    return Batch(tuple(placed), ids, position, number, branch, *joined)
