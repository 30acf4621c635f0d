"""Reductions and comparisons of logits."""

from __future__ import annotations

from typing import Any


def top_and_total(logits: Any) -> Any:
    """Return the largest of logits (t, V), and the logarithm of the sum of their exponentials: (2, t)."""
    import torch

    top = logits.amax(-1)
    return torch.stack([top, top + (logits - top[:, None]).exp_().sum(-1).log_()])


def agree(logits: Any, expected: Any) -> bool:
    """Return whether logits (t, V) equal the module's, up to rounding."""
    import torch

    rounding = {torch.float32: 64, torch.float64: 64}.get(expected.dtype, 4) * torch.finfo(expected.dtype).eps
    most = expected.float().nan_to_num(neginf=0).abs().amax(-1, keepdim=True)
    off = torch.where(logits == expected, 0, (logits.float() - expected.float()).abs())
    return bool((off <= rounding * most).all())
