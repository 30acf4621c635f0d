"""The nano ladder: three families of small language models that were really trained, to evaluate where there is no GPU.

world.py draws the synthetic world and its tasks, train.py trains a family, weights/ holds the checkpoints. The weights
(24 MB) are not in the wheel of the harness but in the distribution scaling-harness-nano, which is built from this
folder; in a checkout of the repository they lie beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import harness

FAMILIES = ("aster", "birch", "cedar")
DISTRIBUTION = "harness_nano"  # the package with the weights, where they are installed


def folders() -> Iterator[Path]:
    """Yield the folders that may hold the weights: that of this file, and the one of the distribution with them."""
    yield Path(__file__).parent
    spec = find_spec(DISTRIBUTION)
    if spec and spec.origin:
        yield Path(spec.origin).parent


@harness.hookimpl
def register_families(register: harness.Register) -> None:
    """Register the families where their weights are installed."""
    with_weights = [folder for folder in folders() if (folder / "weights").is_dir()]
    for folder in with_weights[:1]:
        for name in FAMILIES:
            register(folder / f"{name}.toml")
