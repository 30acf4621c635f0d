"""Verify that a module is a causal language model: tokens that follow change no log-probability before them.

Encoders (BERT without `is_decoder`), bidirectional versions of decoders and diffusion models load as language models,
too. Their scores of a token would depend on the token itself and on the padding of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from harness import EngineError
from harness_plugins.engines.forwards import Forwards
from harness_plugins.engines.upcast import in_float32

LENGTH = 24  # tokens of the canary; half of them are replaced, or left out
TOLERANCE = 5e-5  # for rounding in float32, relative to 1 + |log-probability|
TOLERANCE_QUANTISED = 0.05  # weights of other types compute in half precision


def expect_causal(forwards: Forwards, most: int) -> None:
    """Raise EngineError if tokens that follow change log-probabilities; `most` is the largest length of a canary."""
    config = forwards.model.config
    n_shared = min(LENGTH, most) // 2
    ids = np.random.default_rng(0).integers(config.get_text_config().vocab_size, size=(2, 2 * n_shared))
    ids[1, :n_shared] = ids[0, :n_shared]
    is_quantised = getattr(config, "quantization_config", None) is not None
    try:
        with in_float32(forwards.model):
            off = _largest_effect(forwards, ids, n_shared) if n_shared else 0.0
    except Exception:  # a module may raise any error in another precision; scoring raises it again
        return
    if off > (TOLERANCE_QUANTISED if is_quantised else TOLERANCE):
        raise EngineError(
            f"{type(forwards.model).__name__} is not a causal language model: tokens that follow change "
            f"log-probabilities by {off:.2g} nats, so a choice cannot be scored; use a decoder (models of the BERT "
            "family: is_decoder = true in config.json, if they were trained as one)"
        )


def _largest_effect(forwards: Forwards, ids: Any, n_shared: int) -> float:
    """Return the largest change of a log-probability of the first tokens, relative to 1 + its absolute value."""
    import torch

    places = np.arange(n_shared)
    both = forwards.logits(ids, np.concatenate([places, places + ids.shape[1]]))
    alone = forwards.logits(ids[:1, :n_shared], places)
    first, second, alone = (torch.log_softmax(part.float(), -1) for part in (*both.split(n_shared), alone))
    off = [
        torch.where(logprobs == alone, 0, (logprobs - alone).abs() / (1 + alone.abs())).max()
        for logprobs in (first, second)
    ]
    return float(max(off))
