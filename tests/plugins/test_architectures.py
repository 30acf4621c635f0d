"""Small random models of many architectures: sharing a forward pass does not change the score of a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from harness import EngineError, Request
from harness_plugins.engines import sharing
from harness_plugins.engines.transformers import open_engine
from tests.plugins.test_transformers import CHECKPOINT, GPT, PLAIN, SHARING, SMALL, TINY, WIDE, located, requests, saved

MAMBA2 = {"mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
EXPERTS = {"num_experts_per_tok": 2}
MORE: dict[str, Any] = {
    "bamba": transformers.BambaConfig(
        **TINY, **MAMBA2, mamba_n_heads=4, mamba_d_head=16, mamba_expand=2, attn_layer_indices=[1]
    ),
    "biogpt": transformers.BioGptConfig(**SMALL, intermediate_size=48, max_position_embeddings=128),
    "cohere": transformers.CohereConfig(**TINY),
    "cohere2": transformers.Cohere2Config(**TINY, sliding_window=64, logit_scale=0.0625),
    "deepseek_v3": transformers.DeepseekV3Config(
        **{**TINY, "num_key_value_heads": 2}, **EXPERTS, n_routed_experts=4, n_shared_experts=1, n_group=1,
        topk_group=1, moe_intermediate_size=16, first_k_dense_replace=1, kv_lora_rank=8, q_lora_rank=8,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
    ),
    "falcon_h1": transformers.FalconH1Config(**WIDE, **MAMBA2, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8),
    "falcon_rotary": transformers.FalconConfig(**SMALL, alibi=False),
    "glm": transformers.GlmConfig(**WIDE, pad_token_id=0),
    "gpt_bigcode": transformers.GPTBigCodeConfig(**GPT),
    "gpt_neo": transformers.GPTNeoConfig(
        vocab_size=200, hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]],
        window_size=64, max_position_embeddings=128,
    ),
    "gpt_oss": transformers.GptOssConfig(**WIDE, **EXPERTS, num_local_experts=4, sliding_window=64),
    "granite": transformers.GraniteConfig(**TINY, logits_scaling=4.0),
    "jamba": transformers.JambaConfig(
        **TINY, mamba_d_state=4, attn_layer_period=2, attn_layer_offset=1, num_experts=2, use_mamba_kernels=False
    ),
    "lfm2": transformers.Lfm2Config(**TINY, layer_types=["conv", "full_attention"]),
    "llama4": transformers.Llama4TextConfig(
        **WIDE, intermediate_size_mlp=48, num_local_experts=2, num_experts_per_tok=1, attention_chunk_size=64
    ),
    "mamba2": transformers.Mamba2Config(
        vocab_size=200, hidden_size=32, num_hidden_layers=2, state_size=4, num_heads=4, head_dim=16, n_groups=1
    ),
    "mixtral": transformers.MixtralConfig(**TINY, num_local_experts=4, **EXPERTS),
    "olmoe": transformers.OlmoeConfig(**TINY, num_experts=4, **EXPERTS),
    "phi3": transformers.Phi3Config(**TINY, pad_token_id=0),
    "qwen3_next": transformers.Qwen3NextConfig(
        **WIDE, **EXPERTS, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    ),
    "recurrent_gemma": transformers.RecurrentGemmaConfig(
        **SMALL, intermediate_size=96, num_key_value_heads=1, lru_width=32, attention_window_size=64,
        block_types=["recurrent", "attention"],
    ),
    "stablelm": transformers.StableLmConfig(**TINY),
    "starcoder2": transformers.Starcoder2Config(**TINY),
}  # fmt: skip
ALL = {**SHARING, **{f"{kind}_plain": config for kind, config in PLAIN.items()}, **MORE}
HANDFUL = ["falcon_h1", "granite", "lfm2", "mpt_plain"]


def asked() -> list[Request]:
    """Requests that share 33 tokens, with choices that fork, differ in their last token, or are long."""
    rng = np.random.default_rng(3)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 200, size=size).tolist())

    shared, fork = ids(33), ids(3)
    ends = [(ids(1), ids(1)), ((*fork, *ids(4)), (*fork, *ids(3)), ids(2)), (ids(9), ids(5))]
    return [Request(i, shared + ids(1 + i % 4), ends[i % 3]) for i in range(8)]


def scored(folder: Path, requests: list[Request], dtype: str, **settings: Any) -> dict[object, np.ndarray]:
    with open_engine(CHECKPOINT, folder, dtype=dtype, **settings) as engine:
        return {score.key: score.logprobs for score in engine.score(requests)}


def alone(requests: list[Request]) -> list[Request]:
    """Every choice in a request of its own."""
    return [
        replace(request, key=(request.key, k), continuations=(continuation,))
        for request in requests
        for k, continuation in enumerate(request.continuations)
    ]


def check(folder: Path, config: Any) -> None:
    """Check that sharing moves no score: by rounding in float32, in bfloat16 no further than that rounds anyway."""
    saved(folder, config)
    wanted = asked()
    exact = scored(folder, alone(wanted), "float32", share=False, batch_tokens=1)
    expected = np.array(list(exact.values()))
    for dtype in ("float32", "bfloat16"):
        plain = scored(folder, alone(wanted), dtype, share=False, batch_tokens=1)
        shared = scored(folder, wanted, dtype)
        single = np.array([shared[key][k] for key, k in exact])
        rounding = np.abs(np.array([plain[place] for place in exact]).ravel() - expected.ravel())
        off = np.abs(single - expected.ravel())
        slack = 5e-5 * (1 + np.abs(expected)).max()
        assert off.mean() <= 2 * rounding.mean() + slack, dtype
        assert off.max() <= 3 * rounding.max() + slack, dtype


@pytest.mark.parametrize("kind", HANDFUL)
def test_sharing_moves_no_score_of_a_difficult_architecture(tmp_path, kind):
    """State-space layers beside attention, short convolutions, ALiBi, scaled logits."""
    check(tmp_path, ALL[kind])


@pytest.mark.architectures
@pytest.mark.parametrize("kind", sorted(set(ALL) - set(HANDFUL)))
def test_sharing_moves_no_score(tmp_path, kind):
    check(tmp_path, ALL[kind])


def with_longer_choices() -> list[Request]:
    """Contexts and choices whose tree is longer than the 64 positions of the model, while every row fits."""
    rng = np.random.default_rng(4)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, 200, size=size).tolist())

    return [Request(i, ids(12), tuple(ids(20) for _ in range(4))) for i in range(3)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mpt_with_alibi_in_half_precision_is_not_shared_and_long_choices_do_not_crash_it(tmp_path, dtype):
    """ALiBi counts tokens by their place in the row, which the rounding of bfloat16 hid."""
    saved(tmp_path, transformers.MptConfig(vocab_size=200, d_model=32, n_layers=2, n_heads=2, max_seq_len=64))
    with open_engine(CHECKPOINT, tmp_path, dtype=dtype) as engine:
        assert not engine.scorer.sharing.reach
        assert "in float32" in engine.scorer.notes[0] or "fails there" in engine.scorer.notes[0]
        assert len(list(engine.score(with_longer_choices()))) == 3


def test_batches_never_exceed_the_context_of_the_model(tmp_path):
    saved(tmp_path, SHARING["gpt2"])
    with open_engine(CHECKPOINT, tmp_path) as engine:
        assert engine.scorer.sharing.prefixes
        assert engine.scorer.row == engine.scorer.sharing.reach == engine.context == 64
        scores = {score.key: score.logprobs for score in engine.score(with_longer_choices())}
    plain = scored(tmp_path, with_longer_choices(), "float32", share=False)
    assert all((scores[key] == plain[key]).all() for key in plain)


@pytest.mark.parametrize("kind", ["falcon_h1", "jamba", "recurrent_gemma", "mamba2", "bamba"])
def test_layers_with_a_state_share_nothing(tmp_path, kind):
    saved(tmp_path, MORE[kind])
    with open_engine(CHECKPOINT, tmp_path) as engine:
        assert str(engine.scorer.sharing) == "nothing"
        assert "carry a state from token to token" in engine.scorer.notes[0]


def test_frequencies_of_long_sequences_in_a_batch_do_not_change_the_short_ones(tmp_path):
    """longrope takes other frequencies for the whole batch where one sequence exceeds the original context."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 1e4}
    settings = {"original_max_position_embeddings": 32, "rope_parameters": rope, "pad_token_id": 0}
    saved(tmp_path, transformers.Phi3Config(**{**TINY, "max_position_embeddings": 128}, **settings))
    requests = [replace(r, key=i) for i, r in enumerate(asked()[:3] + with_longer_choices())]
    requests += [Request(i, r.context[:9], r.continuations[:1]) for i, r in enumerate(asked(), 6)]
    one_by_one = scored(tmp_path, requests, "float32", share=False, batch_tokens=1)
    together = scored(tmp_path, requests, "float32")
    assert all(together[key] == pytest.approx(one_by_one[key], abs=1e-4) for key in one_by_one)


def test_dynamic_frequencies_do_not_depend_on_longer_sequences_read_before(tmp_path):
    """Scores of contexts beyond the original length were off by 3 nats, and depended on the order of requests."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    model = saved(tmp_path, transformers.LlamaConfig(**{**TINY, "max_position_embeddings": 32}, rope_parameters=rope))
    requests = [replace(r, key=i) for i, r in enumerate(asked()[:3] + with_longer_choices())]
    expected = {}
    for request in requests:
        for k, continuation in enumerate(request.continuations):
            model(torch.tensor([[1]]), use_cache=False)  # back to the original frequencies
            ids = torch.tensor([request.context + continuation[:-1]])
            with torch.inference_mode():
                rows = torch.log_softmax(model(ids, use_cache=False).logits[0, len(request.context) - 1 :], -1)
            expected[request.key, k] = float(rows.gather(1, torch.tensor(continuation)[:, None]).sum())
    for order in (requests, requests[::-1]):
        scores = scored(tmp_path, order, "float32", max_length=128)
        assert all(scores[key][k] == pytest.approx(expected[key, k], abs=1e-4) for key, k in expected)


SPARSE = transformers.DeepseekV32Config(
    **{**TINY, "num_key_value_heads": 2, "num_hidden_layers": 1}, **EXPERTS, n_routed_experts=4, n_shared_experts=1,
    n_group=1, topk_group=1, moe_intermediate_size=16, first_k_dense_replace=1, kv_lora_rank=8, q_lora_rank=8,
    qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, index_topk=16, index_n_heads=1, index_head_dim=16,
)  # fmt: skip


def test_sparse_attention_selects_the_tokens_of_a_row_alone(tmp_path):
    """Tied scores are selected by the length of the row: padding changed log-probabilities by up to 3 nats."""
    saved(tmp_path, SPARSE)
    requests = [replace(r, key=i) for i, r in enumerate(asked() + with_longer_choices())]
    requests += [Request(i, r.context[:7], r.continuations) for i, r in enumerate(asked(), len(requests))]
    one_by_one = scored(tmp_path, requests, "float32", share=False, batch_tokens=1)
    for settings in ({"share": False}, {}):
        together = scored(tmp_path, requests, "float32", **settings)
        assert all(together[key] == pytest.approx(one_by_one[key], abs=1e-4) for key in one_by_one)


def test_a_model_that_does_not_compute_in_half_precision_is_named(tmp_path):
    """XLNet adds masks in float32, which ended in a RuntimeError of torch."""
    settings = {"vocab_size": 200, "d_model": 32, "n_layer": 1, "n_head": 2, "d_inner": 48}
    saved(tmp_path, transformers.XLNetConfig(**settings))
    with pytest.raises(EngineError, match=r"XLNetLMHeadModel does not compute in bfloat16: .*; use -O dtype=float32"):
        scored(tmp_path, asked(), "bfloat16")


ENCODER = {"vocab_size": 200, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "pad_token_id": 0}
NOT_CAUSAL = {
    "bert": transformers.BertConfig(**ENCODER, num_attention_heads=2),
    "gemma3": transformers.Gemma3TextConfig(**WIDE, sliding_window=64, use_bidirectional_attention=True),
}


@pytest.mark.parametrize("kind", sorted(NOT_CAUSAL))
def test_a_model_that_reads_the_tokens_that_follow_is_not_scored(tmp_path, kind):
    """Encoders load as language models; their scores depended on the padding of the batch, without a word."""
    saved(tmp_path, NOT_CAUSAL[kind])
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(EngineError, match="is not a causal language model: tokens that follow change"):
            scored(tmp_path, asked(), dtype)


CAPPED = transformers.Gemma2Config(**WIDE, query_pre_attn_scalar=16, final_logit_softcapping=1.0)


@pytest.mark.parametrize(
    "config", [CAPPED, MORE["cohere"], MORE["granite"], SHARING["phi"]], ids=["capped", "scaled", "divided", "biased"]
)
def test_a_head_in_float32_gives_the_logits_of_the_model(tmp_path, config):
    """Soft caps, scales and biases apply as in the model itself, which rounds its logits to bfloat16."""
    saved(tmp_path, config)
    scores = scored(tmp_path, asked(), "bfloat16", share=False)
    with open_engine(CHECKPOINT, tmp_path, dtype="bfloat16", share=False) as engine:
        assert engine.scorer.forwards.head.handles
        assert not engine.scorer.notes
        engine.scorer.forwards.close()
        scores_of_own_head = {score.key: score.logprobs for score in engine.score(asked())}
    assert all(scores[key] == pytest.approx(scores_of_own_head[key], rel=0.01, abs=0.02) for key in scores_of_own_head)
    assert any((scores[key] != scores_of_own_head[key]).any() for key in scores_of_own_head)


def test_a_head_that_computes_otherwise_in_float32_is_left_as_it_is_and_said(tmp_path, monkeypatch):
    saved(tmp_path, SHARING["llama"])
    forward = transformers.LlamaForCausalLM.forward

    def rounds_afterwards(self, *arguments, **settings):
        output = forward(self, *arguments, **settings)
        output.logits = output.logits.to(torch.bfloat16)
        return output

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", rounds_afterwards)
    with open_engine(CHECKPOINT, tmp_path, dtype="bfloat16", share=False) as engine:
        assert not engine.scorer.forwards.head.handles
        assert "its head gives different logits in float32 (bfloat16)" in engine.scorer.notes[0]


def of_a_head_in_float64(model: torch.nn.Module, request: Request) -> np.ndarray:
    """Score what the body of a model gives in its own precision by the weights of its head, all in float64."""
    head, scores = model.get_output_embeddings().weight.double(), []
    for continuation in request.continuations:
        ids = torch.tensor([request.context + continuation])[:, :-1]
        with torch.inference_mode():
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, -len(continuation) :]
            logprobs = torch.log_softmax(hidden.double() @ head.T, -1)
        scores.append(float(logprobs.gather(1, torch.tensor(continuation)[:, None]).sum()))
    return np.array(scores)


def error_per_token(scores: Mapping[object, np.ndarray], expected: Mapping[object, np.ndarray]) -> float:
    return float(np.mean([np.abs(scores[key] - expected[key]) / [1, 3, 7] for key in expected]))


def test_the_head_adds_no_rounding_of_bfloat16_which_is_hundredths_of_a_nat_a_token(host, tmp_path):
    """The largest logits are about 34, as large models have them; the rounding of the body before the head stays."""
    _, folder = located(host, "aster:w64l2@1600")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        model.model.norm.weight *= 2
    model.save_pretrained(tmp_path)
    wanted = requests(30)
    expected = {request.key: of_a_head_in_float64(model, request) for request in wanted}
    body_in_float32 = scored(tmp_path, wanted, "float32", share=False)
    with open_engine(CHECKPOINT, tmp_path, dtype="bfloat16", share=False, batch_tokens=1) as engine:
        scores = {score.key: score.logprobs for score in engine.score(wanted)}
        engine.scorer.forwards.close()  # the head computes in bfloat16 from here on
        scores_of_own_head = {score.key: score.logprobs for score in engine.score(wanted)}
    assert all(scores[key] == pytest.approx(expected[key], rel=1e-6, abs=1e-5) for key in expected)
    assert error_per_token(scores_of_own_head, expected) > 0.02
    assert error_per_token(scores, body_in_float32) < 0.8 * error_per_token(scores_of_own_head, body_in_float32)


@pytest.mark.parametrize("names", [sharing.WINDOWS, ()], ids=["named", "unknown"])
def test_rows_behind_a_prefix_do_not_exceed_a_window_that_counts_places_in_the_row(tmp_path, monkeypatch, names):
    """GPT-Neo's local attention cut the prefix off the last trees of a row; a window may have an unknown name, too."""
    monkeypatch.setattr(sharing, "WINDOWS", names)
    saved(tmp_path, MORE["gpt_neo"])
    expected = scored(tmp_path, asked(), "float32", share=False)
    with open_engine(CHECKPOINT, tmp_path) as engine:
        assert engine.scorer.sharing.prefixes
        scores = {score.key: score.logprobs for score in engine.score(asked())}
        assert bool(engine.scorer.notes) == (names == ())
    assert all(scores[key] == pytest.approx(expected[key], abs=1e-4) for key in expected)


def test_weights_that_attend_to_nothing_prove_nothing_for_the_next_checkpoint(tmp_path, monkeypatch):
    """A model whose logits are all 0 agrees with any way to compute them."""
    monkeypatch.setattr(sharing, "WINDOWS", ())
    nothing, trained = tmp_path / "nothing", tmp_path / "trained"
    model = saved(trained, MORE["gpt_neo"])
    torch.nn.init.zeros_(model.transformer.ln_f.weight)
    torch.nn.init.zeros_(model.transformer.ln_f.bias)
    model.save_pretrained(nothing)
    expected = scored(trained, asked(), "float32", share=False)
    with open_engine(CHECKPOINT, nothing) as engine:
        list(engine.score(asked()))
        assert engine.scorer.proven
        assert not engine.scorer.notes
        engine.prefetch(CHECKPOINT, trained)
        engine.swap(CHECKPOINT, trained)
        assert engine.scorer.sharing.lasting
        scores = {score.key: score.logprobs for score in engine.score(asked())}
        assert "are not shared:" in engine.scorer.notes[0]
    assert all(scores[key] == pytest.approx(expected[key], abs=1e-4) for key in expected)


def test_what_trees_may_be_shared_is_proven_once_for_checkpoints_of_one_module(host):
    """After a swap trees and a prefix are compared again with the weights that are new."""
    first, second = located(host, "aster:w64l2@100"), located(host, "aster:w64l2@1600")
    with open_engine(*first) as engine:
        list(engine.score(requests()))
        proven = dict(engine.scorer.proven)
        engine.prefetch(*second)
        engine.swap(*second)
        assert proven
        assert engine.scorer.proven == proven
        assert engine.scorer.sharing.prefixes
