"""Pack requests into rows, so that shared tokens are computed once. Index computations only, without a model.

A request becomes a tree: a trunk (its context, and the common prefix of its continuations) and one branch per different
rest. Continuations that differ in the last token only share a branch, because the last token is never an input. Several
trees are placed in one row of a batch. A token attends to the trunk of its tree and to its branch, and its position
counts from the start of its sequence, so that every number equals that of a separate row. The common prefix of
consecutive requests (few-shot examples) is removed from all of them and read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness import Request
from harness.engines import common_prefix

Ints = NDArray[np.int64]
LEAST_SHARED = 32  # smallest common prefix that is read separately, in tokens
LEAST_REQUESTS = 4  # smallest number of requests that share it
PADDING = -1  # tree number of padding
ALIGNED = 16  # tokens; kernels of GPUs copy masks of other lengths, or read them wrongly (PyTorch issue 191937)


@dataclass(frozen=True)
class Run:
    """Consecutive requests and the common prefix of their contexts (possibly empty)."""

    requests: Sequence[Request]
    shared: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tree:
    """A request without its first `skip` tokens: lists over its tokens (n,) and over its scored tokens (t,).

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

    Lists of scored tokens are (t,): `at` counts through the flattened rows, `slot` through the choices of all trees.
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
        """Yield each request with the slots of its choices."""
        end = 0
        for tree in self.trees:
            begin, end = end, end + len(tree.request.continuations)
            yield tree.request, slice(begin, end)

    @property
    def n_slots(self) -> int:
        """Return the number of choices of all trees."""
        return sum(len(tree.request.continuations) for tree in self.trees)


def extent(request: Request) -> int:
    """Return the largest number of tokens in the tree of a request."""
    return len(request.context) + sum(map(len, request.continuations))


def path(request: Request) -> int:
    """Return the number of tokens of the longest sequence of a request."""
    return len(request.context) + max(map(len, request.continuations))


def runs(window: Sequence[Request]) -> Iterator[Run]:
    """Split a window of requests into runs with a common prefix.

    A run shares at least LEAST_SHARED tokens among LEAST_REQUESTS requests, and leaves at least one token of each
    context, which predicts the next one. Requests between such runs share nothing.
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
    """Return the end of the run that begins here, and the number of shared tokens.

    It ends before a request that would leave less than half of the tokens shared so far.
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
    """Return the tree of a request without its first `skip` tokens, which are read separately."""
    context = len(request.context)
    read = [continuation[:-1] for continuation in request.continuations]  # the last token is never an input
    common = min(common_prefix(read[0], body) for body in read)
    ids = [*request.context[skip:], *read[0][:common]]
    trunk, fork = len(ids), context + common  # tokens of the trunk; position at which branches begin
    branch, position = [0] * trunk, list(range(skip, fork))
    begins: dict[tuple[int, ...], int] = {}  # start of each branch in the tree
    choice, at, target = list[int](), list[int](), list[int]()
    for k, continuation in enumerate(request.continuations):
        tail = read[k][common:]
        if tail not in begins:
            begins[tail] = len(ids)
            ids += tail
            branch += [len(begins)] * len(tail)
            position += range(fork, fork + len(tail))
        start = begins[tail]
        choice += [k] * len(continuation)
        at += range(context - skip - 1, trunk)
        at += range(start, start + len(tail))
        target += continuation
    return Tree(request, ids, branch, position, choice, at, target)


def pack(trees: Sequence[Tree], length: int, tokens: int, scored: int) -> Batch:
    """Place as many trees as fit, in order and at least one, into rows of `length` tokens or of the longest tree.

    A batch has at most `tokens` tokens, including padding, and `scored` scored ones. Sorting trees by decreasing length
    minimises padding.
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


def aligned(batch: Batch, shared: int) -> Batch:
    """Pad the rows of a batch so that they and `shared` tokens before them have a multiple of ALIGNED tokens."""
    _, length = batch.ids.shape
    more = -(shared + length) % ALIGNED
    if not more:
        return batch
    row, column = np.divmod(batch.at, length)
    ids, position, branch = (np.pad(part, ((0, 0), (0, more))) for part in (batch.ids, batch.position, batch.branch))
    tree = np.pad(batch.tree, ((0, 0), (0, more)), constant_values=PADDING)
    at = row * (length + more) + column
    return replace(batch, ids=ids, position=position, branch=branch, tree=tree, at=at)


def _lay(rows: Sequence[Sequence[Tree]], length: int) -> Batch:
    """Return the arrays of a batch."""
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
