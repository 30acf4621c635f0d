"""Metrics of single continuations (cloze) and of plain text."""

from __future__ import annotations

import math

import numpy as np

import harness
from harness import Scores


def greedy_match(scores: Scores) -> harness.Floats:
    """Return 1 if greedy decoding gives the correct continuation, token by token (lm-eval's acc on LAMBADA)."""
    if scores.is_greedy is None:
        raise harness.MetricError("greedy_match: the engine did not report which tokens are greedy")
    return scores.gold(scores.is_greedy).astype(np.float64)


def perplexity(scores: Scores) -> tuple[harness.Floats, harness.Floats]:
    """Return (-log p, 1) of each continuation: its exponential is lm-eval's perplexity on LAMBADA."""
    return -scores.logprob, np.ones(len(scores))


def token_perplexity(scores: Scores) -> tuple[harness.Floats, harness.Floats]:
    """Return (-log p, tokens) of each text; comparable only between models with the same tokenizer."""
    return -scores.logprob, scores.n_tokens.astype(np.float64)


def bits_per_byte(scores: Scores) -> tuple[harness.Floats, harness.Floats]:
    """Return (-log2 p, UTF-8 bytes) of each text (lm-eval's bits_per_byte)."""
    return -scores.logprob / np.log(2), scores.n_bytes.astype(np.float64)


def byte_perplexity(scores: Scores) -> tuple[harness.Floats, harness.Floats]:
    """Return (-log p, UTF-8 bytes) of each text: its exponential is lm-eval's byte_perplexity."""
    return -scores.logprob, scores.n_bytes.astype(np.float64)


@harness.hookimpl
def register_metrics(register: harness.Register) -> None:
    """Register the metrics with their requirements."""
    register(greedy_match, needs=["greedy", "one_gold"], bounds=(0, 1))
    register(perplexity, needs=["cloze"], aggregate="exp_ratio", higher_is_better=False, bounds=(1, math.inf))
    register(
        token_perplexity,
        needs=["text", "token_counts"],
        aggregate="exp_ratio",
        higher_is_better=False,
        bounds=(1, math.inf),
    )
    register(bits_per_byte, needs=["text"], aggregate="ratio", higher_is_better=False, bounds=(0, math.inf))
