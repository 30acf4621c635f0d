"""Pareto frontier of a family's score over compute: a power law with resamples of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness import Floats, Ints, LawError
from harness_plugins.analyses.power_laws import pareto_power

if TYPE_CHECKING:
    import pandas as pd

TRIES = 50  # largest number of redraws of a resample whose frontier has fewer than two points


@dataclass(frozen=True)
class Frontier:
    """A power law of error through the points of the frontier, and its resamples (R, 2) of ln a and b.

    The error is 1 - score if `rises`, else the value itself. The class has the attributes of a fitted curve, so that
    crossings and gains are computed as for a `LawFit`.
    """

    coefficients: tuple[float, float]
    resampled: Floats
    domain: Mapping[str, tuple[float, float]]
    level: float
    rises: bool
    law: ClassVar[str] = "Pareto power"
    features: ClassVar[tuple[str, ...]] = ("flops",)

    def curve(self, x: Mapping[str, Floats]) -> Floats:
        """Return the score (n,)."""
        return np.asarray(self._scores(np.array([self.coefficients]), x["flops"])[0])

    def draws(self, x: Mapping[str, Floats]) -> Floats:
        """Return the score of every resample (R, n)."""
        return np.asarray(self._scores(self.resampled, x["flops"]))

    def _scores(self, coefficients: Floats, flops: Floats) -> Any:
        logarithms = np.log(np.asarray(flops, dtype=np.float64))
        errors = np.exp(coefficients[:, :1] + coefficients[:, 1:] * logarithms)
        return 1 - errors if self.rises else errors


def frontier(
    points: pd.DataFrame, value: str, *, rises: bool, bootstrap: int, level: float, rng: np.random.Generator
) -> Frontier:
    """Fit the Pareto frontier of a column of wide points; resamples draw runs with replacement.

    The best of resampled runs is never better than the best of all runs, but the true frontier is. Therefore the
    logarithms of resamples are reflected at the fit (basic bootstrap), which removes most of this bias.

    Raises LawError if errors or compute are not positive, or if there are fewer than three runs.
    """
    from harness.points import column, runs_of

    flops, scores, runs = column(points, "flops"), column(points, value), runs_of(points).number
    errors, count = 1 - scores if rises else scores, len(set(runs))
    if count < 3:
        raise LawError(f"{count} runs: the resamples of a frontier need 3 or more")
    best = _coefficients(flops, errors)
    rows: list[Ints] = [np.flatnonzero(runs == run) for run in sorted(set(runs))]
    resampled = np.array([_resample(flops, errors, rows, rng) for _ in range(bootstrap)])
    domain = {"flops": (float(flops.min()), float(flops.max()))}
    return Frontier(best, 2 * np.array(best) - resampled, domain, level, rises)


def _resample(flops: Floats, errors: Floats, rows: list[Ints], rng: np.random.Generator) -> tuple[float, float]:
    """Return the coefficients of one resample of runs; redraw it if its frontier has fewer than two points."""
    for _ in range(TRIES):
        drawn = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        try:
            return _coefficients(flops[drawn], errors[drawn])
        except LawError:
            continue
    raise LawError(f"{TRIES} resamples of {len(rows)} runs left fewer than two points on the frontier")


def _coefficients(flops: Floats, errors: Floats) -> tuple[float, float]:
    power_law = pareto_power(flops, errors)
    return float(np.log(power_law.a)), power_law.b
