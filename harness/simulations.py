"""Points made with a law and noise, and how often the intervals of fits to them hold the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.fits import fit
from harness.laws import FormulaLaw, curve
from harness.objectives import objective_of
from harness.types import Floats

TRIALS = 1000  # of each point, where successes are counted
RANGES = {"flops": (1e18, 1e22), "params": (1e7, 1e10), "tokens": (1e9, 1e12), "k": (1.0, 1e3), "s1": (0.5, 5.0)}
OTHERS = (0.5, 5.0)


@dataclass(frozen=True)
class Coverage:
    """In how many of `count` simulations intervals held the truth: of each parameter, of the curve, of a new point.

    `curve` is at the middle of each feature, `beyond` at twice the largest, both of the law itself, without scatter;
    `new` is a new measurement there.
    """

    count: int
    parameters: Mapping[str, int]
    curve: int
    beyond: int
    new: int


def places(law: FormulaLaw, n: int, seed: int = 0) -> dict[str, Floats]:
    """Return n places of every feature, (n,) each: even over its range, in an order of its own."""
    rng = np.random.default_rng(seed)
    ranges = {name: RANGES.get(name, OTHERS) for name in law.features}
    spread = {name: np.geomspace if high / low > 20 else np.linspace for name, (low, high) in ranges.items()}
    return {name: rng.permutation(spread[name](low, high, n)) for name, (low, high) in ranges.items()}


def measured(law: FormulaLaw, y: Floats, scale: float, rng: np.random.Generator) -> Floats:
    """Return a curve (n,) as it would be measured: Gaussian noise on the law's own objective, or counted successes."""
    objective = objective_of(law)
    if objective.counts:
        counted: Floats = rng.binomial(TRIALS, y) / TRIALS
        return counted
    return objective.noisy(y, scale, rng.normal(size=y.shape))


def coverage(
    law: FormulaLaw,
    truth: Mapping[str, float],
    x: Mapping[str, Floats],
    *,
    count: int,
    scale: float = 0.01,
    **options: Any,
) -> Coverage:
    """Fit a law to points (n,) with noise `count` times, and count the intervals that hold the truth.

    `options` are those of `harness.fit`; points are independent.
    """
    values = np.array([[truth[name] for name in law.parameters]])
    ends = pd.DataFrame({k: [np.median(v), 2 * v.max()] for k, v in x.items()})
    y, at_ends = curve(law, values, x)[0], curve(law, values, {k: ends[k].to_numpy() for k in x})[0]
    held, inside = dict.fromkeys(law.parameters, 0), np.zeros(3, dtype=np.int64)
    for seed in range(count):
        rng = np.random.default_rng([seed, 7])
        points = pd.DataFrame({**x, "y": measured(law, y, scale, rng), "trials": float(TRIALS)})
        found = fit(points, law, value="y", seed=seed, resample="checkpoints", **options)
        for name, (low, high) in found.steps[0].intervals(found.options.level).items():  # type: ignore[union-attr]
            if name in held:
                held[name] += low <= truth[name] <= high
        tail = (1 - found.options.level) / 2
        low, high = np.quantile(found.draws(found.steps[0].read(ends)), [tail, 1 - tail], axis=0)
        inside[:2] += (low <= at_ends) & (at_ends <= high)
        new, row = measured(law, at_ends[1:], scale, rng)[0], found.predict(ends).iloc[1]
        inside[2] += row["low"] <= new <= row["high"]
    return Coverage(count, held, *map(int, inside))
