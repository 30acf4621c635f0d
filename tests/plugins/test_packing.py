"""Packed rows: shared tokens are computed once, and every choice attends to its own tokens only."""

from __future__ import annotations

import numpy as np
import pytest

from harness import Request
from harness_plugins.engines.packing import PADDING, Batch, extent, grow, pack, runs


def request(context, *continuations, key=0) -> Request:
    return Request(key, tuple(context), tuple(map(tuple, continuations)))


def seen_by(batch: Batch, row: int, at: int) -> list[int]:
    """Return the ids that a token of a packed row sees, itself included, as the mask is defined."""
    tree, branch = batch.tree[row], batch.branch[row]
    seen = [
        j for j in range(at + 1) if tree[j] == tree[at] and (branch[j] == 0 or branch[j] == branch[at])
    ]  # fmt: skip
    assert batch.position[row, seen].tolist() == list(range(batch.position[row, seen[0]], batch.position[row, at] + 1))
    return batch.ids[row, seen].tolist()


def alone(request: Request, skip: int = 0) -> list[tuple[list[int], int]]:
    """Return what each scored token would see in a row of its own, and the token."""
    return [
        ([*request.context, *continuation[:i]][skip:], token)
        for continuation in request.continuations
        for i, token in enumerate(continuation)
    ]


def random_requests(n: int, seed: int) -> list[Request]:
    """Requests whose continuations often begin alike."""
    rng = np.random.default_rng(seed)

    def ids(low: int, high: int) -> list[int]:
        return rng.integers(3, size=rng.integers(low, high)).tolist()

    return [request(ids(2, 9), *(ids(1, 6) for _ in range(rng.integers(1, 5))), key=i) for i in range(n)]


@pytest.mark.parametrize("seed", range(20))
def test_every_scored_token_sees_what_it_would_see_alone(seed):
    asked = random_requests(12, seed)
    skip = seed % 2
    trees = [grow(r, skip) for r in asked]
    length = max(len(tree.ids) for tree in trees)
    batch = pack(trees, 2 * length, 10_000, 10_000)
    rows, columns = np.divmod(batch.at, batch.ids.shape[1])
    visible = [
        (seen_by(batch, row, column), target)
        for row, column, target in zip(rows, columns, batch.target.tolist(), strict=True)
    ]
    expected = {r.key: alone(r, skip) for r in asked}
    assert visible == [pair for tree in batch.trees for pair in expected[tree.request.key]]
    counts = [len(c) for tree in batch.trees for c in tree.request.continuations]
    assert np.bincount(batch.slot).tolist() == counts
    assert batch.n_slots == len(counts)


def test_choices_of_one_token_cost_no_token_at_all():
    assert grow(request([1, 2, 3], [4], [5], [6])).ids == [1, 2, 3]


def test_what_choices_begin_with_and_all_but_their_last_token_is_read_once():
    tree = grow(request([1, 2], [7, 8, 3], [7, 8, 4], [7, 9, 5]))
    assert tree.ids == [1, 2, 7, 8, 9]
    assert tree.branch == [0, 0, 0, 1, 2]
    assert tree.position == [0, 1, 2, 3, 3]


def test_batches_keep_to_their_budgets_and_take_one_tree_at_least():
    trees = [grow(r) for r in random_requests(40, 0)]
    trees.sort(key=lambda tree: len(tree.ids), reverse=True)
    left = trees
    while left:
        batch = pack(left, 32, 64, 30)
        assert batch.ids.size <= 64
        assert len(batch.target) <= 30 or len(batch.trees) == 1
        assert (batch.tree == PADDING).sum() == batch.ids.size - sum(len(tree.ids) for tree in batch.trees)
        left = left[len(batch.trees) :]
    assert len(pack(trees, 32, 1, 1).trees) == 1


def test_runs_end_where_what_is_shared_changes():
    """Two subjects with their own solved examples, and documents that share nothing."""
    first, second = list(range(100, 150)), list(range(200, 260))
    asked = [request([*first, i], [1]) for i in range(6)]
    asked += [request([*second, 7, i], [1]) for i in range(5)]
    asked += [request([i, 3, 4], [1]) for i in range(4)]
    split = list(runs(asked))
    assert [(len(run.requests), len(run.shared)) for run in split] == [(6, 50), (5, 61), (4, 0)]
    assert [r for run in split for r in run.requests] == asked


def test_a_run_leaves_a_token_to_every_context():
    asked = [request(range(40), [1], [i]) for i in range(5)]
    (run,) = runs(asked)
    assert len(run.shared) == 39


def test_too_few_requests_or_tokens_share_nothing():
    assert [len(run.shared) for run in runs([request([*range(50), i], [1]) for i in range(3)])] == [0]
    assert [len(run.shared) for run in runs([request([*range(20), i], [1]) for i in range(9)])] == [0]
    assert list(runs([])) == []


def test_the_extent_of_a_tree_is_never_less_than_its_tokens():
    assert all(extent(r) >= len(grow(r).ids) for r in random_requests(50, 1))
