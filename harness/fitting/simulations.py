"""Simulated points of a law with noise, and the coverage of the intervals of fits to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.fitting.fit import FitRequest, fit_points
from harness.fitting.laws import curve, steps_of
from harness.fitting.objectives import objective_of
from harness.fitting.options import Options
from harness.types import Floats
from harness.types.laws import ComposedLaw, FormulaLaw

TRIALS = 1000  # per point, for counted successes
RANGES = {
    "flops": (1e18, 1e22),
    "params": (1e7, 1e10),
    "tokens": (1e9, 1e12),
    "width": (64.0, 8192.0),
    "depth": (2.0, 64.0),
    "bits": (3.0, 16.0),
    "streams": (1.0, 16.0),
    "k": (1.0, 1e3),
    "s2": (0.1, 1.0),
}
OTHERS = (0.5, 5.0)


@dataclass(frozen=True)
class Coverage:
    """Number of `count` simulations in which intervals covered the true parameters, curve and new points.

    `curve` is at the middle of each feature, `beyond` at twice the largest, both of the law itself, without scatter;
    `new` is a new measurement there.
    """

    count: int
    parameters: Mapping[str, int]
    curve: int
    beyond: int
    new: int


def places(law: FormulaLaw, n: int, seed: int = 0) -> dict[str, Floats]:
    """Return n values of every feature, (n,) each: evenly spaced over its range, in random order."""
    rng = np.random.default_rng(seed)
    ranges = {name: RANGES.get(name, OTHERS) for name in law.features}
    spread = {name: np.geomspace if high / low > 20 else np.linspace for name, (low, high) in ranges.items()}
    return {name: rng.permutation(spread[name](low, high, n)) for name, (low, high) in ranges.items()}


def measured(law: FormulaLaw, y: Floats, scale: float, rng: np.random.Generator) -> Floats:
    """Return simulated measurements (n,): Gaussian noise on the scale of the objective, or counted successes."""
    objective = objective_of(law)
    if objective.counts:
        counted: Floats = rng.binomial(TRIALS, y) / TRIALS
        return counted
    return objective.noisy(y, scale, rng.normal(size=y.shape))


def coverage(
    law: FormulaLaw | ComposedLaw,
    truth: Mapping[str, float],
    x: Mapping[str, Floats],
    *,
    count: int,
    scale: float = 0.01,
    bootstrap: int = 1000,
    level: float = 0.9,
    starts: int | str = 32,
    objective: str | None = None,
) -> Coverage:
    """Fit a law to points (n,) with noise `count` times, and count the intervals that cover the truth.

    `truth` are its parameters, those of both steps for a composed law. Other arguments are those of `harness.fit`;
    points are independent.
    """
    options = Options(objective, "checkpoints", bootstrap, level, starts)
    steps, columns = [step for step in steps_of(law) if isinstance(step, FormulaLaw)], ("via", "y")
    ends = pd.DataFrame({k: [np.median(v), 2 * v.max()] for k, v in x.items()})
    at_ends = _made(steps, truth, {k: ends[k].to_numpy() for k in x})[-1]
    held, inside = dict.fromkeys(truth, 0), np.zeros(3, dtype=np.int64)
    for seed in range(count):
        rng = np.random.default_rng([seed, 7])
        made = dict(zip(columns[-len(steps) :], _made(steps, truth, x, scale, rng), strict=True))
        points = pd.DataFrame({**x, **made, "trials": float(TRIALS)})
        fit = fit_points(points, law, FitRequest("y", "via", options=replace(options, seed=seed)))
        for step in fit.steps:
            for name, (low, high) in step.intervals(fit.options.level).items():  # type: ignore[union-attr]
                if name in held:
                    held[name] += low <= truth[name] <= high
        tail = (1 - fit.options.level) / 2
        low, high = np.quantile(fit.draws(fit.steps[0].read(ends)), [tail, 1 - tail], axis=0)
        inside[:2] += (low <= at_ends) & (at_ends <= high)
        beyond = {k: ends[k].to_numpy()[1:] for k in x}
        new, predicted = _made(steps, truth, beyond, scale, rng)[-1][0], fit.predict(ends).iloc[1]
        inside[2] += predicted["low"] <= new <= predicted["high"]
    return Coverage(count, held, *map(int, inside))


def _made(
    steps: Sequence[FormulaLaw],
    truth: Mapping[str, float],
    x: Mapping[str, Floats],
    scale: float = 0.0,
    rng: np.random.Generator | None = None,
) -> list[Floats]:
    """Return the values (n,) of every step, each from those of the step before; measured, where there is an rng."""
    made: list[Floats] = []
    for step in steps:
        features = {step.features[0]: made[-1]} if made else x
        y = curve(step, np.array([[truth[name] for name in step.parameters]]), features)[0]
        made.append(y if rng is None else measured(step, y, scale, rng))
    return made
