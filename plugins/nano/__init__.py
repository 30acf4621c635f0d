"""The nano ladder: three families of small trained language models that can be evaluated without a GPU.

world.py generates the synthetic world and its tasks, train.py trains a family, and weights/ contains the checkpoints.
The weights (24 MB) are not in the harness's wheel. They are in the distribution scaling-harness-nano, which is built
from this folder. In a checkout of the repository they are beside this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import harness

FAMILIES = ("aster", "birch", "cedar")
DISTRIBUTION = "harness_nano"  # the installed package with the weights


def folders() -> Iterator[Path]:
    """Yield the folders that may contain the weights: this file's folder and that of the installed distribution."""
    yield Path(__file__).parent
    spec = find_spec(DISTRIBUTION)
    if spec and spec.origin:
        yield Path(spec.origin).parent


@harness.hookimpl
def register_families(register: harness.Register) -> None:
    """Register the families if their weights are installed."""
    with_weights = [folder for folder in folders() if (folder / "weights").is_dir()]
    for folder in with_weights[:1]:
        for name in FAMILIES:
            register(folder / f"{name}.toml")
