"""Checkpoints and families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


def checkpoint_label(family: object, size: object, step: object = None, seed: object = None) -> str:
    """Return the name of a checkpoint on the command line: family:size@step, and #seed unless it is 0."""
    return f"{family}:{size}" + ("" if step is None else f"@{step}") + (f"#{seed}" if seed else "")


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights, with attributes of its training.

    `params` counts all parameters, `params_non_embedding` those outside token and position embeddings (and outside
    an untied output head); `tokens` is training tokens seen; `flops` is total training FLOPs by the
    convention `flops_convention`; `loss` is the training or validation loss in nats per token. Unknown values are None.
    `adapter` is the folder of an adapter (LoRA), whose base model is `source`.
    """

    family: str
    size: str
    step: int | None
    seed: int
    source: str  # a folder, or hub:org/name@revision
    bos: str = "auto"
    params: int | None = None
    params_non_embedding: int | None = None
    tokens: float | None = None
    flops: float | None = None
    flops_convention: str = "6ND"
    loss: float | None = None
    annealed: bool | None = None
    adapter: str = ""
    features: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Return the name of the checkpoint on the command line: family:size@step, and #seed unless it is 0."""
        return checkpoint_label(self.family, self.size, self.step, self.seed)


@dataclass(frozen=True)
class Family:
    """Models trained by one recipe: checkpoints ordered by size and step."""

    name: str
    checkpoints: tuple[Checkpoint, ...]
    about: str = ""
