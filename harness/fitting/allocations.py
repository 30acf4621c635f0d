"""Compute-optimal params and tokens, for any law of the loss in both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from harness.checkpoints.flops import training_flops
from harness.errors import LawError, choose
from harness.fitting.fit_view import FitView
from harness.fitting.fitted_formula import StepFit
from harness.fitting.laws import curve
from harness.fitting.procedures import ProcedureFit
from harness.tables import Range, Table
from harness.types import Floats
from harness.types.laws import Fitted, traits

SMALLEST = 1e3  # parameters of the smallest model, and tokens of the shortest run, in the search
GRID = 241  # models in the first search, evenly spaced in log params
ZOOM, ROUNDS = 21, 6  # models and number of the refined searches, each between the neighbours of the best model


def optimal(fit: FitView, flops: Sequence[float] | float, at: Mapping[str, float | str] | None = None) -> pd.DataFrame:
    """Return params and tokens, 6 N D = flops, of the smallest loss: one row per budget, with intervals.

    Columns: flops, params, params_low, params_high, tokens, tokens_low, tokens_high, then those of `predict` at the
    optimum. Intervals are quantiles of the optimum over resamples, at the level of the fit; `at` sets other features.
    Hoffmann et al. 2022, eq. 4, is the solution for their law only; this function searches the minimum of any law.
    Raises LawError for a law of other features, and if the loss has no minimum inside a budget.
    """
    step, rest = fit.steps[0], dict(at or {})
    if isinstance(step, ProcedureFit) and (of := traits(step.law).optimal):
        return pd.concat([_own(fit, step, of, float(budget)) for budget in np.atleast_1d(flops)], ignore_index=True)
    missing = set(step.law.features) - {"params", "tokens", *rest}
    if not isinstance(step, StepFit) or missing or not {"params", "tokens"} <= set(step.law.features):
        raise LawError(
            f"law {fit.law!r} is a function of {', '.join(step.law.features)}; an optimal allocation needs a formula "
            "of params and tokens, such as chinchilla" + (f", and values of {choose(missing)}" if missing else "")
        )
    return pd.concat([_budget(fit, step, float(budget), rest) for budget in np.atleast_1d(flops)], ignore_index=True)


def _budget(fit: FitView, step: StepFit, flops: float, rest: Mapping[str, float | str]) -> pd.DataFrame:
    best = np.array([list(step.parameters.values())])
    (params,) = _minimum(step, best, flops, rest)
    if not np.isfinite(params):
        raise LawError(
            f"law {fit.law!r} has no minimum of the loss at {flops:.4g} FLOPs: it decreases to the end of the search"
        )
    draws = _minimum(step, step.draws, flops, rest)
    tail = (1 - fit.options.level) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail]) if step.dof else (np.nan, np.nan)
    place = {"flops": flops, "params": params, "params_low": low, "params_high": high}
    ends = {"tokens": params, "tokens_low": high, "tokens_high": low}
    place |= {name: flops / training_flops(end, 1.0) for name, end in ends.items()}
    predicted = fit.predict(pd.DataFrame([{**place, **rest}]))
    return pd.DataFrame([place]).join(predicted.drop(columns=["params", "tokens"]))


def _own(
    fit: FitView, step: ProcedureFit, of: Callable[[Fitted, float], dict[str, float]], flops: float
) -> pd.DataFrame:
    """Return the optimum that a procedure computes itself, with an interval over its resamples."""
    place, tail = {"flops": flops}, (1 - fit.options.level) / 2
    draws = [of(draw, flops) for draw in step.draws]
    for name, value in of(step.fitted, flops).items():
        low, high = np.quantile([draw[name] for draw in draws], [tail, 1 - tail]) if draws else (np.nan, np.nan)
        place |= {name: value, f"{name}_low": low, f"{name}_high": high}
    predicted = fit.predict(pd.DataFrame([place]))
    return pd.DataFrame([place]).join(predicted.drop(columns=["params", "flops"]))


def _minimum(step: StepFit, draws: Floats, flops: float, rest: Mapping[str, float | str]) -> Floats:
    """Return the params (R,) of the smallest loss for parameters of the law (R, p); NaN at the end of the range."""
    low, high = np.log(SMALLEST), np.log(flops / training_flops(1.0, SMALLEST))
    if low >= high:
        raise LawError(f"{flops:.4g} FLOPs are too few to train a model of {SMALLEST:g} parameters on as many tokens")
    grid = np.broadcast_to(np.linspace(low, high, GRID), (len(draws), GRID))
    inner = np.ones(len(draws), dtype=bool)
    for turn in range(ROUNDS + 1):
        params = np.exp(grid)
        tokens = flops / training_flops(1.0, 1.0) / params
        others = {name: np.full(grid.shape, value) for name, value in rest.items()}
        loss = curve(step.law, draws, {"params": params, "tokens": tokens, **others})
        at = np.argmin(np.where(np.isfinite(loss), loss, np.inf), axis=1)
        if not turn:
            inner = (at > 0) & (at < GRID - 1)
        left, right = (grid[np.arange(len(grid)), np.clip(at + d, 0, grid.shape[1] - 1)] for d in (-1, 1))
        middle = (left + right) / 2
        grid = np.linspace(left, right, ZOOM, axis=1)
    return np.where(inner, np.exp(middle), np.nan)


def allocation_table(fits: Sequence[FitView], flops: float, at: Mapping[str, float | str]) -> Table:
    """Return the best split of a budget by each fit, as a table."""
    rows = []
    for fit in fits:
        (row,) = optimal(fit, flops, at).to_dict("records")
        ranges = [Range(row[n], row[f"{n}_low"], row[f"{n}_high"]) for n in ("params", "tokens")]
        value = Range(row["value"], row["low"], row["high"])
        rows.append((fit.labels.get("family", "-"), fit.law, *ranges, value, row["beyond"]))
    columns = ("family", "law", "params", "tokens", "predicted", "times beyond")
    notes = tuple(f"{fit.law}: {warning}" for fit in fits for warning in fit.warnings)
    return Table("optimum", f"Best use of {flops:.4g} FLOPs (6 N D)", columns, tuple(rows), notes)
