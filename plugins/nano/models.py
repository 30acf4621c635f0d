"""The models of the nano families, with their initial weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from harness_plugins.nano.recipe import CONTEXT, EOS_ID, HEAD, VOCAB, Size, Training

VOCABULARY: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": EOS_ID, "eos_token_id": EOS_ID}


def _llama(size: Size) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    inner = 8 * size.width // 3 // 16 * 16 + 16
    heads = size.width // HEAD
    config = LlamaConfig(**_rotary(size), intermediate_size=inner, num_key_value_heads=heads)
    return LlamaForCausalLM(config)


def _gpt_neox(size: Size) -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**_rotary(size), intermediate_size=4 * size.width))


def _gpt2(size: Size) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape: dict[str, Any] = {"n_embd": size.width, "n_layer": size.layers, "n_head": size.width // HEAD}
    dropout: dict[str, Any] = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
    return GPT2LMHeadModel(GPT2Config(**VOCABULARY, **shape, **dropout, n_positions=CONTEXT))


def _rotary(size: Size) -> dict[str, Any]:
    """Return the settings that all models with rotary positions share."""
    return {
        **VOCABULARY,
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.width // HEAD,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
    }


class Design(NamedTuple):
    """Description of a family, and the function that makes its models."""

    about: str
    build: Callable[[Size], Any]


DESIGNS = {
    "aster": Design("Llama, trained on the balanced mixture of the nano world", _llama),
    "birch": Design("GPT-NeoX, trained on twice the sums and half the facts", _gpt_neox),
    "cedar": Design("GPT-2, trained on a mixture of which 28 % is noise", _gpt2),
    "dune": Design("Llama, trained on a mixture of which 50 % is facts", _llama),
}


def make_model(training: Training, size: Size) -> Any:
    """Return a model with its initial weights; torch's random state is unchanged."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        return DESIGNS[training.family].build(size)
