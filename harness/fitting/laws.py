"""Evaluate laws: curves, bounds, steps, options, and their row in listings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from harness.errors import UsageError, choose, suggest
from harness.types import Floats
from harness.types.json import JsonObject
from harness.types.laws import ComposedLaw, FormulaLaw, Law, ProcedureLaw, traits

Column = Floats | NDArray[np.object_]  # (n,) numbers, or text; (R, n) in resamples
FeatureValues = float | str | Sequence[float] | Sequence[str] | Column  # of points to predict


def configured(law: Law, options: JsonObject | None) -> Law:
    """Return a law with its options set; raise UsageError for an unknown option."""
    known = traits(law).options
    unknown = set(options or {}) - set(known)
    if unknown:
        raise UsageError(f"law {law.name!r} has no option {choose(unknown)}; {suggest(min(unknown), known)}")
    return replace(law, **options) if options else law  # type: ignore[type-var]  # a law with options is a dataclass


def clipped(law: FormulaLaw | ProcedureLaw, values: Floats) -> Floats:
    """Return values clipped to the range of the law."""
    low, high = traits(law).value_range
    return np.clip(values, low, high)


def bounds(law: FormulaLaw) -> tuple[Floats, Floats]:
    """Return lower and upper bounds (p,)."""
    pairs = np.array([law.parameters[name] for name in law.parameters], dtype=np.float64)
    return pairs[:, 0], pairs[:, 1]


def curve(law: FormulaLaw, params: Floats, features: Mapping[str, Column]) -> Floats:
    """Evaluate a formula with parameters (R, p) at features (n,) or (R, n); return (R, n).

    A formula that does not broadcast is called once per row.
    """
    columns = {name: params[:, j : j + 1] for j, name in enumerate(law.parameters)}
    n = np.broadcast_shapes(*(x.shape for x in features.values()))[-1]
    with np.errstate(all="ignore"):
        try:
            values = np.asarray(law.formula(**features, **columns), dtype=np.float64)
        except (ValueError, TypeError):
            values = np.empty(0)
        if values.shape == (len(params), n):
            return values
        rows = [_one(law, row, features, r) for r, row in enumerate(params)]
    return np.array([np.broadcast_to(row, (n,)) for row in rows])


def _one(law: FormulaLaw, params: Floats, features: Mapping[str, Column], row: int) -> Floats:
    row_features = {name: x if x.ndim == 1 else x[row if len(x) > 1 else 0] for name, x in features.items()}
    values = {name: float(value) for name, value in zip(law.parameters, params, strict=True)}
    return np.asarray(law.formula(**row_features, **values), dtype=np.float64)


def steps_of(law: Law) -> tuple[FormulaLaw | ProcedureLaw, ...]:
    """Return the steps of a law in order; a formula or a procedure is one step."""
    return law.steps if isinstance(law, ComposedLaw) else (law,)


def describe(law: Law) -> dict[str, str | list[str]]:
    """Return a row of `harness ls laws`: name, features, parameters and the first sentence of its docstring."""
    steps = steps_of(law)
    doc = (type(law).__doc__ or "").strip().splitlines()
    return {
        "law": law.name,
        "features": list(steps[0].features),
        "parameters": [name for step in steps for name in getattr(step, "parameters", ())],
        "about": doc[0] if doc else "",
    }
