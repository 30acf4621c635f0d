"""The kinds of laws: a formula with bounded parameters, two formulas in sequence, or a procedure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from harness.types import Floats

if TYPE_CHECKING:
    import pandas as pd

LEAST_SQUARES = "least_squares"
REQUIRED = {  # the attributes that every law of a kind has
    "formula": ("name", "features", "parameters", "guess", "formula"),
    "composed": ("name", "steps", "via"),
    "procedure": ("name", "features", "fit", "predict"),
}
SIMILAR = 0.8  # ratio of matching characters from which on a name counts as a misspelling


@runtime_checkable
class FormulaLaw(Protocol):
    """A law that is a formula of named features with bounded parameters.

    `guess(y=y, **features)` returns starting values from points (n,). `formula(**features, **parameters)` takes
    features (n,) and parameters (R, 1), and returns (R, n). Optional attributes are those of `Traits`.
    """

    @property
    def name(self) -> str:
        """The name by which it is registered."""
        ...

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of points that are its arguments."""
        ...

    @property
    def parameters(self) -> Mapping[str, tuple[float, float]]:
        """Lower and upper bound of each parameter, by the paper's letter."""
        ...

    @property
    def guess(self) -> Callable[..., Mapping[str, float]]:
        """Starting values of the search."""
        ...

    @property
    def formula(self) -> Callable[..., Floats]:
        """The predicted values."""
        ...


@runtime_checkable
class ComposedLaw(Protocol):
    """Two laws in sequence: the first predicts `via` from features, the second predicts the value from `via`.

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
    """The result of a procedure: parameters to print, `state` (JSON values and arrays) for predictions, and notes.

    `free` is the number of free parameters (default: all parameters).
    """

    parameters: Mapping[str, float]
    state: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    free: int | None = None


@runtime_checkable
class ProcedureLaw(Protocol):
    """A law that is a procedure instead of a formula, with its own fit.

    `fit(points, value, rng)` gets wide points, one row per point, and returns a `Fitted`. `predict(fitted, points)`
    returns values (n,) at points that may have only the features. `fit` never gets held-out points, and runs again on
    every resample. Scaling, imputation and choices must therefore be part of `fit`. Both methods raise LawError for
    points that they cannot use.

    Optional attributes are those of `Traits`.
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


@dataclass(frozen=True)
class Traits:
    """The optional attributes of a law. A law sets those that it needs; `traits` reads them.

    Of every law:

    - `objective`: name of the objective, which is the scale on which the scatter is constant;
    - `value_range`: smallest and largest possible value;
    - `takes`, `source`: the points that the law accepts and its publication, for `harness laws`;
    - `avoid`: when not to use the law, for `harness docs laws`;
    - `experimental`: reason why the formula is unreliable, printed wherever the law is listed or fitted;
    - `baseline`: True if the law is part of every back-test, even if it is flat;
    - `example`: of a formula, the parameters of a typical case; of a procedure, a method that returns points whose
      column y the law reproduces. `harness.testing.check_law` uses it.

    Of formulas:

    - `anchors`: points that the curve must also fit, as pairs of features and value;
    - `own_units`: counts (flops, params, tokens) in whose units the formula has a fixed scale;
    - `linear`: parameters in which the formula is linear ("linear") or linear in their exponential ("log"). Starting
      points get them by least squares, given the others (variable projection, Golub and Pereyra 1973);
    - `published_starts`: values of each parameter, whose product is used with `starts="published"`;
    - `derived`: a method from parameters (R, 1) to a mapping of further quantities (R, 1), printed with errors;
    - `prepare`: a method from points to points with the features that it computes from other columns.

    Of procedures:

    - `needs`: columns that `fit` reads besides the features and the value;
    - `options`: name -> meaning; the law is then a dataclass with these fields, which `law_options` replace;
    - `pools`: True if all families are fitted together;
    - `uses_unscored`: True if `fit` also learns from points whose value is missing (NaN), which other laws reject;
    - `settled(fitted)`: the law to fit to resamples, with the choices made on the points fixed;
    - `fit_all(tables, value, rng)`: one Fitted per table, where this is faster than one by one;
    - `resamples(points, value, fitted, rng)`: an iterator of Fitted, None for one that cannot be fitted, where units
      must not be drawn with replacement;
    - `sample(fitted, points, rng)`: values (n,) with measurement scatter, where the scatter is not constant;
    - `optimal(fitted, flops)`: params and tokens of the smallest loss at a budget, for `harness predict --optimal`.
    """

    objective: str = LEAST_SQUARES
    value_range: tuple[float, float] = (-np.inf, np.inf)
    takes: str = ""
    source: str = ""
    avoid: str = ""
    experimental: str = ""
    baseline: bool = False
    example: Mapping[str, float] | Callable[[], pd.DataFrame] | None = None
    anchors: Sequence[tuple[Mapping[str, float], float]] = ()
    own_units: Sequence[str] = ()
    linear: Mapping[str, str] = field(default_factory=dict)
    published_starts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    derived: Callable[..., Mapping[str, Floats]] | None = None
    prepare: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    needs: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    pools: bool = False
    uses_unscored: bool = False
    settled: Callable[[Fitted], ProcedureLaw] | None = None
    fit_all: Callable[[Sequence[pd.DataFrame], str, np.random.Generator], Iterable[Fitted]] | None = None
    resamples: Callable[[pd.DataFrame, str, Fitted, np.random.Generator], Iterator[Fitted | None]] | None = None
    sample: Callable[[Fitted, pd.DataFrame, np.random.Generator], Floats] | None = None
    optimal: Callable[[Fitted, float], dict[str, float]] | None = None


NAMES = tuple(trait.name for trait in fields(Traits))


def traits(law: object) -> Traits:
    """Return the optional attributes of a law, with the defaults of those that it does not set."""
    return Traits(**{name: getattr(law, name) for name in NAMES if hasattr(law, name)})


def misspelt(law: object, kind: str) -> Iterator[tuple[str, str]]:
    """Yield attributes of a law that are not in the contract, with the similar name of the contract that it lacks."""
    contract = {*REQUIRED[kind], *NAMES}
    others = {name for name in dir(law) if not name.startswith("_")} - contract - set(traits(law).options)
    lacking = sorted(name for name in contract if not hasattr(law, name))
    for name in sorted(others):
        for meant in get_close_matches(name, lacking, n=1, cutoff=SIMILAR):
            yield name, meant
