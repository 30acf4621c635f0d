"""Data for fitting one formula: points, their resamples, anchors, and the least-squares problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import LawError
from harness.fitting.derivatives import differentiate
from harness.fitting.laws import bounds, curve
from harness.fitting.objectives import Objective
from harness.fitting.resampling import Resamples, shared
from harness.fitting.solver import Problem, rows_at
from harness.types import Bools, Floats, Ints
from harness.types.laws import FormulaLaw, traits

if TYPE_CHECKING:
    from harness.fitting.fitted_formula import StepFit


@dataclass(frozen=True)
class Sampled:
    """A column (n,) and its value in every resample (R, n)."""

    values: Floats
    draws: Floats | None = None

    def at(self, rows: Bools | None) -> Sampled:
        """Return some of the rows; all of them for None."""
        if rows is None:
            return self
        return Sampled(self.values[rows], None if self.draws is None else self.draws[:, rows])

    def replaced(self, rows: Bools | None, other: Sampled) -> Sampled:
        """Return the column with the draws of `other` at some of its rows (all for None)."""
        if rows is None or other.draws is None:
            return other if rows is None else self
        draws = np.array(
            np.broadcast_to(self.values if self.draws is None else self.draws, (len(other.draws), len(rows)))
        )
        draws[:, rows] = other.draws
        return Sampled(self.values, draws)

    def with_anchors(self, anchors: Floats) -> Sampled:
        """Return the column with anchors appended, which are equal in all resamples."""
        if not len(anchors):
            return self
        draws = self.draws
        if draws is not None:
            draws = np.hstack([draws, np.broadcast_to(anchors, (len(draws), len(anchors)))])
        return Sampled(np.append(self.values, anchors), draws)


@dataclass(frozen=True)
class StepData:
    """Data for one formula: n points, followed by the law's anchors; trials of counted successes."""

    law: FormulaLaw
    objective: Objective
    x: Mapping[str, Sampled]
    y: Sampled
    n: int
    trials: Floats | None = None

    @classmethod
    def of(cls, law: FormulaLaw, objective: Objective, x: Mapping[str, Sampled], y: Sampled) -> StepData:
        """Check the points and add the anchors; raise LawError for points that the law cannot be fitted to."""
        n, p = len(y.values), len(law.parameters)
        if n < p:
            raise LawError(
                f"law {law.name!r} has {p} parameters, but there are {n} points; add points, or choose a simpler law"
            )
        objective.check(law.name, y.values)
        _check_range(law, y.values)
        for name, sampled in x.items():
            if np.ptp(sampled.values) == 0:
                raise LawError(
                    f"law {law.name!r}: {name} is {sampled.values[0]:.6g} at all {n} points; add points with other "
                    f"values, or choose a law without {name}"
                )
        anchors = traits(law).anchors
        x = {k: v.with_anchors(np.array([float(at[k]) for at, _ in anchors])) for k, v in x.items()}
        return cls(law, objective, x, y.with_anchors(np.array([float(value) for _, value in anchors])), n)

    def with_trials(self, trials: Floats | None) -> StepData:
        """Return the points with their trials (n,); an anchor counts as one."""
        if trials is None:
            return self
        return replace(self, trials=np.append(trials, np.ones(len(self.y.values) - self.n)))

    def residuals(self, parameters: Mapping[str, float]) -> Floats:
        """Return the residuals of points and anchors after the objective's transform."""
        best = np.array([list(parameters.values())])
        residuals: Floats = self.delta * self.of_points(1).residuals(best, np.zeros(1, dtype=np.int64))[0]
        return residuals

    @property
    def points(self) -> Sampled:
        """Return the values without the anchors."""
        draws = self.y.draws
        return Sampled(self.y.values[: self.n], None if draws is None else draws[:, : self.n])

    def redrawn(self, fit: StepFit, resamples: Resamples, rng: np.random.Generator) -> StepData:
        """Return simulated points (R, n): the law at the features of each resample, plus noise (parametric bootstrap).

        The noise is Gaussian after the objective's transform. Its standard deviation is drawn from the distribution of
        the scatter given its degrees of freedom, and its correlation within a unit is that of the residuals. Changes
        from resampled documents are added, and their variance is removed from the noise so that it counts once.
        Counted successes are redrawn from their trials, which include that variance.
        """
        points, objective, units, count = self.points, self.objective, resamples.units, len(resamples.weights)
        x = {k: (v.values if v.draws is None else v.draws)[..., : self.n] for k, v in self.x.items()}
        law = curve(self.law, np.tile(list(fit.parameters.values()), (count, 1)), x)
        scatter = fit.scatter * np.sqrt(fit.dof / rng.chisquare(max(fit.dof, 1), size=(count, 1)))
        share = shared(self.residuals(fit.parameters)[: self.n], units)
        common = np.sqrt(share) * rng.normal(size=(count, int(units.max()) + 1))
        noise = rng.normal(size=(count, self.n))
        noise *= np.sqrt(1 - share)
        noise += common[:, units]
        with np.errstate(all="ignore"):
            moved = None if points.draws is None else objective.forward(points.draws) - objective.forward(points.values)
            again = objective.noisy(law, scatter * _rest(moved, fit.scatter), noise)
            if moved is not None and self.trials is None:
                again = objective.inverse(objective.forward(again) + moved)
            if self.trials is not None:
                again = rng.binomial(np.int64(self.trials[: self.n]), np.clip(again, 0, 1)) / self.trials[: self.n]
            drawn = Sampled(points.values, again)
        return replace(self, y=drawn.with_anchors(self.y.values[self.n :]))

    @property
    def delta(self) -> float:
        """Return Huber's delta, the unit of residuals, so that the corner of the loss is at 1."""
        return self.objective.delta or 1.0

    def of_points(self, size: int) -> Problem:
        """Return the problem of fitting all points, repeated `size` times, once per start."""
        target = np.broadcast_to(self.objective.forward(self.y.values), (size, len(self.y.values)))
        return self._problem({k: v.values for k, v in self.x.items()}, target, None)

    def of_resamples(self, weights: Floats) -> Problem:
        """Return the problems of fitting each resample (R, n); anchors keep weight 1."""
        size, anchors = len(weights), len(self.y.values) - self.n
        target = self.of_points(size).target if self.y.draws is None else self.objective.forward(self.y.draws)
        features = {k: v.values if v.draws is None else v.draws for k, v in self.x.items()}
        return self._problem(features, target, np.hstack([weights, np.ones((size, anchors))]))

    def _problem(self, features: Mapping[str, Floats], target: Floats, weights: Floats | None) -> Problem:
        law, objective, trials = self.law, self.objective, self.trials
        names = list(law.parameters)

        def features_at(which: Ints) -> dict[str, Floats]:
            return {k: v if v.ndim == 1 else rows_at(v, which) for k, v in features.items()}

        def residuals(params: Floats, which: Ints) -> Floats:
            value = curve(law, params, features_at(which))
            with np.errstate(all="ignore"):
                missed: Floats = objective.residuals(value, rows_at(target, which), trials)
                return missed if objective.is_plain else missed / self.delta

        def slopes(params: Floats, which: Ints) -> tuple[Floats, Floats] | None:
            pair = differentiate(
                law.formula, features_at(which), {k: params[:, j : j + 1] for j, k in enumerate(names)}
            )
            if pair is None:
                return None
            value, by_parameter = pair
            with np.errstate(all="ignore"):
                missed = objective.residuals(value, rows_at(target, which), trials)
                if objective.is_plain:
                    return missed, by_parameter
                by_value = objective.slopes(value, missed, rows_at(target, which), trials) / self.delta
                by_parameter *= by_value[:, None]
                return missed / self.delta, by_parameter

        lower, upper = bounds(law)
        huber = objective.delta is not None
        if weights is not None and (weights == 1).all():
            weights = None
        return Problem(residuals, lower, upper, target, weights, huber, slopes)


def _rest(moved: Floats | None, scatter: float) -> float:
    """Return the share of a scatter that is left without the changes (R, n) by resampled documents at single points."""
    if moved is None or scatter <= 0 or moved.shape[1] < 2:
        return 1.0
    alone = moved - moved.mean(axis=1, keepdims=True)
    variance = float(np.nanmean(np.square(alone, out=alone))) * moved.shape[1] / (moved.shape[1] - 1)
    return float(np.sqrt(max(1 - variance / scatter**2, 0.0)))


def _check_range(law: FormulaLaw, y: Floats) -> None:
    """Raise LawError for values (n,) outside the law's range by more than a tenth of it, which noise may cause."""
    low, high = traits(law).value_range
    slack = 0.1 * (high - low) if np.isfinite(high - low) else 0.0
    if y.min() < low - slack or y.max() > high + slack:
        percent = "; divide percentages by 100" if high == 1 and y.min() >= 0 else ""
        raise LawError(
            f"law {law.name!r} describes values from {low:g} to {high:g}; found values {y.min():.4g} to {y.max():.4g}"
            f"{percent}"
        )
