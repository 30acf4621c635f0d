"""What a law is: a formula of features with bounded parameters, two of them one behind the other, or a procedure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from harness.errors import UsageError, choose, suggest
from harness.types import Floats

if TYPE_CHECKING:
    import pandas as pd


@runtime_checkable
class FormulaLaw(Protocol):
    """A law that is a formula of named features with bounded parameters.

    `guess(y=y, **features)` says where to begin, from points (n,). `formula(**features, **parameters)` takes features
    (n,) and parameters (R, 1), and gives (R, n). Optional attributes:

    - `objective`: a name of OBJECTIVES; least_squares by default;
    - `value_range`: lowest and highest possible value;
    - `anchors`: points it must also fit, pairs of features and value;
    - `example`: parameters of a typical case, for `harness.testing.check_law`;
    - `own_units`: the counts (flops, params, tokens) in whose units the formula has a scale of its own;
    - `linear`: the parameters in which the formula is linear ("linear"), or linear in their exponential ("log"), which
      starts then get by least squares, the others being given (variable projection, Golub and Pereyra 1973);
    - `published_starts`: a list of values for each parameter, whose product `starts="published"` begins from;
    - `derived`: a method from parameters (R, 1) to a mapping of further quantities (R, 1), printed with errors;
    - `prepare`: a method from points to points with the features that it computes from other columns;
    - `takes` and `source`: what points it takes, and where it is from, for `harness laws`;
    - `experimental`: why its formula is not to be relied on, said wherever it is listed or fitted.
    """

    @property
    def name(self) -> str:
        """The name by which it is registered."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of points that it is a function of."""
        ...

    @property
    def parameters(self) -> Mapping[str, tuple[float, float]]:
        """Lower and upper bound of each parameter, by the paper's letter."""
        ...

    @property
    def guess(self) -> Callable[..., Mapping[str, float]]:
        """Where to begin the search."""
        ...

    @property
    def formula(self) -> Callable[..., Floats]:
        """The values."""
        ...


@runtime_checkable
class ComposedLaw(Protocol):
    """Two laws one behind the other: the first gives `via` from features, the second the value from `via`.

    `via` names a column of points; log-probabilities (all values <= 0) are negated, so that it falls like a loss.
    """

    @property
    def name(self) -> str:
        """The name by which it is registered."""
        ...

    @property
    def steps(self) -> tuple[FormulaLaw, FormulaLaw]:
        """The two laws; the second has one feature."""
        ...

    @property
    def via(self) -> str:
        """The column between them."""
        ...


@dataclass(frozen=True)
class Fitted:
    """What a procedure found: parameters to print, `state` (JSON values and arrays) that predictions need, and notes.

    `free` counts what was fitted to the value; by default every parameter.
    """

    parameters: Mapping[str, float]
    state: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    free: int | None = None


@runtime_checkable
class ProcedureLaw(Protocol):
    """A law that is more than a formula: it is fitted in steps of its own.

    `fit(points, value, rng)` gets wide points, a row each, and returns a `Fitted`; `predict(fitted, points)` returns
    values (n,) at points that may have the features alone. Held-out points are never seen by `fit`, and every resample
    is fitted anew, so whatever is scaled, imputed or chosen belongs there. Both raise LawError for points that they
    cannot use.

    Optional attributes:

    - `needs`: columns that `fit` reads besides the features and the value;
    - `objective`, `value_range`: as of formulas; the scale on which scatter is alike, and the possible values;
    - `options`: name -> meaning; the law is then a dataclass with these fields, which `law_options` replace;
    - `pools`: True where all families are fitted together;
    - `uses_unscored`: True where `fit` also learns from points whose value is missing (NaN), which others refuse;
    - `baseline`: True where it is part of every back-test, even if it is flat;
    - `settled(fitted)`: the law as it is fitted to resamples, with what was chosen from the points kept;
    - `fit_all(tables, value, rng)`: a Fitted for each of many tables, where that is faster than one by one;
    - `resamples(points, value, fitted, rng)`: an iterator of Fitted, where units are not to be drawn with replacement;
    - `sample(fitted, points, rng)`: values (n,) as they would be measured, where scatter is not the same everywhere;
    - `optimal(fitted, flops)`: params and tokens of least loss at a budget, for `harness predict --optimal`;
    - `example()`: points whose column y it reproduces, for `harness.testing.check_law`.
    """

    @property
    def name(self) -> str:
        """The name by which it is registered."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of points that a prediction needs."""
        ...

    @property
    def fit(self) -> Callable[[pd.DataFrame, str, np.random.Generator], Fitted]:
        """Fit it to points."""
        ...

    @property
    def predict(self) -> Callable[[Fitted, pd.DataFrame], Floats]:
        """Predict values."""
        ...


Law = FormulaLaw | ComposedLaw | ProcedureLaw


def configured(law: Law, options: Mapping[str, Any] | None) -> Law:
    """Return a law with its options set; raise UsageError for one that it does not have."""
    known: Mapping[str, str] = getattr(law, "options", {})
    unknown = set(options or {}) - set(known)
    if unknown:
        raise UsageError(f"law {law.name!r} has no option {choose(unknown)}; {suggest(min(unknown), known)}")
    return replace(law, **options) if options else law  # type: ignore[type-var]  # a law with options is a dataclass


def clipped(law: FormulaLaw | ProcedureLaw, values: Floats) -> Floats:
    """Return values within the range that the law allows."""
    low, high = getattr(law, "value_range", (-np.inf, np.inf))
    return np.clip(values, low, high)


def bounds(law: FormulaLaw) -> tuple[Floats, Floats]:
    """Return lower and upper bounds (p,)."""
    pairs = np.array([law.parameters[name] for name in law.parameters], dtype=np.float64)
    return pairs[:, 0], pairs[:, 1]


def curve(law: FormulaLaw, params: Floats, features: Mapping[str, Floats]) -> Floats:
    """Evaluate a formula with parameters (R, p) at features (n,) or (R, n); return (R, n).

    A formula that does not broadcast is called once a row.
    """
    columns = {name: params[:, j : j + 1] for j, name in enumerate(law.parameters)}
    n = np.broadcast_shapes(*(x.shape for x in features.values()))[-1]
    with np.errstate(all="ignore"):
        try:
            found = np.asarray(law.formula(**features, **columns), dtype=np.float64)
        except (ValueError, TypeError):
            found = np.empty(0)
        if found.shape == (len(params), n):
            return found
        rows = [_one(law, row, features, r) for r, row in enumerate(params)]
    return np.array([np.broadcast_to(row, (n,)) for row in rows])


def _one(law: FormulaLaw, params: Floats, features: Mapping[str, Floats], row: int) -> Floats:
    own = {name: x if x.ndim == 1 else x[row if len(x) > 1 else 0] for name, x in features.items()}
    values = {name: float(value) for name, value in zip(law.parameters, params, strict=True)}
    return np.asarray(law.formula(**own, **values), dtype=np.float64)


def steps_of(law: Law) -> tuple[FormulaLaw | ProcedureLaw, ...]:
    """Return the formulas of a law in their order; a plain formula or a procedure is one step."""
    return law.steps if isinstance(law, ComposedLaw) else (law,)


def describe(law: Law) -> dict[str, Any]:
    """Return a line of `harness ls laws`: name, features, parameters and the first sentence of its docstring."""
    steps = steps_of(law)
    doc = (type(law).__doc__ or "").strip().splitlines()
    return {
        "law": law.name,
        "features": list(steps[0].features),
        "parameters": [name for step in steps for name in getattr(step, "parameters", ())],
        "about": doc[0] if doc else "",
    }
