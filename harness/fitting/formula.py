"""Fit one formula, or two in sequence: from many starts to all points, then to all resamples at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from harness.errors import LawError
from harness.fitting.columns import trials
from harness.fitting.fitted_formula import StepFit, half_width
from harness.fitting.ladder import Ladder
from harness.fitting.objectives import objective_of
from harness.fitting.options import PUBLISHED, Options
from harness.fitting.problem import Sampled, StepData
from harness.fitting.resampling import Resamples, freedom, shared
from harness.fitting.solver import Effort, Solution, minimise
from harness.fitting.starts import generic_starts, project, published_starts
from harness.types import Floats, Ints
from harness.types.laws import ComposedLaw, FormulaLaw

RESAMPLE_ITERATIONS = 60  # resamples start at the best fit, so that nearly all converge earlier
EXACT = 1e-9  # share of the sum of squares below which a cost counts as zero
AGREE = 1e-3  # relative difference from the best cost up to which starts agree


@dataclass(frozen=True)
class Chain:
    """The steps of a law with the columns between them."""

    steps: tuple[FormulaLaw, ...]
    columns: tuple[str, ...]  # one per step

    @classmethod
    def of(cls, law: FormulaLaw | ComposedLaw, columns: tuple[str, ...]) -> Chain:
        """Return the steps of a law; a plain formula is a chain of one."""
        return cls(law.steps if isinstance(law, ComposedLaw) else (law,), columns)

    @property
    def via(self) -> str:
        """Return the column between the steps; "" for a plain formula."""
        return self.columns[0] if len(self.columns) > 1 else ""

    def negated(self, ladder: Ladder) -> bool:
        """Return whether the column between the steps has log-probabilities (all values <= 0)."""
        return bool(self.via) and bool((ladder.arrays[self.via] <= 0).all())

    def fit(self, ladder: Ladder, options: Options) -> tuple[StepFit, ...]:
        """Fit every step to measured points, or to its own rows of them; all steps share the resamples.

        If the steps have different rows, the second step gets the redrawn values of the first at their common rows and
        the measured values at others.
        """
        x, resamples = {name: Sampled(ladder.arrays[name]) for name in self.steps[0].features}, ladder.resamples
        sign = -1.0 if self.negated(ladder) else 1.0
        fits = []
        for number, (law, name) in enumerate(zip(self.steps, self.columns, strict=True)):
            signed = sign if name == self.via else 1.0
            values, chosen = ladder.arrays[name], ladder.rows[number] if ladder.rows else None
            y = Sampled(signed * values, signed * resamples.of(name, values))
            step_options = (
                options if number == len(self.steps) - 1 else replace(options, objective=options.step1_objective)
            )
            objective = objective_of(law, step_options.objective)
            counted = Sampled(trials(ladder.points, name)).at(chosen).values if objective.counts else None
            data = StepData.of(law, objective, {key: sampled.at(chosen) for key, sampled in x.items()}, y.at(chosen))
            step, data = fit_step(data.with_trials(counted), resamples.at(chosen), step_options)
            fits.append(step)
            after = self.steps[number + 1].features[0] if number + 1 < len(self.steps) else ""
            x = {after: y.replaced(chosen, data.points)} if after else {}
        return tuple(fits)


def fit_step(data: StepData, resamples: Resamples, options: Options) -> tuple[StepFit, StepData]:
    """Fit one formula: from many starts to all points, then from the best to every resample.

    Return the fit, and the resampled points for the next step.
    """
    tried = _search(data, options)
    fit = _of_points(data, tried, resamples.units)
    best = np.array(list(fit.parameters.values()))
    if resamples.noise is not None:
        data = data.redrawn(fit, resamples, resamples.noise)
    spread = float(np.square(data.objective.forward(data.y.values)).sum()) / data.delta**2
    effort = Effort(RESAMPLE_ITERATIONS, tolerance=1e-6, floor=1e-6 * spread)
    weights = resamples.weights
    if resamples.power and data.objective.delta is None:  # with Huber's loss, plain weights have the nominal coverage
        weights = resamples.raised(data.of_points(1).leverage(best, resamples.units))
    draws = minimise(data.of_resamples(weights), np.tile(best, (len(weights), 1)), effort).params
    is_redrawn = resamples.noise is not None
    errors = half_width(draws) if is_redrawn else draws.std(axis=0, ddof=1)  # outliers among redrawn points: robust
    stderr = errors if fit.dof else np.full(len(best), np.nan)
    known = dict(zip(data.law.parameters, map(float, stderr), strict=True))
    return replace(fit, draws=draws, stderr=known), data


def _search(data: StepData, options: Options) -> Solution:
    """Minimise from many starts; raise LawError if no start has a finite cost."""
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
    """Return the fit to all points, without resamples; the scatter includes the anchors."""
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
    """Return the standard deviation of the points, from residuals (n,) corrected for the free parameters.

    The `share` of variance that is common to a unit is corrected by G / (G - free), the rest by n / (n - free).
    """
    n = len(residuals)
    taken = share * units / max(units - free, 1) + (1 - share) * n / max(n - free, 1)
    return float(np.sqrt(np.mean(residuals**2) * taken))


def _beyond_counts(scatter: float, trials: Floats) -> float:
    """Return the square root of rho, the overdispersion of counts, from deviance residuals (method of moments)."""
    return float(np.sqrt(max(scatter**2 - 1, 0.0) / max(float(np.mean(trials)) - 1, 1.0)))
