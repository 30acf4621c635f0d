"""What a fit should make its reader doubt, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.ladders import column
from harness.laws import bounds
from harness.objectives import objective_of
from harness.procedures import ProcedureFit
from harness.steps import StepFit
from harness.types import Floats

if TYPE_CHECKING:
    from harness.lawfits import LawFit

FEW_RUNS = 5
REVERSAL = 3.0  # standard errors by which a value must turn back before the trend counts as not monotone
TURN = 3  # points that must have left the floor of a second step before its turn counts as seen
BEHIND = 10.0  # factor beyond the largest loss fitted where a second step is taken to be at its floor
NEAR = 2.0  # standard errors within which a value counts as chance
TESTED = 3  # points more than parameters from which on a constant is tested against the law
UNSURE = 0.05  # p value above which a constant does as well as a law
FAR = 10.0  # extrapolation by more than this factor is said


def warn(fit: LawFit, ladder: pd.DataFrame, target: pd.DataFrame) -> Iterator[str]:
    """Yield the warnings of a fit."""
    for step in fit.steps:
        yield from step.doubts() if isinstance(step, ProcedureFit) else _of_step(step)
    yield from _of_sample(fit)
    ladder = _scored(fit, ladder)
    yield from _of_flat(fit, ladder)
    yield from _of_trend(fit, ladder)
    yield from _of_largest(fit, ladder)
    if len(fit.steps) > 1:
        yield from _of_turn(fit, ladder)
    yield from _of_target(fit, target)


def _scored(fit: LawFit, ladder: pd.DataFrame) -> pd.DataFrame:
    """Return the points that have a value; a law may learn from others too."""
    return ladder[ladder[fit.value].notna()] if getattr(fit.steps[0].law, "uses_unscored", False) else ladder


def _of_step(step: StepFit) -> Iterator[str]:
    """A bound that an anchor implies is none to warn of: where accuracy is 1 at loss 0, its upper end is 1."""
    lower, upper = bounds(step.law)
    implied = {float(value) for _, value in getattr(step.law, "anchors", ())}
    for (name, value), low, high in zip(step.parameters.items(), lower, upper, strict=True):
        if value in (low, high) and value not in implied:
            yield f"{step.law.name}: {name} lies at its bound {value:g}; the points do not determine it"
    at_bound = sum(v in pair for v, pair in zip(step.parameters.values(), zip(lower, upper, strict=True), strict=True))
    if step.rank + at_bound < len(step.parameters):
        yield (
            f"{step.law.name}: the points determine {step.rank} of {len(step.parameters)} parameters; "
            "other values fit as well, and predictions far away mean nothing"
        )
    if not step.converged:
        yield f"{step.law.name}: the search for the best fit was cut off before it ended; try more --starts"
    if step.agree < 2:
        yield f"{step.law.name}: only {step.agree} of {step.starts} starts reach the best fit; a better one may exist"


def _of_flat(fit: LawFit, ladder: pd.DataFrame) -> Iterator[str]:
    """Say when the points say no more than one constant would: all at chance, or lost in their scatter."""
    y = column(ladder, fit.value)
    if len(y) > 2 and np.ptp(y) == 0:
        yield f"{fit.value} is {y[0]:g} at every size; there is no trend to extrapolate"
        return
    if {"chance", f"{fit.value}_stderr"} <= set(ladder.columns):
        off = np.abs(y - ladder["chance"]) / ladder[f"{fit.value}_stderr"]
        if (off < NEAR).all():
            yield f"{fit.value} lies within {NEAR:g} standard errors of chance at every point; nothing is learnt yet"
            return
    step = fit.steps[-1]
    if isinstance(step, StepFit) and step.n - len(step.parameters) >= TESTED and (p := _constant(step, y)) > UNSURE:
        yield (
            f"{fit.value}: a constant fits as well as the law (F test, p = {p:.2g}); at chance, too noisy or too few "
            "points: predictions mean nothing"
        )


def _constant(step: StepFit, y: Floats) -> float:
    """Return the p value of the F test of a constant (n,) against the law, after the objective's transform."""
    from scipy import stats

    objective = objective_of(step.law, step.objective)
    if objective.counts:
        return 0.0  # their scatter is no variance of residuals
    z = objective.forward(y)
    free, extra = step.n - len(step.parameters), len(step.parameters) - 1
    rest = step.scatter**2 * free
    more = float(np.square(z - z.mean()).sum()) - rest
    return float(stats.f.sf(max(more, 0.0) / extra / max(rest / free, 1e-300), extra, free)) if rest else 0.0


def _of_sample(fit: LawFit) -> Iterator[str]:
    if fit.runs < FEW_RUNS:
        yield f"{fit.runs} runs: intervals from so few are rough, and usually too narrow"
    for step in fit.steps:
        if step.dof == 0:
            yield (
                f"{step.law.name}: as many free parameters as points, or points of one run or seed only; nothing is "
                "left to tell an error from"
            )


def rungs(ladder: pd.DataFrame, value: str) -> tuple[Floats, Floats]:
    """Return values (k,) and standard errors (k,) of the last checkpoint of each size, by size; none without sizes."""
    key = next((k for k in ("size", "params") if k in ladder.columns), None)
    by = next((k for k in ("params", "flops") if k in ladder.columns), None)
    if key is None or by is None:
        return np.empty(0), np.empty(0)
    order = ladder.sort_values([by] + [k for k in ("tokens", "step") if k in ladder.columns], kind="stable")
    last = order.groupby(key, sort=False).tail(1)
    errors = last.get(f"{value}_stderr", pd.Series(np.nan, index=last.index))
    return column(last, value), np.asarray(errors, dtype=np.float64)


def _of_trend(fit: LawFit, ladder: pd.DataFrame) -> Iterator[str]:
    """Find the largest step back against the overall direction, beyond noise; two features have no one order."""
    values, errors = rungs(ladder, fit.value)
    if len(values) < 3 or len(fit.features) > 1 or np.ptp(values) == 0:
        return
    signed = values if values[-1] >= values[0] else -values
    back = signed[:, None] - signed[None, :]  # back[i, j] > 0 for i < j: the value turned back
    noise = np.sqrt(np.nan_to_num(errors) ** 2 + np.nan_to_num(errors)[:, None] ** 2)
    beyond = (back > REVERSAL * noise) & (back > 0.05 * np.ptp(values)) & np.triu(np.ones_like(back, dtype=bool), 1)
    if beyond.any():
        i, j = np.unravel_index(np.argmax(np.where(beyond, back, -np.inf)), back.shape)
        yield (
            f"the trend is not monotone: {fit.value} goes from {values[i]:.3g} to {values[j]:.3g} between sizes "
            f"{i + 1} and {j + 1}; do not extrapolate it with this law"
        )


def _of_largest(fit: LawFit, ladder: pd.DataFrame) -> Iterator[str]:
    """Say when the largest rung leaves the law by more than the others' scatter."""
    if "flops" not in ladder.columns or len(ladder) < 5:
        return
    ordered = ladder.sort_values("flops", kind="stable")
    residuals = column(ordered, fit.value) - fit.curve(fit.steps[0].read(ordered))
    scatter = float(np.sqrt(np.mean(residuals[:-1] ** 2)))
    error = float(np.nan_to_num(ordered.get(f"{fit.value}_stderr", pd.Series([0.0])).iloc[-1]))
    if abs(residuals[-1]) > REVERSAL * float(np.hypot(scatter, error)):
        yield (
            f"the largest rung lies {residuals[-1]:+.3g} off the law, the others within {scatter:.2g}: "
            "the law breaks there"
        )


def _of_turn(fit: LawFit, ladder: pd.DataFrame) -> Iterator[str]:
    """Say when the second of two steps was fitted where hardly anything happens yet, or is followed far beyond it."""
    step, name = fit.steps[-1], fit.steps[-1].law.features[0]
    low, high = step.domain[name]
    floor = float(step.value({name: np.array([BEHIND * high])})[0])
    left = int((np.abs(column(ladder, fit.value) - floor) > REVERSAL * step.scatter).sum())
    if left < TURN:
        yield (
            f"{step.law.name}: {left} of {step.n} points have left {floor:.3g}, where it begins; where it turns is a "
            "guess, and so are its intervals"
        )
    seen = step.value({name: np.array([low, high])})
    predicted = np.array([row["predicted"] for row in fit.hold_out])
    if len(predicted) and (np.abs(predicted - seen[0]) > np.ptp(seen)).any() and np.ptp(seen) > 0:
        yield (
            f"{step.law.name}: the held-out points are predicted further from the last value fitted ({seen[0]:.3g}) "
            "than this one is from the first; expect intervals that are too narrow"
        )


def _of_target(fit: LawFit, target: pd.DataFrame) -> Iterator[str]:
    if target.empty:
        return
    beyond = float(fit.predict(target)["beyond"].max())
    if beyond > FAR:
        yield f"the held-out points lie {beyond:.3g} times beyond those fitted"
    if beyond == 1:
        yield "all held-out points lie inside the range fitted: their errors are those of interpolation"
    yield from _of_constant(fit)
    outside = sum(row["inside"] is False for row in fit.hold_out)
    if outside:
        yield f"{outside} of {len(fit.hold_out)} held-out points lie outside the {fit.options.level:.0%} interval"


def against_constant(fit: LawFit) -> tuple[float, float, float]:
    """Return the squared error of held-out points, that of their own mean, and R2; NaN where they are all alike."""
    measured = np.array([row["measured"] for row in fit.hold_out])
    error, constant = float(np.mean([row["error"] ** 2 for row in fit.hold_out])), float(measured.var())
    return error, constant, 1 - error / constant if constant else float("nan")


def _of_constant(fit: LawFit) -> Iterator[str]:
    """Say when a law of many models predicts those held out worse than a constant would."""
    if pools_many(fit) and not against_constant(fit)[2] >= 0:
        yield "the held-out points are predicted no better than by a constant, their mean (R2 < 0)"


def pools_many(fit: LawFit) -> bool:
    """Say whether models of all families were fitted together, and enough held out to tell R2 from."""
    return bool(getattr(fit.steps[0].law, "pools", False)) and len(fit.hold_out) >= FEW_RUNS
