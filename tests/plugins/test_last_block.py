"""Layers of the last block that are computed at scored positions only: no score changes by a bit."""

from __future__ import annotations

import pytest
import torch

from harness_plugins.engines.forwards import Forwards
from harness_plugins.engines.last_block import LastBlock, find_last_block
from harness_plugins.engines.transformers import open_engine
from tests.plugins.test_transformers import CHECKPOINT, SHARING, few_shot, located, requests, saved


def scores(engine, asked) -> list[list[float]]:
    return [score.logprobs.tolist() for score in engine.score(asked)]


LLAMA = ["q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LAYERS = {"aster:w64l2@1600": LLAMA, "birch:w64l2": ["dense", "dense_h_to_4h", "dense_4h_to_h"]}


@pytest.mark.parametrize("name", LAYERS)
def test_scores_are_the_same_to_the_bit(host, name):
    with open_engine(*located(host, name)) as engine:
        forwards, asked = engine.scorer.forwards, [*requests(9), *few_shot(9)]
        names = {id(layer): name.split(".")[-1] for name, layer in engine.model.named_modules()}
        layers = [names[id(layer)] for layer in forwards.last_block.layers]
        assert layers == LAYERS[name]
        narrow = scores(engine, asked)
        forwards.last_block = LastBlock()
        assert scores(engine, asked) == narrow


def test_the_layers_are_known_after_a_swap(host):
    with open_engine(*located(host, "aster:w64l2@100")) as engine:
        known = engine.scorer.forwards.last_block
        engine.prefetch(*located(host, "aster:w64l2@1600"))
        engine.swap(*located(host, "aster:w64l2@1600"))
        assert engine.scorer.forwards.last_block is known


def test_keys_that_these_weights_do_not_need_are_read_everywhere_with_other_weights(tmp_path):
    """Without values, keys change nothing; with the next weights they do, and the comparison after the swap says so."""
    model = saved(tmp_path, SHARING["llama"])
    attention = model.model.layers[-1].self_attn
    values = attention.v_proj.weight.detach().clone()
    torch.nn.init.zeros_(attention.v_proj.weight)
    forwards = Forwards(model, "cpu")
    forwards.settle_head()
    assert attention.k_proj in forwards.last_block.layers
    attention.v_proj.weight.data = values
    swapped = Forwards(model, "cpu", forwards.last_block)
    assert swapped.settle_head() == ""
    assert swapped.last_block.layers == []


@pytest.mark.parametrize("kind", ["gpt2", "phi"])
def test_queries_and_feed_forward_of_other_architectures(tmp_path, kind):
    """GPT-2 has layers of a type whose products depend on the number of rows; parallel layers read the same input."""
    saved(tmp_path, SHARING[kind])
    with open_engine(CHECKPOINT, tmp_path) as engine:
        names = {id(layer): name for name, layer in engine.model.named_modules()}
        layers = {names[id(layer)].split(".")[-1] for layer in engine.scorer.forwards.last_block.layers}
        assert layers == ({"q_proj", "dense", "fc1", "fc2"} if kind == "phi" else set())


def test_a_layer_whose_rounding_depends_on_the_rows_is_read_everywhere(tmp_path):
    """As on a machine whose library computes few rows in another way."""
    model = saved(tmp_path, SHARING["llama"])
    last = model.model.layers[-1].mlp.down_proj
    last.register_forward_hook(
        lambda _, inputs, output: output * (1 + 1e-7 * len(inputs[0])) if inputs[0].dim() == 2 else None
    )

    def logits(ids, places):
        return model(input_ids=ids, use_cache=False).logits.flatten(0, 1)[places]

    layers = find_last_block(model, logits, torch.allclose).layers
    assert len(layers) == 4
    assert last not in layers
