"""The training recipe of the nano families; together with the text of world.py it determines their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

EOS, EOS_ID = "<|end|>", 0  # starts every document, so it is also BOS
VOCAB, CONTEXT, HEAD = 1024, 256, 32  # vocabulary, tokens per sequence, dimensions of an attention head
WARM_UP = 100  # steps

COMMAND = "python -m harness_plugins.nano.train"


class Size(NamedTuple):
    """The shape of a model."""

    width: int
    layers: int


SIZES = {
    "w32l2": Size(32, 2),
    "w64l2": Size(64, 2),
    "w96l3": Size(96, 3),
    "w128l4": Size(128, 4),
    "w192l5": Size(192, 5),
    "w256l6": Size(256, 6),
}


@dataclass(frozen=True)
class Training:
    """All settings that determine the weights of a family, except size and device.

    `batch` counts sequences of CONTEXT tokens. `seed` determines the initial weights and the order of the batches, but
    not the text.
    """

    family: str
    steps: int = 1600
    batch: int = 256
    docs: int = 1_000_000
    seed: int = 0

    @property
    def kept(self) -> list[int]:
        """Return the steps whose checkpoints are saved, in ascending order."""
        return sorted({self.steps // share for share in (16, 8, 4, 2, 1)} - {0})

    @property
    def command(self) -> str:
        """Return the command that runs this training."""
        options = " ".join(f"--{name} {getattr(self, name)}" for name in ("steps", "batch", "docs", "seed"))
        return f"{COMMAND} {self.family} OUT {options}"


def learning_rate(step: int, steps: int, width: int) -> float:
    """Return the learning rate of a step: lower for wider models; linear warm-up, cosine decay to 1/20."""
    peak = 4e-3 * math.pow(64 / width, 0.7)
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return peak * min(1.0, step / WARM_UP) * (0.05 + 0.95 * cosine)
