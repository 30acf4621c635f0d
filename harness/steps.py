"""Fit one formula, or one behind the other: from many starts to all points, then to every resample at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError
from harness.ladders import Resamples, column, freedom, shared
from harness.laws import ComposedLaw, FormulaLaw, Objective, bounds, curve, objective_of, starts
from harness.solve import Effort, Problem, Solution, minimise
from harness.types import Floats, Ints

RESAMPLE_ITERATIONS = 60  # a resample begins at the best fit; the few that are still under way then are near enough
TAIL = 0.15865525393145707  # beyond one standard deviation of the normal distribution, on either side
AGREE = 1e-3  # starts whose cost is within this share of the best are counted as agreeing


@dataclass(frozen=True)
class Options:
    """How a law is fitted; every one is a decision that the fit records."""

    objective: str | None = None
    resample: str | None = None
    bootstrap: int = 1000
    level: float = 0.9
    starts: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UsageError(f"level={self.level}: expected a share between 0 and 1, such as 0.9")
        if self.bootstrap < 2 or self.starts < 1:
            raise UsageError(
                f"bootstrap={self.bootstrap}, starts={self.starts}: expected 2 resamples and 1 start or more"
            )


@dataclass(frozen=True)
class StepFit:
    """One fitted formula: parameters (p,) with standard errors, and draws (R, p) from the resamples.
    `scatter` is the standard deviation of the residuals after the objective's transform, over `dof` degrees of
    freedom; `domain` the range of each feature that was seen; `agree` of `starts` reached the best cost.
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

    def read(self, frame: pd.DataFrame) -> dict[str, Floats]:
        """Return the features of points, (n,) each; raise LawError for what is missing."""
        return {name: column(frame, name) for name in self.law.features}

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; the law is its name."""
        return {**vars(self), "draws": self.draws.tolist(), "law": self.law.name}

    def value(self, features: Mapping[str, Floats]) -> Floats:
        """Return the curve (n,)."""
        best = np.array([list(self.parameters.values())])
        return np.asarray(_clipped(self.law, curve(self.law, best, features))[0])

    def curves(self, features: Mapping[str, Floats]) -> Floats:
        """Return the curve of every resample (R, n)."""
        return _clipped(self.law, curve(self.law, self.draws, features))

    def sample(self, features: Mapping[str, Floats], rng: np.random.Generator) -> Floats:
        """Return predictions (R, n): the curve of each resample and the scatter around it; NaN where there is no
        degree of freedom to know the scatter from."""
        objective = objective_of(self.law, self.objective)
        noise = self.scatter * rng.standard_t(self.dof, size=(len(self.draws), 1)) if self.dof > 0 else np.nan
        values = objective.forward(curve(self.law, self.draws, features)) + noise
        with np.errstate(over="ignore"):  # t of one degree of freedom has no bounds
            return _clipped(self.law, objective.inverse(values))


def _clipped(law: FormulaLaw, values: Floats) -> Floats:
    low, high = getattr(law, "value_range", (-np.inf, np.inf))
    return np.clip(values, low, high)


@dataclass(frozen=True)
class Chain:
    """The steps of a law with the columns between them."""

    steps: tuple[FormulaLaw, ...]
    value: str
    via: str

    @classmethod
    def of(cls, law: FormulaLaw | ComposedLaw, value: str, via: str | None) -> Chain:
        """Take a law apart; a plain formula is a chain of one."""
        if isinstance(law, ComposedLaw):
            return cls(law.steps, value, via or law.via)
        return cls((law,), value, "")

    @property
    def columns(self) -> list[str]:
        """Return the columns that are fitted, in the order of the steps."""
        return [self.via, self.value] if self.via else [self.value]

    def negated(self, frame: pd.DataFrame) -> bool:
        """Say whether the column between the steps holds log-probabilities."""
        return bool(self.via) and bool((column(frame, self.via) <= 0).all())

    def fit(self, frame: pd.DataFrame, resamples: Resamples, options: Options) -> tuple[StepFit, ...]:
        """Fit every step to measured points; all steps share the resamples."""
        x = {name: Sampled(column(frame, name)) for name in self.steps[0].features}
        sign = -1.0 if self.negated(frame) else 1.0
        fits = []
        for number, (law, name) in enumerate(zip(self.steps, self.columns, strict=True)):
            signed = sign if name == self.via else 1.0
            values = column(frame, name)
            y = Sampled(signed * values, signed * resamples.of(name, values))
            own = options if number == len(self.steps) - 1 else replace(options, objective=None)
            step, data = fit_step(StepData.of(law, objective_of(law, own.objective), x, y), resamples, own)
            fits.append(step)
            x = {self.steps[number + 1].features[0]: data.points} if number + 1 < len(self.steps) else {}
        return tuple(fits)


@dataclass(frozen=True)
class Sampled:
    """A column (n,) and its value in every resample (R, n)."""

    values: Floats
    draws: Floats | None = None

    def with_anchors(self, anchors: Floats) -> Sampled:
        """Return the column with points added that no resample changes."""
        if not len(anchors):
            return self
        draws = self.draws
        if draws is not None:
            draws = np.hstack([draws, np.broadcast_to(anchors, (len(draws), len(anchors)))])
        return Sampled(np.append(self.values, anchors), draws)


@dataclass(frozen=True)
class StepData:
    """What one formula is fitted to: n points, and behind them the law's anchors."""

    law: FormulaLaw
    objective: Objective
    x: Mapping[str, Sampled]
    y: Sampled
    n: int

    @classmethod
    def of(cls, law: FormulaLaw, objective: Objective, x: Mapping[str, Sampled], y: Sampled) -> StepData:
        """Check the points and add the anchors; raise LawError for points that the law cannot be fitted to."""
        n, p = len(y.values), len(law.parameters)
        if n < p:
            raise LawError(
                f"law {law.name!r} has {p} parameters, and there are {n} points; add points, or take a simpler law"
            )
        if objective.needs_positive and not (y.values > 0).all():
            raise LawError(f"law {law.name!r}: {objective.name} needs values above 0, found {y.values.min():.4g}")
        anchors = getattr(law, "anchors", ())
        x = {k: v.with_anchors(np.array([float(at[k]) for at, _ in anchors])) for k, v in x.items()}
        return cls(law, objective, x, y.with_anchors(np.array([float(value) for _, value in anchors])), n)

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

    def redrawn(self, found: StepFit, resamples: Resamples, rng: np.random.Generator) -> StepData:
        """Return the points as they would come again (R, n): the law at the features of each resample, and noise.

        Noise is Gaussian after the objective's transform, with the scatter of the points, itself drawn from what its
        degrees of freedom say of it; points of one unit have as much of it in common as their residuals do. What
        resampled documents change is added.
        """
        points, forward, units, count = self.points, self.objective.forward, resamples.units, len(resamples.weights)
        x = {k: (v.values if v.draws is None else v.draws)[..., : self.n] for k, v in self.x.items()}
        law = curve(self.law, np.tile(list(found.parameters.values()), (count, 1)), x)
        scatter = found.scatter * np.sqrt(found.dof / rng.chisquare(max(found.dof, 1), size=(count, 1)))
        share = shared(self.residuals(found.parameters)[: self.n], units)
        common = rng.normal(size=(count, int(units.max()) + 1))[:, units]
        noise = scatter * (np.sqrt(share) * common + np.sqrt(1 - share) * rng.normal(size=(count, self.n)))
        with np.errstate(all="ignore"):
            moved = 0.0 if points.draws is None else forward(points.draws) - forward(points.values)
            drawn = Sampled(points.values, self.objective.inverse(forward(law) + noise + moved))
        return replace(self, y=drawn.with_anchors(self.y.values[self.n :]))

    @property
    def delta(self) -> float:
        """Residuals are in units of Huber's delta, so that its corner is at 1 and tolerances keep their meaning."""
        return self.objective.delta or 1.0

    def of_points(self, size: int) -> Problem:
        """Return the problem of fitting all points, `size` times over: one a start."""
        target = np.broadcast_to(self.objective.forward(self.y.values), (size, len(self.y.values)))
        return self._problem({k: v.values for k, v in self.x.items()}, target, None)

    def of_resamples(self, weights: Floats) -> Problem:
        """Return the problems of fitting each resample (R, n); anchors keep weight 1."""
        size, anchors = len(weights), len(self.y.values) - self.n
        target = self.of_points(size).target if self.y.draws is None else self.objective.forward(self.y.draws)
        features = {k: v.values if v.draws is None else v.draws for k, v in self.x.items()}
        return self._problem(features, target, np.hstack([weights, np.ones((size, anchors))]))

    def _problem(self, features: Mapping[str, Floats], target: Floats, weights: Floats | None) -> Problem:
        def residuals(params: Floats, which: Ints) -> Floats:
            own = {k: v if v.ndim == 1 else v[which] for k, v in features.items()}
            return (self.objective.forward(curve(self.law, params, own)) - target[which]) / self.delta

        lower, upper = bounds(self.law)
        return Problem(residuals, lower, upper, target, weights, huber=self.objective.delta is not None)


def fit_step(data: StepData, resamples: Resamples, options: Options) -> tuple[StepFit, StepData]:
    """Fit one formula: from many starts to all points, then from the best to every resample.

    Return the fit, and the points as they were resampled, for the step behind it.
    """
    tried = _search(data, options)
    found = _of_points(data, tried, resamples.units)
    best = np.array(list(found.parameters.values()))
    if resamples.noise is not None:
        data = data.redrawn(found, resamples, resamples.noise)
    spread = float(np.square(data.objective.forward(data.y.values)).sum()) / data.delta**2
    effort = Effort(RESAMPLE_ITERATIONS, tolerance=1e-6, floor=1e-6 * spread)
    weights = resamples.weights
    draws = minimise(data.of_resamples(weights), np.tile(best, (len(weights), 1)), effort).params
    stderr = _spread(draws, redrawn=resamples.noise is not None) if found.dof else np.full(len(best), np.nan)
    known = dict(zip(data.law.parameters, map(float, stderr), strict=True))
    return replace(found, draws=draws, stderr=known), data


def _spread(draws: Floats, *, redrawn: bool) -> Floats:
    """Return the standard deviation of draws (R, p); half the range of the central 68 % where few points were redrawn,
    as some of these draws lie anywhere.
    """
    low, high = np.quantile(draws, [TAIL, 1 - TAIL], axis=0)
    spread: Floats = (high - low) / 2 if redrawn else draws.std(axis=0, ddof=1)
    return spread


def _search(data: StepData, options: Options) -> Solution:
    """Minimise from many starts; raise LawError where none leads anywhere."""
    law, x, y = data.law, data.x, data.y
    rng = np.random.default_rng(options.seed)
    begin = starts(law, y.values, {k: v.values for k, v in x.items()}, options.starts, rng)
    tried = minimise(data.of_points(len(begin)), begin)
    if not np.isfinite(tried.cost).any():
        raise LawError(
            f"law {law.name!r} is not finite at any of {len(begin)} starts; check the values ({y.values.min():.4g} to "
            f"{y.values.max():.4g}) and the units of {', '.join(x)}"
        )
    return tried


def _of_points(data: StepData, tried: Solution, units: Ints) -> StepFit:
    """Return the fit to all points, without resamples; anchors count as points of the scatter, as in the fit."""
    problem, best = data.of_points(1), tried.params[np.argmin(tried.cost)]
    floor = 1e-12 * float(np.abs(problem.target).max()) ** 2 / data.delta**2
    agree = tried.cost <= tried.cost.min() * (1 + AGREE) + floor
    free = int(((best > problem.lower) & (best < problem.upper)).sum())
    parameters = dict(zip(data.law.parameters, map(float, best), strict=True))
    residuals = data.residuals(parameters)
    dof = freedom(len(residuals), free, len(set(units)))
    return StepFit(
        law=data.law,
        parameters=parameters,
        stderr={},
        draws=best[None],
        objective=data.objective.name,
        cost=float(tried.cost.min() * data.delta**2),
        scatter=_scatter(residuals, free, shared(residuals[: data.n], units), len(set(units))) if dof else 0.0,
        dof=dof,
        n=data.n,
        rank=problem.rank(best),
        starts=len(tried.cost),
        agree=int(agree.sum()),
        domain={k: (float(v.values[: data.n].min()), float(v.values[: data.n].max())) for k, v in data.x.items()},
    )


def _scatter(residuals: Floats, free: int, share: float, units: int) -> float:
    """Return the standard deviation behind residuals (n,) of which free parameters have taken their part.

    Of the `share` of variance that is common to a unit they have taken up to G - free of G parts, of the rest n - free
    of n.
    """
    n = len(residuals)
    taken = share * units / max(units - free, 1) + (1 - share) * n / max(n - free, 1)
    return float(np.sqrt(np.mean(residuals**2) * taken))
