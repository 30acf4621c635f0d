"""What a published fit made again is: what is expected, how it is computed here, how near it must come.

The published data are read where `tests.conftest.published` finds them, and never committed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from harness.fitting.fit import fit
from harness.fitting.result import LawFit
from harness.host import load_plugins
from tests.conftest import published

host = cache(load_plugins)
Numbers = dict[str, float]


@dataclass(frozen=True)
class Target:
    """A published fit: `expected` gives each number with the difference that is allowed."""

    name: str
    source: str
    procedure: str
    compute: Callable[[], Numbers]
    expected: dict[str, tuple[float, float]]

    @property
    def obtained(self) -> Numbers:
        """Return the reproduced numbers, computed once."""
        return _computed(self.compute)


@cache
def _computed(compute: Callable[[], Numbers]) -> Numbers:
    return compute()


def read(*parts: str) -> pd.DataFrame:
    """Return published points with our names of columns."""
    frame = pd.read_csv(published("laws", *parts))
    return frame.rename(columns={"n_params": "params", "n_tokens": "tokens"})


def quick(points: pd.DataFrame, law: str, value: str, **arguments: Any) -> LawFit:
    """Fit with hardly any resamples, which point fits do not need."""
    arguments = {"bootstrap": 10, "resample": "checkpoints", **arguments}
    return fit(points, law, value=value, registries=host(), **arguments)


def parameters(found: LawFit) -> Numbers:
    """Return the parameters of the first step, what follows from them, and its objective."""
    step = found.steps[0]
    return {**step.parameters, **{name: value for name, (value, _) in step.derived.items()}, "objective": step.cost}
