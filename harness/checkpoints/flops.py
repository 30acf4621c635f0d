"""FLOPs of training (6 N D) and of inference (2 N D)."""

from __future__ import annotations


def training_flops(params: float, tokens: float) -> float:
    """Return 6 N D: training FLOPs of a dense transformer with N = `params` on D = `tokens` (Kaplan 2020, sec. 2.1)."""
    return 6.0 * params * tokens


def inference_flops(params: float, tokens: float) -> float:
    """Return 2 N D: FLOPs of the forward pass over `tokens` (Kaplan 2020, sec. 2.1)."""
    return 2.0 * params * tokens
