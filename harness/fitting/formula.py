"""Fit one formula, or one behind the other: from many starts to all points, then to every resample at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError
from harness.fitting.ladder import Resamples, column, freedom, shared, trials
from harness.fitting.laws import ComposedLaw, FormulaLaw, clipped, curve
from harness.fitting.objectives import objective_of
from harness.fitting.problem import Sampled, StepData
from harness.fitting.solver import Effort, Solution, minimise
from harness.fitting.starts import PUBLISHED, generic_starts, project, published_starts
from harness.types import Floats, Ints

RESAMPLE_ITERATIONS = 60  # a resample begins at the best fit; the few that are still under way then are near enough
TAIL = 0.15865525393145707  # beyond one standard deviation of the normal distribution, on either side
EXACT = 1e-9  # share of the squares of all values below which a cost is as good as none
AGREE = 1e-3  # starts whose cost is within this share of the best are counted as agreeing


@dataclass(frozen=True)
class Options:
    """How a law is fitted; every one is a decision that the fit records."""

    objective: str | None = None
    resample: str | None = None
    bootstrap: int = 1000
    level: float = 0.9
    starts: int | str = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UsageError(f"level={self.level}: expected a share between 0 and 1, such as 0.9")
        if self.bootstrap < 2:
            raise UsageError(f"bootstrap={self.bootstrap}: expected 2 resamples or more")
        if self.starts != PUBLISHED and not (str(self.starts).isdigit() and int(self.starts) >= 1):
            raise UsageError(f"starts={self.starts}: expected 1 or more, or {PUBLISHED!r}")


@dataclass(frozen=True)
class StepFit:
    """One fitted formula: parameters (p,) with standard errors, and draws (R, p) from the resamples.
    `scatter` is the standard deviation of the residuals after the objective's transform, over `dof` degrees of
    freedom (with counted successes: the root of rho in the variance rho p (1 - p) beyond that of counts); `domain` the
    range of each feature that was seen; `agree` of `starts` reached the best cost; `converged`: its search has ended;
    `trials` is the median number of those behind a rate, 0 where none are counted.
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
        """Return what follows from the parameters, as the law says: value and draws (R,) of each quantity."""
        of = getattr(self.law, "derived", None)
        if of is None:
            return {}
        everything = np.vstack([list(self.parameters.values()), self.draws])
        with np.errstate(all="ignore"):
            found = of(**{name: everything[:, j : j + 1] for j, name in enumerate(self.law.parameters)})
        return {name: (float(x[0, 0]), x[1:, 0]) for name, x in found.items()}

    def intervals(self, level: float) -> dict[str, tuple[float, float]]:
        """Return lower and upper end of each parameter, and of what is derived, over the resamples."""
        tails = [(1 - level) / 2, (1 + level) / 2]
        draws = dict(zip(self.parameters, self.draws.T, strict=True))
        draws |= {name: own for name, (_, own) in self.derived.items()}
        if not self.dof:
            return dict.fromkeys(draws, (float("nan"), float("nan")))
        return {
            name: (float(low), float(high)) for name, own in draws.items() for low, high in [_quantiles(own, tails)]
        }

    def read(self, frame: pd.DataFrame) -> dict[str, Floats]:
        """Return the features of points, (n,) each; raise LawError for what is missing."""
        prepare = getattr(self.law, "prepare", None)
        frame = prepare(frame) if prepare else frame
        return {name: column(frame, name) for name in self.law.features}

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; the law is its name."""
        derived = {name: value for name, (value, _) in self.derived.items()}
        return {**vars(self), "draws": self.draws.tolist(), "law": self.law.name, "derived": derived}

    def value(self, features: Mapping[str, Floats]) -> Floats:
        """Return the curve (n,)."""
        best = np.array([list(self.parameters.values())])
        return np.asarray(clipped(self.law, curve(self.law, best, features))[0])

    def curves(self, features: Mapping[str, Floats]) -> Floats:
        """Return the curve of every resample (R, n)."""
        return clipped(self.law, curve(self.law, self.draws, features))

    def sample(self, features: Mapping[str, Floats], rng: np.random.Generator) -> Floats:
        """Return predictions (R, n): the curve of each resample and the scatter around it, successes counted in as many
        trials as before; NaN where there is no degree of freedom to know the scatter from."""
        objective = objective_of(self.law, self.objective)
        size = (len(self.draws), 1)
        z = rng.standard_t(self.dof, size=size) if self.dof > 0 else np.full(size, np.nan)
        with np.errstate(over="ignore", invalid="ignore"):  # t of one degree of freedom has no bounds
            values = clipped(self.law, objective.noisy(curve(self.law, self.draws, features), self.scatter, z))
        return rng.binomial(self.trials, np.nan_to_num(values)) / self.trials if self.trials else values


def _quantiles(draws: Floats, at: Sequence[float]) -> Floats:
    with np.errstate(invalid="ignore"):  # infinite draws, such as 10^(a / 0)
        return np.asarray(np.quantile(draws, at))


def half_width(draws: Floats) -> float:
    """Return half the range of the central 68 % of draws (R,), a standard error that wild draws do not move."""
    low, high = _quantiles(draws, [TAIL, 1 - TAIL])
    return float(high - low) / 2


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
            objective = objective_of(law, own.objective)
            data = StepData.of(law, objective, x, y).with_trials(trials(frame, name) if objective.counts else None)
            step, data = fit_step(data, resamples, own)
            fits.append(step)
            x = {self.steps[number + 1].features[0]: data.points} if number + 1 < len(self.steps) else {}
        return tuple(fits)


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
    if resamples.power and data.objective.delta is None:  # Huber's loss follows no point far, and plain weights cover
        weights = resamples.raised(data.of_points(1).leverage(best, resamples.units))
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
    law, x, y = data.law, data.x, data.y.values
    tried = minimise(data.of_points(len(begin := _starts(data, options))), begin)
    if not np.isfinite(tried.cost).any():
        raise LawError(
            f"law {law.name!r} is not finite at any of {len(begin)} starts; check the values ({y.min():.4g} to "
            f"{y.max():.4g}) and the units of {', '.join(x)}"
        )
    return tried


def _starts(data: StepData, options: Options) -> Floats:
    """Return the starts (S, p) that the source of the law prescribes, or generic ones."""
    if options.starts == PUBLISHED:
        return published_starts(data.law)
    x = {k: v.values for k, v in data.x.items()}
    rng = np.random.default_rng(options.seed)
    begin = generic_starts(data.law, data.y.values, x, int(options.starts), rng)
    return project(data.law, begin, x, data.y.values, data.objective)


def _of_points(data: StepData, tried: Solution, units: Ints) -> StepFit:
    """Return the fit to all points, without resamples; anchors count as points of the scatter, as in the fit."""
    problem, first = data.of_points(1), int(np.argmin(tried.cost))
    best = tried.params[first]
    floor = 1e-12 * float(np.abs(problem.target).max()) ** 2 / data.delta**2
    agree = tried.cost <= tried.cost.min() * (1 + AGREE) + floor
    free = int(((best > problem.lower) & (best < problem.upper)).sum())
    parameters = dict(zip(data.law.parameters, map(float, best), strict=True))
    residuals, groups = data.residuals(parameters), len(set(units))
    dof = freedom(len(residuals), free, groups)
    scatter = residual_scatter(residuals, free, shared(residuals[: data.n], units), groups) if dof else 0.0
    return StepFit(
        law=data.law,
        parameters=parameters,
        stderr={},
        draws=best[None],
        objective=data.objective.name,
        cost=float(tried.cost.min() * data.delta**2),
        scatter=scatter if data.trials is None else _beyond_counts(scatter, data.trials),
        trials=0 if data.trials is None else int(np.median(data.trials[: data.n])),
        dof=dof,
        n=data.n,
        rank=problem.rank(best),
        starts=len(tried.cost),
        agree=int(agree.sum()),
        domain={k: (float(v.values[: data.n].min()), float(v.values[: data.n].max())) for k, v in data.x.items()},
        converged=bool(tried.converged[first] or tried.cost[first] < EXACT * float(np.square(problem.target).sum())),
    )


def residual_scatter(residuals: Floats, free: int, share: float, units: int) -> float:
    """Return the standard deviation behind residuals (n,) of which free parameters have taken their part.

    Of the `share` of variance that is common to a unit they have taken up to G - free of G parts, of the rest n - free
    of n.
    """
    n = len(residuals)
    taken = share * units / max(units - free, 1) + (1 - share) * n / max(n - free, 1)
    return float(np.sqrt(np.mean(residuals**2) * taken))


def _beyond_counts(scatter: float, trials: Floats) -> float:
    """Return the root of rho, by which deviance residuals vary more than those of counts do (method of moments)."""
    return float(np.sqrt(max(scatter**2 - 1, 0.0) / max(float(np.mean(trials)) - 1, 1.0)))
