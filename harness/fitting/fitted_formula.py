"""One fitted formula: parameters, their draws, and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.fitting.columns import column
from harness.fitting.laws import Column, clipped, curve
from harness.fitting.objectives import objective_of
from harness.fitting.solver import BLOCK
from harness.types import Floats, Json
from harness.types.laws import FormulaLaw, traits

TAIL = 0.15865525393145707  # beyond one standard deviation of the normal distribution, on either side


@dataclass(frozen=True)
class StepFit:
    """One fitted formula: parameters (p,) with standard errors, and draws (R, p) from the resamples.
    `scatter` is the standard deviation of the residuals after the objective's transform, over `dof` degrees of
    freedom (for counted successes: the square root of rho in the variance rho p (1 - p) in excess of binomial
    variance); `domain` is the fitted range of each feature; `agree` of `starts` reached the best cost; `converged` says
    that the optimiser ended by itself; `trials` is the median number of trials of a rate, 0 without counts.
    """

    law: FormulaLaw
    parameters: Mapping[str, float]
    stderr: Mapping[str, float]
    draws: Floats
    objective: str
    cost: float
    scatter: float
    dof: int
    n: int
    rank: int
    starts: int
    agree: int
    domain: Mapping[str, tuple[float, float]]
    converged: bool = True
    trials: int = 0

    @property
    def derived(self) -> dict[str, tuple[float, Floats]]:
        """Return the derived quantities of the law: value and draws (R,) of each."""
        of = traits(self.law).derived
        if of is None:
            return {}
        everything = np.vstack([list(self.parameters.values()), self.draws])
        with np.errstate(all="ignore"):
            quantities = of(**{name: everything[:, j : j + 1] for j, name in enumerate(self.law.parameters)})
        return {name: (float(x[0, 0]), x[1:, 0]) for name, x in quantities.items()}

    def intervals(self, level: float) -> dict[str, tuple[float, float]]:
        """Return lower and upper end of each parameter and derived quantity, over the resamples."""
        tails = [(1 - level) / 2, (1 + level) / 2]
        draws = dict(zip(self.parameters, self.draws.T, strict=True))
        draws |= {name: values for name, (_, values) in self.derived.items()}
        if not self.dof:
            return dict.fromkeys(draws, (float("nan"), float("nan")))
        return {
            name: (float(low), float(high))
            for name, values in draws.items()
            for low, high in [_quantiles(values, tails)]
        }

    def read(self, frame: pd.DataFrame) -> dict[str, Floats]:
        """Return the features of points, (n,) each; raise LawError for missing values."""
        prepare = traits(self.law).prepare
        frame = prepare(frame) if prepare else frame
        return {name: column(frame, name) for name in self.law.features}

    def to_json(self) -> dict[str, Json]:
        """Return everything as JSON values; the law is its name."""
        derived = {name: value for name, (value, _) in self.derived.items()}
        return {**vars(self), "draws": self.draws.tolist(), "law": self.law.name, "derived": derived}

    def value(self, features: Mapping[str, Column]) -> Floats:
        """Return the curve (n,)."""
        best = np.array([list(self.parameters.values())])
        return np.asarray(clipped(self.law, curve(self.law, best, features))[0])

    def curves(self, features: Mapping[str, Column]) -> Floats:
        """Return the curve of every resample (R, n), computed in blocks that fit the processor's cache."""
        size = max(BLOCK // max(len(x.T) for x in features.values()), 1)
        blocks = [slice(i, i + size) for i in range(0, max(len(self.draws), 1), size)]
        curves = (
            curve(self.law, self.draws[rows], {k: x if x.ndim == 1 else x[rows] for k, x in features.items()})
            for rows in blocks
        )
        return np.concatenate([clipped(self.law, part) for part in curves])

    def sample(self, features: Mapping[str, Column], rng: np.random.Generator) -> Floats:
        """Return predictions (R, n): the curve of each resample plus scatter; for counts, successes in `trials` trials.

        They are NaN without degrees of freedom, since the scatter is then unknown.
        """
        objective = objective_of(self.law, self.objective)
        size = (len(self.draws), 1)
        z = rng.standard_t(self.dof, size=size) if self.dof > 0 else np.full(size, np.nan)
        with np.errstate(over="ignore", invalid="ignore"):  # t of one degree of freedom has no bounds
            values = clipped(self.law, objective.noisy(curve(self.law, self.draws, features), self.scatter, z))
        return rng.binomial(self.trials, np.nan_to_num(values)) / self.trials if self.trials else values


def _quantiles(draws: Floats, at: Sequence[float]) -> Floats:
    with np.errstate(invalid="ignore"):  # infinite draws, such as 10^(a / 0)
        return np.asarray(np.quantile(draws, at, axis=0))


def half_width(draws: Floats) -> Floats:
    """Return half the range of the central 68 % of draws (R, ...), a standard error that is robust to outliers."""
    low, high = _quantiles(draws, [TAIL, 1 - TAIL])
    return np.asarray((high - low) / 2)
