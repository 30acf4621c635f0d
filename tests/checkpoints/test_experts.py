"""Mixtures of experts: active parameters are those that one token uses, and FLOPs count them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from harness import Checkpoint
from harness.checkpoints.families import active_params, complete, notes_on_counts
from harness.checkpoints.weights import measure
from harness.fitting.columns import check_units, renamed
from harness.fitting.wide_points import FILLED, completed

BODY = {
    "model.embed_tokens.weight": (10, 4),
    "lm_head.weight": (10, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
}
ROUTED = {f"model.layers.0.mlp.experts.{i}.up_proj.weight": (3, 4) for i in range(8)}
FUSED = {
    "model.layers.0.mlp.experts.gate_up_proj": (8, 4, 6),
    "model.layers.0.mlp.experts.gate_up_proj_bias": (8, 6),
    "model.layers.0.mlp.router.weight": (8, 4),
}
SHARED = {"model.layers.0.mlp.shared_experts.up_proj.weight": (5, 4), "model.layers.0.mlp.gate.weight": (8, 4)}


def write(folder: Path, shapes: dict[str, tuple[int, ...]], **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 4, "num_hidden_layers": 1, **config}))
    save_file({name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    return folder


def mixture(**attributes: object) -> Checkpoint:
    return replace(Checkpoint("mix", "a", None, 0, "x", tokens=1000), **attributes)


@pytest.mark.parametrize(
    ("shapes", "config", "total", "active"),
    [
        (ROUTED, {"num_experts": 8, "num_experts_per_tok": 2}, 192, 120),
        (ROUTED | SHARED, {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1}, 244, 172),
        (FUSED, {"num_local_experts": 8, "num_experts_per_tok": 4, "experts_per_token": 4}, 368, 248),
        (FUSED, {"text_config": {"num_local_experts": 8, "num_experts_per_tok": 1}}, 368, 158),
        (
            {"model.layers.0.block_sparse_moe.input_linear.weight": (8, 6, 4)},
            {"num_local_experts": 8, "num_experts_per_tok": 2},
            288,
            144,
        ),
    ],
    ids=["numbered", "shared", "fused", "of a text model", "granite"],
)
def test_a_mixture_of_experts_counts_what_a_token_uses(tmp_path, shapes, config, total, active):
    """6 N D of all experts was a multiple of the compute of training."""
    known = complete(mixture(), write(tmp_path, BODY | shapes, **config))
    assert (known.params, known.features["params_active"], active_params(known)) == (total, active, active)
    assert (known.flops, known.flops_convention) == (6 * active * 1000, "6ND_active")
    for convention, without in (("6ND_non_embedding", 80), ("6ND_head", 40)):
        known = complete(mixture(flops_convention=convention), tmp_path)
        assert (known.flops, known.flops_convention) == (6 * (active - without) * 1000, f"{convention}_active")
    (note,) = notes_on_counts([(known, tmp_path)])
    assert f"mix:a is a mixture of experts: its FLOPs count the {active} parameters" in note


@pytest.mark.parametrize(
    ("shapes", "config"),
    [
        (ROUTED, {}),
        (ROUTED, {"num_experts": 8}),
        (ROUTED, {"num_experts": 4, "num_experts_per_tok": 2}),
        (ROUTED, {"num_experts": 8, "num_experts_per_tok": 2, "moe_top_k": 1}),
        (ROUTED, {"num_experts": 8, "num_experts_per_tok": 2, "zero_expert_num": 3}),
        (ROUTED, {"num_experts": 8, "moe_topk": [1, 2]}),
        ({"model.layers.0.ffn.experts.mlp.w1": (24, 4)}, {"ffn_config": {"moe_num_experts": 8, "moe_top_k": 2}}),
        ({"model.layers.0.mlp.up_proj.weight": (3, 4)}, {"num_experts": 8, "num_experts_per_tok": 2}),
    ],
)
def test_a_mixture_whose_files_do_not_say_what_a_token_uses_has_no_silent_flops(tmp_path, shapes, config):
    folder = write(tmp_path, BODY | shapes, **config)
    known = complete(mixture(), folder)
    assert (known.flops, "params_active" in known.features) == (None, False)
    (note,) = notes_on_counts([(known, folder)])
    assert "its FLOPs stay unknown; set params_active in [features], or flops, in the family file" in note
    given = complete(mixture(features={"params_active": 100.0}), folder)
    assert (given.flops, given.flops_convention) == (6e5, "6ND_active")
    points = pd.DataFrame([{**vars(known), "features": "", "acc": 0.5}])
    assert completed(points, "acc")["flops"].isna().all()


def test_flops_of_the_family_file_go_before_those_of_active_parameters(tmp_path):
    folder = write(tmp_path, BODY | ROUTED, num_experts=8, num_experts_per_tok=2)
    known = complete(mixture(flops=7e9, flops_convention="given"), folder)
    assert (known.flops, known.flops_convention, notes_on_counts([(known, folder)])) == (7e9, "given", [])


@pytest.mark.parametrize("config", [{}, {"num_experts": 0}, {"num_local_experts": 1, "num_experts_per_tok": 2}])
def test_a_dense_model_has_no_experts(tmp_path, config):
    folder = write(tmp_path, BODY, **config)
    known = complete(mixture(), folder)
    assert (known.params, known.flops, known.flops_convention) == (96, 6 * 96 * 1000, "6ND")
    assert (known.features, notes_on_counts([(known, folder)])) == ({"width": 4.0, "depth": 1.0}, [])


def test_layers_that_predict_later_tokens_are_no_parameters(tmp_path):
    """DeepSeek-V3 has 671e9 parameters; its files have 685e9, with those of a layer that only training uses."""
    later = {"model.layers.1.embed_tokens.weight": (10, 4), "model.layers.1.mlp.experts.0.up_proj.weight": (3, 4)}
    config = {"n_routed_experts": 8, "num_experts_per_tok": 2, "num_nextn_predict_layers": 1}
    sizes = measure(write(tmp_path, BODY | ROUTED | later, **config))
    assert (sizes.params, sizes.active) == (192, 120)


def test_weights_packed_into_integers_are_not_counted_as_so_few_parameters(tmp_path):
    """Four bits of GPTQ had 1/8 of their parameters, and FLOPs of 1/8, without a word."""
    config = {"quantization_config": {"quant_method": "gptq"}}
    folder = write(tmp_path, {"model.embed_tokens.weight": (10, 4)}, **config)
    packed = {"model.embed_tokens.weight": np.zeros((10, 4)), "q_proj.qweight": np.zeros((2, 16), np.int32)}
    save_file(packed, folder / "model.safetensors")
    known = complete(mixture(), folder)
    assert (known.params, known.flops) == (None, None)
    assert notes_on_counts([(known, folder)]) == [
        "mix:a has quantised weights, which do not say how many parameters it has; set params in the family file"
    ]
    assert complete(mixture(params=296), folder).flops == 6 * 296 * 1000


def test_a_table_with_active_parameters_fills_flops_from_them():
    table = pd.DataFrame({"params": [46.7e9, 7e9], "params_active": [12.9e9, np.nan], "tokens": [1e12, 1e12]})
    filled = completed(table)
    assert list(filled["flops"]) == [6 * 12.9e9 * 1e12, 6 * 7e9 * 1e12]
    assert set(filled["flops_convention"]) == {FILLED}
    sparse = filled.assign(params=[12.9e9 * 20, 7e9])
    assert check_units(sparse, ["flops"]) == ()


def test_active_parameters_as_params_are_all_of_dense_models():
    table = pd.DataFrame({"params": [46.7e9, 7e9], "params_active": [12.9e9, np.nan]})
    assert list(renamed(table, params_column="params_active")["params"]) == [12.9e9, 7e9]


@pytest.mark.architectures
def test_active_parameters_are_those_whose_gradients_one_token_moves(tmp_path):
    """Random models of transformers, one token through one layer: what has a gradient is what the token used."""
    import torch
    import transformers

    small = {"hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 50,
             "num_experts_per_tok": 2, "pad_token_id": 0}  # fmt: skip
    deepseek = {"n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 0, "n_group": 1,
                "topk_group": 1, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "kv_lora_rank": 8,
                "q_lora_rank": 8, "head_dim": 4}  # fmt: skip
    kinds = {
        "Mixtral": {"num_local_experts": 4},
        "Qwen2Moe": {"num_experts": 4, "shared_expert_intermediate_size": 8},
        "Qwen3Moe": {"num_experts": 4},
        "Olmoe": {"num_experts": 4},
        "DeepseekV2": deepseek,
        "DeepseekV3": deepseek,
        "GptOss": {"num_local_experts": 4, "layer_types": ["full_attention"]},
        "GraniteMoe": {"num_local_experts": 4},
    }
    for kind, options in kinds.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**small | options)
        config._attn_implementation = config._experts_implementation = "eager"
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        model.save_pretrained(tmp_path / kind)
        sizes = measure(tmp_path / kind)
        experts = config.num_local_experts if hasattr(config, "num_local_experts") else config.num_experts
        model(torch.tensor([[7]])).logits.square().sum().backward()
        unused = 0
        for name, weight in model.named_parameters():
            if ".experts." in name or "_linear.weight" in name:
                rows = weight.grad.reshape(experts, -1) if weight.shape[0] == experts else None
                assert rows is not None, (kind, name, weight.shape)
                unused += int((rows.abs().sum(dim=1) == 0).sum()) * rows.shape[1]
        assert sizes.active == sizes.params - unused, kind
        assert unused > 0, kind
