"""Keys and values of a common prefix, in tensors that consecutive batches use."""

from __future__ import annotations

import pytest
import torch

from harness_plugins.engines.prefixes import STEP, Prefix
from harness_plugins.engines.transformers import open_engine
from tests.plugins.test_transformers import SHARING, few_shot, located, saved


@pytest.fixture
def prefix(tmp_path):
    model = saved(tmp_path, SHARING["llama"])
    prefix = Prefix(model, "cpu")
    with torch.inference_mode():
        prefix.read((5, 6, 7, 8), torch.float32)
        yield prefix


def logits(prefix: Prefix, cache, ids) -> torch.Tensor:
    return prefix.model(input_ids=torch.tensor(ids), past_key_values=cache, use_cache=True).logits


def test_batches_after_a_prefix_give_the_logits_of_a_copy(prefix):
    """More rows, more tokens, and then fewer than the tensors have room for."""
    for ids in ([[1, 2, 3]], [[4, 5, 6, 7], [1, 1, 2, 3]], [[9, 8]], [[1, 2, 3], [3, 2, 1]]):
        expected = logits(prefix, prefix.cache(len(ids)), ids)
        assert torch.equal(logits(prefix, prefix.cache_for(len(ids), len(ids[0])), ids), expected)
    assert prefix.is_verified
    assert prefix.rooms[0][0].shape[::2] == (2, 4 + STEP)  # rows; tokens of the prefix and after it


def test_a_cache_that_gets_longer_than_its_room_grows(prefix):
    for cache in (short := prefix.cache_for(1, 2), long := prefix.cache(1)):
        for ids in ([[1, 2]], [[3] * STEP], [[4]]):
            last = logits(prefix, cache, ids)
    assert short.get_seq_length() == long.get_seq_length() == 7 + STEP
    assert torch.equal(last, logits(prefix, _with(prefix, [[1, 2]], [[3] * STEP]), [[4]]))


def _with(prefix: Prefix, *steps):
    cache = prefix.cache(1)
    for ids in steps:
        logits(prefix, cache, ids)
    return cache


def test_a_module_that_changes_its_cache_gets_copies(prefix):
    expected = logits(prefix, prefix.cache(1), [[1, 2]])
    cache = prefix.cache_for(1, 2)
    cache.layers[0].keys[:, :, :1] = 0
    for _ in range(2):
        assert torch.equal(logits(prefix, prefix.cache_for(1, 2), [[1, 2]]), expected)
    assert not prefix.appends


def test_the_tensors_are_freed_with_the_next_prefix_and_when_memory_runs_out(host):
    with open_engine(*located(host, "aster:w64l2@1600")) as engine:
        list(engine.score(few_shot(9)))
        prefix = engine.scorer.forwards.prefix
        assert prefix.rooms
        short_of_memory = iter([RuntimeError("can't allocate memory"), None])

        def forward():
            if error := next(short_of_memory):
                raise error

        assert engine.scorer._or_halve(forward, 0) is None
        assert prefix.rooms == []
