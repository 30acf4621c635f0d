"""Columns of points by our names: renamed, filled in where they follow from others, and looked at for their units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness.errors import LawError, UsageError, choose
from harness.families import training_flops

FILLED = "6ND, filled in"  # the convention of FLOPs that were computed here
FEWEST = {"params": 1e4, "tokens": 1e5, "flops": 1e9}  # where the largest value lies below, the unit is wrong
WHAT = {"params": "parameters", "tokens": "training tokens", "flops": "training FLOPs"}


def renamed(points: pd.DataFrame, pairs: Sequence[str] = (), params_column: str | None = None) -> pd.DataFrame:
    """Return points with columns renamed as `theirs=ours` says, or computed where `theirs` is an expression.

    `tokens_b * 1e9=tokens` sets tokens; `params_column` names the column that counts as params. Raises UsageError for a
    pair or a column that is none.
    """
    found = points.copy()
    for pair in [*pairs, *([f"{params_column}=params"] if params_column else [])]:
        theirs, sign, ours = (part.strip() for part in pair.rpartition("="))
        if not (theirs and sign and ours.isidentifier()):
            raise UsageError(f"--map {pair!r}: expected THEIRS=OURS, such as n_params=params")
        found = found.assign(**{ours: _theirs(points, theirs)})
    return found


def _theirs(points: pd.DataFrame, theirs: str) -> pd.Series:
    if theirs in points.columns:
        return points[theirs]
    try:
        return pd.Series(points.eval(theirs), index=points.index)
    except Exception as error:  # pandas raises errors of many kinds for a bad expression
        there = choose(points.columns)
        raise UsageError(
            f"{theirs!r} is no column, and no expression of columns: {there}; --map is THEIRS=OURS, as n_params=params"
        ) from error


def completed(points: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return points with training FLOPs (6 N D) and rates (successes / trials) where they follow from other columns.

    FLOPs that are filled in have the convention FILLED.
    """
    found = points
    absent = "flops" not in found.columns or bool(found["flops"].isna().all())
    if absent and {"params", "tokens"} <= set(found.columns):
        params, tokens = (pd.to_numeric(found[name], errors="coerce") for name in ("params", "tokens"))
        found = found.assign(flops=training_flops(1.0, 1.0) * params * tokens, flops_convention=FILLED)
    if value not in found.columns and {"successes", "trials"} <= set(found.columns):
        found = found.assign(**{value: found["successes"] / found["trials"]})
    return found


def check_units(points: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise LawError where a count cannot be what its column says: tokens in billions, parameters in millions."""
    for name in set(names) & set(FEWEST) & set(points.columns):
        values = pd.to_numeric(points[name], errors="coerce").to_numpy(dtype=np.float64)
        most = float(np.nanmax(values)) if np.isfinite(values).any() else np.inf
        if 0 < most < FEWEST[name]:
            raise LawError(
                f"{name} are {np.nanmin(values):.4g} to {most:.4g}; expected {WHAT[name]}, which are more; where they "
                f"are counted in billions, say --map '{name} * 1e9={name}'"
            )
