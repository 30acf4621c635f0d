"""Warnings attached to a fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.errors import choose
from harness.fitting.columns import column
from harness.fitting.fitted_formula import StepFit
from harness.fitting.laws import bounds
from harness.fitting.objectives import objective_of
from harness.fitting.procedures import ProcedureFit
from harness.fitting.runs import ORDER
from harness.types import Floats, Ints
from harness.types.laws import traits

if TYPE_CHECKING:
    from harness.fitting.fit_view import FitView
    from harness.fitting.ladder import Ladder

FEW_RUNS = 5
REVERSAL = 3.0  # standard errors by which a value must turn back before the trend counts as not monotone
TURN = 3  # points that must have left the floor of a second step before its inflection point counts as observed
FLOOR_AT = 10.0  # factor above the largest fitted loss at which the floor of a second step is evaluated
NEAR = 2.0  # standard errors within which a value counts as chance
TESTED = 3  # points minus parameters from which on a constant is tested against the law
UNSURE = 0.05  # p value above which a constant fits as well as a law
SAME_LENGTH = 0.99  # share of the longest training, or of the largest compute, from which on runs count as equally long
FAR = 10.0  # extrapolation factor above which a warning is given


def warn(fit: FitView, ladder: Ladder) -> Iterator[str]:
    """Yield the warnings of a fit to a ladder."""
    for step in fit.steps:
        yield from step.doubts() if isinstance(step, ProcedureFit) else _of_step(step)
    yield from _of_sample(fit)
    ladder = _seen(fit, ladder)
    y = ladder.arrays[fit.value] if ladder.arrays else column(ladder.points, fit.value)
    yield from _of_flat(fit, y, ladder.points)
    yield from _of_trend(fit, ladder)
    yield from _of_largest(fit, y, ladder)
    if len(fit.steps) > 1:
        yield from _of_turn(fit, y)
    yield from _of_target(fit)


def of_families(fit: FitView) -> Iterator[str]:
    """Warn if points of several families were fitted together with a law that does not distinguish families."""
    law, points = fit.steps[0].law, fit.points
    if points is None or "family" not in points.columns or traits(law).pools or "family" in fit.features:
        return
    names = sorted(set(points["family"][~points["is_held_out"]].dropna().astype(str)))
    if len(names) > 1:
        yield (
            f"points of {len(names)} families ({choose(names)}) were fitted together, as if they were one; "
            "harness.fit_families fits each of them"
        )


def without_freedom(fit: FitView) -> str:
    """Return why a step of a fit has no residual degree of freedom and what to do, "" if all steps have one."""
    step = next((step for step in fit.steps if not step.dof), None)
    if step is None:
        return ""
    if fit.runs > 1 or step.n <= len(step.parameters):
        return (
            f"{step.n} points leave {step.law.name} no degree of freedom, so that its intervals are unknown; choose a "
            "law with fewer parameters"
        )
    how = f", as runs are distinguished by {', '.join(fit.told_apart)}" if fit.told_apart else ""
    return (
        f"{step.n} points of one run{how}, leave {step.law.name} no degree of freedom, so that its intervals are "
        "unknown; if they are several runs, name the column that distinguishes them with --run"
    )


def _seen(fit: FitView, ladder: Ladder) -> Ladder:
    """Return the points of the last step that have a value; some laws also learn from points without one."""
    rows = ladder.rows[-1] if ladder.rows else None
    ladder = ladder if rows is None else ladder.at(rows)
    unscored = traits(fit.steps[0].law).uses_unscored
    return ladder.at(ladder.points[fit.value].notna().to_numpy()) if unscored else ladder


def _of_step(step: StepFit) -> Iterator[str]:
    """Yield the warnings of one formula; a bound that an anchor implies (accuracy 1 at loss 0) is not reported."""
    lower, upper = bounds(step.law)
    implied = {float(value) for _, value in traits(step.law).anchors}
    for (name, value), low, high in zip(step.parameters.items(), lower, upper, strict=True):
        if value in (low, high) and value not in implied:
            yield f"{step.law.name}: {name} lies at its bound {value:g}; the points do not determine it"
    at_bound = sum(v in pair for v, pair in zip(step.parameters.values(), zip(lower, upper, strict=True), strict=True))
    if step.rank + at_bound < len(step.parameters):
        yield (
            f"{step.law.name}: the points determine {step.rank} of {len(step.parameters)} parameters; "
            "other values fit equally well, so extrapolations are meaningless"
        )
    if not step.converged:
        yield f"{step.law.name}: the optimiser stopped before it converged; increase --starts"
    if step.agree < 2:
        yield f"{step.law.name}: only {step.agree} of {step.starts} starts reach the best fit; a better fit may exist"


def _of_flat(fit: FitView, y: Floats, ladder: pd.DataFrame) -> Iterator[str]:
    """Warn if a constant describes the points as well as the law: equal values, chance level, or too much scatter."""
    if len(y) > 2 and np.ptp(y) == 0:
        yield f"{fit.value} is {y[0]:g} at every size; there is no trend to extrapolate"
        return
    if {"chance", f"{fit.value}_stderr"} <= set(ladder.columns):
        off = np.abs(y - ladder["chance"]) / ladder[f"{fit.value}_stderr"]
        if (off < NEAR).all():
            yield f"{fit.value} lies within {NEAR:g} standard errors of chance at every point: there is no trend to fit"
            return
    step = fit.steps[-1]
    if isinstance(step, StepFit) and step.n - len(step.parameters) >= TESTED and (p := _constant(step, y)) > UNSURE:
        yield (
            f"{fit.value}: a constant fits as well as the law (F test, p = {p:.2g}), because the points are at chance, "
            "too noisy or too few; predictions are meaningless"
        )


def _constant(step: StepFit, y: Floats) -> float:
    """Return the p value of the F test of a constant (n,) against the law, after the objective's transform."""
    from scipy import stats

    objective = objective_of(step.law, step.objective)
    if objective.counts:
        return 0.0  # the scatter of counts is not a variance of residuals
    z = objective.forward(y)
    free, extra = step.n - len(step.parameters), len(step.parameters) - 1
    rest = step.scatter**2 * free
    more = float(np.square(z - z.mean()).sum()) - rest
    return float(stats.f.sf(max(more, 0.0) / extra / max(rest / free, 1e-300), extra, free)) if rest else 0.0


def _of_sample(fit: FitView) -> Iterator[str]:
    if fit.runs < FEW_RUNS:
        yield f"{fit.runs} runs: intervals from so few runs are approximate and usually too narrow"
    for step in fit.steps:
        if step.dof == 0:
            yield (
                f"{step.law.name}: no residual degrees of freedom (as many free parameters as points, or points of one "
                "run or seed only), so standard errors cannot be estimated"
            )


def rungs(ladder: Ladder, family_rows: Ints) -> tuple[Floats, Floats]:
    """Return values (k,) and standard errors (k,) of the last checkpoints of each size, by size; none without sizes.

    `family_rows` are the rows of one family. The runs of a size that were trained longest are averaged.
    """
    points, numbers, value = ladder.points, ladder.numbers, ladder.columns[-1]
    key = next((k for k in ("size", "params") if k in points.columns), None)
    by = next((k for k in ("params", "flops") if k in points.columns), None)
    if key is None or by is None:
        return np.empty(0), np.empty(0)
    last = family_rows[ladder.runs.ends()[family_rows]]
    length = next((numbers[k][last] for k in ORDER if k in numbers and np.isfinite(numbers[k][last]).all()), None)
    if length is not None:
        longest = pd.Series(length).groupby(points[key].to_numpy()[last]).transform("max").to_numpy()
        last = last[length >= SAME_LENGTH * longest]
    errors = points[f"{value}_stderr"].to_numpy(np.float64)[last] if f"{value}_stderr" in points else np.nan
    columns = {
        "scale": numbers[by][last],
        "value": numbers[value][last],
        "square": np.nan_to_num(errors) ** 2,
        "n": 1.0,
    }
    sizes = pd.DataFrame(columns).groupby(points[key].to_numpy()[last])
    mean, total = sizes.mean(), sizes.sum()
    order = np.argsort(mean["scale"].to_numpy(), kind="stable")
    return mean["value"].to_numpy()[order], (np.sqrt(total["square"]) / total["n"]).to_numpy()[order]


def _families(ladder: pd.DataFrame) -> list[tuple[str, Ints]]:
    """Return the rows of each family with the prefix of its warnings, which is empty for a single family."""
    rows = pd.Series(np.arange(len(ladder)))
    if "family" not in ladder.columns or ladder["family"].nunique(dropna=False) < 2:
        return [("", rows.to_numpy())]
    return [
        (f"{name}: ", family_rows.to_numpy())
        for name, family_rows in rows.groupby(ladder["family"].to_numpy(), dropna=False)
    ]


def _of_trend(fit: FitView, ladder: Ladder) -> Iterator[str]:
    """Warn of the largest reversal of each family that exceeds noise; laws of several features have no single order."""
    if len(fit.features) > 1:
        return
    for name, family_rows in _families(ladder.points):
        values, errors = rungs(ladder, family_rows)
        if len(values) < 3 or np.ptp(values) == 0:
            continue
        signed = values if values[-1] >= values[0] else -values
        back = signed[:, None] - signed[None, :]  # back[i, j] > 0 for i < j: the value turned back
        noise = np.sqrt(errors**2 + errors[:, None] ** 2)
        later = np.triu(np.ones_like(back, dtype=bool), 1)
        beyond = (back > REVERSAL * noise) & (back > 0.05 * np.ptp(values)) & later
        if beyond.any():
            i, j = np.unravel_index(np.argmax(np.where(beyond, back, -np.inf)), back.shape)
            yield (
                f"{name}the trend is not monotone: {fit.value} goes from {values[i]:.3g} to {values[j]:.3g} between "
                f"sizes {i + 1} and {j + 1}; do not extrapolate it with this law"
            )


def _of_largest(fit: FitView, y: Floats, ladder: Ladder) -> Iterator[str]:
    """Warn if the points of the largest compute deviate from the law by more than the scatter of the others."""
    points, known = ladder.points, ladder.arrays
    if "flops" not in points.columns:
        return
    compute = ladder.numbers["flops"]  # unknown (NaN) in some rows, unless the law uses it
    x = {name: known[name] for name in fit.features} if known else fit.steps[0].read(points)
    stderr = points.get(f"{fit.value}_stderr", pd.Series(0.0, index=points.index)).to_numpy(dtype=float)
    for name, of_family in _families(points):
        family_rows = of_family[np.isfinite(compute[of_family])]
        flops = compute[family_rows]
        if not len(family_rows):
            continue
        top = flops >= SAME_LENGTH * flops.max()
        if len(family_rows) < 5 or (~top).sum() < 2:
            continue
        residuals = y[family_rows] - fit.curve({feature: values[family_rows] for feature, values in x.items()})
        off, scatter = float(residuals[top].mean()), float(np.sqrt(np.mean(residuals[~top] ** 2)))
        errors = np.nan_to_num(stderr[family_rows])
        error = float(np.sqrt((errors[top] ** 2).sum())) / int(top.sum())
        if abs(off) > REVERSAL * float(np.hypot(scatter, error)):
            meaning = "the law breaks there" if top.sum() > 1 else "one point cannot distinguish a break from noise"
            yield f"{name}the largest size is {off:+.3g} off the law, the others {scatter:.2g} (RMS): {meaning}"


def _of_turn(fit: FitView, y: Floats) -> Iterator[str]:
    """Warn if the second step was fitted at its floor only, or is extrapolated further than its fitted range."""
    step, name = fit.steps[-1], fit.steps[-1].law.features[0]
    low, high = step.domain[name]
    floor = float(step.value({name: np.array([FLOOR_AT * high])})[0])
    left = int((np.abs(y - floor) > REVERSAL * step.scatter).sum())
    if left < TURN:
        yield (
            f"{step.law.name}: only {left} of {step.n} points have left the floor {floor:.3g}, so the inflection point "
            "is poorly determined, and intervals are unreliable"
        )
    seen = step.value({name: np.array([low, high])})
    predicted = np.array([row["predicted"] for row in fit.hold_out])
    if len(predicted) and (np.abs(predicted - seen[0]) > np.ptp(seen)).any() and np.ptp(seen) > 0:
        yield (
            f"{step.law.name}: the predicted change beyond the last fitted value ({seen[0]:.3g}) exceeds the "
            "change over all fitted values; intervals are probably too narrow"
        )


def _of_target(fit: FitView) -> Iterator[str]:
    if not fit.hold_out:
        return
    beyond = max(float(row["beyond"]) for row in fit.hold_out)
    if beyond > FAR:
        yield f"the held-out points lie {beyond:.3g} times beyond the fitted range"
    if beyond == 1:
        yield "all held-out points lie inside the fitted range: their errors measure interpolation"
    yield from _of_constant(fit)
    outside = sum(row["inside"] is False for row in fit.hold_out)
    if outside:
        yield f"{outside} of {len(fit.hold_out)} held-out points lie outside the {fit.options.level:.0%} interval"


def against_constant(fit: FitView) -> tuple[float, float, float]:
    """Return the mean squared error of held-out points, that of their mean as prediction, and R2 (NaN if all equal)."""
    measured = np.array([row["measured"] for row in fit.hold_out])
    error, constant = float(np.mean([row["error"] ** 2 for row in fit.hold_out])), float(measured.var())
    return error, constant, 1 - error / constant if constant else float("nan")


def _of_constant(fit: FitView) -> Iterator[str]:
    """Warn if the law predicts two or more held-out points worse than their mean does."""
    if fit.scores.r2 < 0 or (pools_many(fit) and not against_constant(fit)[2] >= 0):
        yield "the law predicts the held-out points worse than their mean does (R2 < 0)"


def pools_many(fit: FitView) -> bool:
    """Return whether all families were fitted together and enough points are held out to compute R2."""
    return traits(fit.steps[0].law).pools and len(fit.hold_out) >= FEW_RUNS
