"""The printed report of a fit, and the table of predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from harness.checkpoints.flops import training_flops
from harness.errors import UsageError, choose
from harness.fitting.earlier_sizes import coverage_at
from harness.fitting.fitted_formula import half_width
from harness.fitting.procedures import ProcedureFit
from harness.fitting.warnings import FAR, against_constant, pools_many
from harness.fitting.wide_points import FILLED, FILLED_TOKENS
from harness.tables import Range, Table, measured
from harness.types.laws import traits

if TYPE_CHECKING:
    from harness.fitting.fit_view import FitView
    from harness.fitting.fitted_formula import StepFit


def fit_report(fit: FitView) -> str:
    """Return the text of a fit: parameters with errors, how it was made, hold-out errors, warnings."""
    return "\n".join(_lines(fit))


def _lines(fit: FitView) -> Iterator[str]:
    names = ", ".join(f"{key} {fit.labels[key]}" for key in ("family", "task") if key in fit.labels)
    chain = f" via {'-' if fit.negated else ''}{fit.via}" if fit.via else ""
    yield f"{fit.law}: {fit.value} from {', '.join(fit.features)}{chain}" + (f"  ({names})" if names else "")
    for step in fit.steps:
        yield from _procedure_lines(step) if isinstance(step, ProcedureFit) else _step_lines(step)
    yield f"  {_runs(fit)}"
    o = fit.options
    resamples = f"{o.bootstrap} resamples of {o.resample} (seed {o.seed})"
    yield f"  intervals: {o.level:.0%}, {resamples} and scatter"
    for number, where in ((1, o.step1_where), (2, o.step2_where)):
        if where:
            yield f"  step {number} is fitted where: {where}"
    for row in fit.hold_out:
        yield (
            f"  held out {row['point']}: measured {measured(row['measured'], row['stderr'])}, "
            f"predicted {row['predicted']:.4f} [{row['low']:.4f}, {row['high']:.4f}], "
            f"error {row['error']:+.4f} ({row['beyond']:.3g}x beyond)"
        )
    if fit.hold_out:
        runs = fit.scores.clusters
        of_runs = f" ({runs} run{'s'[: runs != 1]})" if runs < len(fit.hold_out) else ""
        yield f"  held out{of_runs}: {fit.scores}"
    if fit.earlier:
        beyond = max((float(row["beyond"]) for row in fit.hold_out), default=None)
        yield f"  {coverage_at(fit.earlier, fit.options.level, beyond)}"
    if pools_many(fit):
        error, constant, r2 = against_constant(fit)
        yield f"  held out: mean squared error {error:.3g}, of predicting their mean {constant:.3g}; R2 {r2:.3g}"
    if fit.labels.get("flops_convention") == FILLED and "flops" in fit.features:
        yield "  note: the points have no flops; computed as 6 x params x tokens"
    if fit.labels.get("tokens_convention") == FILLED_TOKENS and "tokens" in fit.features:
        yield "  note: the points have no tokens; computed as flops / (6 x params)"
    yield from (f"  note: {note}" for note in fit.notes)
    for warning in fit.warnings:
        yield f"  warning: {warning}"


def _runs(fit: FitView) -> str:
    """Return the line on the number of runs and sizes, and the columns that identify runs."""
    sizes = "" if fit.sizes is None else f" of {fit.sizes} size{'s'[: fit.sizes != 1]}"
    if not fit.told_apart:
        return (
            f"runs: {fit.runs}{sizes}; every point counts as one, because no column run, size or step identifies runs"
        )
    return f"runs: {fit.runs}{sizes}, identified by {', '.join(fit.told_apart)}"


def _step_lines(step: StepFit) -> Iterator[str]:
    doc = (type(step.law).__doc__ or "").strip().splitlines()
    note = traits(step.law).experimental
    yield f"  {step.law.name}: {doc[0] if doc else ''}" + (f" [experimental: {note}]" if note else "")
    for name, value in step.parameters.items():
        yield f"    {name:<6} {measured(value, step.stderr[name])}"
    for name, (value, draws) in step.derived.items():
        yield f"    {name:<6} {measured(value, float(half_width(draws)) if step.dof else float('nan'))} (derived)"
    ranges = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in step.domain.items())
    yield (
        f"    {step.n} points, {ranges}; {step.objective} {step.cost:.4g}, scatter {step.scatter:.3g} "
        f"({step.dof} degrees of freedom); {step.agree} of {step.starts} starts agree"
    )


def _procedure_lines(step: ProcedureFit) -> Iterator[str]:
    doc = (type(step.law).__doc__ or "").strip().splitlines()
    yield f"  {step.law.name}: {doc[0] if doc else ''}"
    for name, value in step.parameters.items():
        yield f"    {name:<6} {measured(value, step.stderr[name])}"
    ranges = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in step.domain.items())
    yield (
        f"    {step.n} points, {ranges}; {step.objective} {step.cost:.4g}, scatter {step.scatter:.3g} "
        f"({step.dof} degrees of freedom); {len(step.draws)} of {len(step.draws) + step.failed} resamples fitted"
    )


def prediction_table(fits: Sequence[FitView], features: Mapping[str, float | str]) -> Table:
    """Return the prediction of one model by every fit; training FLOPs are 6 N D unless given.

    Raises UsageError if a feature of a law is missing.
    """
    known = dict(features)
    if "flops" not in known and {"params", "tokens"} <= set(known):
        known["flops"] = training_flops(float(known["params"]), float(known["tokens"]))
    rows, notes = [], []
    for fit in fits:
        missing = set(fit.features) - set(known)
        if missing:
            raise UsageError(
                f"the law {fit.law} needs {choose(missing)}; give --params and --tokens, --flops, or --at NAME=VALUE"
            )
        predicted = fit.predict(pd.DataFrame({name: [known[name]] for name in fit.features})).iloc[0]
        family, task = (fit.labels.get(key, "-") for key in ("family", "task"))
        rows.append(
            (
                family,
                task,
                fit.law,
                fit.value,
                Range(predicted["value"], predicted["low"], predicted["high"]),
                predicted["beyond"],
            )
        )
        counted = fit.labels.get("flops_convention", "6ND")
        if "flops" in fit.features and "flops" not in features and counted not in {"6ND", FILLED}:
            notes.append(
                f"{family}: its FLOPs follow {counted}, those of the prediction 6ND; pass --flops in its convention"
            )
        name = ", ".join(part for part in (family, task) if part != "-") or fit.law
        notes += [f"{name}: {said}" for said in _distance(fit, float(predicted["beyond"]))]
        notes += [f"{family}: {warning}" for warning in fit.warnings]
    at = ", ".join(
        f"{name} {value}" if isinstance(value, str) else f"{name} {value:.4g}" for name, value in known.items()
    )
    columns = ("family", "task", "law", "metric", "predicted", "times beyond")
    return Table("predictions", f"Predicted at {at}", columns, tuple(rows), tuple(notes))


def _distance(fit: FitView, beyond: float) -> Iterator[str]:
    """Yield the distance of a target from the fitted range, and the coverage of intervals at such a distance."""
    if beyond > FAR:
        ranges = ", ".join(f"{name} {low:.3g} to {high:.3g}" for name, (low, high) in fit.domain.items())
        yield f"the target lies {beyond:.3g} times beyond the fitted range ({ranges})"
    if beyond > 1:
        yield coverage_at(fit.earlier, fit.options.level, beyond)
