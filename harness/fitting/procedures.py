"""Fit procedures, once to all points and once to each resample of units, and predict with all fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from harness.errors import LawError, choose, suggest
from harness.fitting.columns import column, readable
from harness.fitting.formula import residual_scatter
from harness.fitting.laws import Column, clipped
from harness.fitting.objectives import objective_of
from harness.fitting.options import Options
from harness.fitting.resampling import Resamples, freedom, shared
from harness.types import Floats, Json
from harness.types.laws import Fitted, ProcedureLaw, traits

KEYS = {"fitted": "found"}  # attributes that have another name in files
FEW_FITS = 10  # resamples that must be fitted to compute intervals


@dataclass(frozen=True)
class ProcedureFit:
    """A fitted procedure, and its fits to the resamples (`draws`), of which `failed` could not be fitted.

    `scatter` is the standard deviation of the residuals after the objective's transform, over `dof` degrees of freedom;
    `domain` is the fitted range of each numeric feature.
    """

    law: ProcedureLaw
    fitted: Fitted
    stderr: Mapping[str, float]
    draws: tuple[Fitted, ...]
    failed: int
    objective: str
    cost: float
    scatter: float
    dof: int
    n: int
    domain: Mapping[str, tuple[float, float]]

    @property
    def parameters(self) -> Mapping[str, float]:
        """Return the fitted parameters."""
        return self.fitted.parameters

    def read(self, frame: pd.DataFrame) -> dict[str, Column]:
        """Return the features of points, (n,) each; numbers may be missing (NaN) if the law imputes them."""
        return {name: readable(frame, name) for name in self.law.features}

    def value(self, features: Mapping[str, Column]) -> Floats:
        """Return predictions (n,)."""
        return clipped(self.law, self.law.predict(self.fitted, pd.DataFrame(features)))

    def curves(self, features: Mapping[str, Column]) -> Floats:
        """Return the predictions of every resample (R, n)."""
        frame = pd.DataFrame(features)
        if not self.draws:
            return np.full((1, len(frame)), np.nan)
        return clipped(self.law, np.array([self.law.predict(draw, frame) for draw in self.draws]))

    def sample(self, features: Mapping[str, Column], rng: np.random.Generator) -> Floats:
        """Return simulated measurements (R, n): the predictions of each resample plus scatter."""
        simulate = traits(self.law).sample
        if simulate and self.draws:
            frame = pd.DataFrame(features)
            return clipped(self.law, np.array([simulate(draw, frame, rng) for draw in self.draws]))
        objective, curves = objective_of(self.law, self.objective), self.curves(features)
        noise = self.scatter * rng.standard_t(self.dof, size=(len(curves), 1)) if self.dof > 0 else np.nan
        with np.errstate(over="ignore", invalid="ignore"):  # t of one degree of freedom has no bounds
            return clipped(self.law, objective.inverse(objective.forward(curves) + noise))

    def doubts(self) -> Iterator[str]:
        """Yield the notes of the procedure, and the number of resamples that could not be fitted."""
        yield from (f"{self.law.name}: {note}" for note in self.fitted.notes)
        tried = self.failed + len(self.draws)
        if not self.draws:
            yield f"{self.law.name}: fewer than {FEW_FITS} of {tried} resamples could be fitted; there are no intervals"
        elif self.failed:
            yield f"{self.law.name}: {self.failed} of {tried} resamples could not be fitted; intervals use the others"

    def to_json(self) -> dict[str, Json]:
        """Return everything as JSON values; raise LawError for a state that a file cannot hold."""
        table = {**vars(self), "law": self.law.name, "fitted": asdict(self.fitted)}
        table["draws"] = [asdict(draw) for draw in self.draws]
        return {KEYS.get(name, name): _plain(value) for name, value in table.items()}

    @classmethod
    def from_json(cls, law: ProcedureLaw, table: Mapping[str, Any]) -> ProcedureFit:
        """Read it back."""
        read = {
            "law": law,
            "fitted": _fitted(table[KEYS["fitted"]]),
            "stderr": _numbers(table["stderr"]),
            "draws": tuple(_fitted(draw) for draw in table["draws"]),
            "domain": {name: (float(low), float(high)) for name, (low, high) in table["domain"].items()},
        }
        others = {name: value for name, value in table.items() if name not in KEYS.values()}
        return cls(**{**others, **read})


def _plain(value: object) -> Json:
    """Turn arrays into lists and NumPy's numbers into Python's, at any depth; raise LawError for other objects."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise LawError(f"the state of a law has a {type(value).__name__}; expected JSON values and arrays")


def _numbers(table: Mapping[str, Any]) -> dict[str, float]:
    """Return numbers read from JSON, in which None stands for NaN."""
    return {name: float("nan") if value is None else float(value) for name, value in table.items()}


def _fitted(table: Mapping[str, Any]) -> Fitted:
    return Fitted(_numbers(table["parameters"]), table["state"], tuple(table["notes"]), table["free"])


def fit_procedure(
    law: ProcedureLaw, frame: pd.DataFrame, resamples: Resamples, *, value: str, options: Options
) -> ProcedureFit:
    """Fit a procedure to points (n,) and to every resample of their units; raise LawError for unsuitable points.

    Units are drawn with replacement, unless the law resamples by itself; columns of `resamples` (documents) are
    resampled with them.
    """
    features = {name: readable(frame, name) for name in law.features}
    scored = frame[value].notna().to_numpy() if value in frame and traits(law).uses_unscored else slice(None)
    y, units = column(frame.loc[scored], value), resamples.units[scored]
    missing = set(traits(law).needs) - set(frame.columns)
    if missing:
        instead = suggest(min(missing), frame.columns)
        raise LawError(f"law {law.name!r} needs the columns {choose(missing)}, which the points lack; {instead}")
    fitted = law.fit(frame, value, np.random.default_rng(options.seed))
    objective = objective_of(law, options.objective)
    residuals = objective.forward(y) - objective.forward(clipped(law, law.predict(fitted, frame.loc[scored])))
    fits = list(_refits(law, fitted, frame, resamples, value=value, options=options))
    draws = tuple(fit for fit in fits if fit is not None)
    draws = draws if len(draws) >= min(FEW_FITS, options.bootstrap) else ()
    free, runs = len(fitted.parameters) if fitted.free is None else fitted.free, len(set(units))
    dof = freedom(len(y), free, runs)
    return ProcedureFit(
        law=law,
        fitted=fitted,
        stderr={name: _spread([draw.parameters.get(name, np.nan) for draw in draws]) for name in fitted.parameters},
        draws=draws,
        failed=len(fits) - len(draws),
        objective=objective.name,
        cost=float((residuals**2).sum() / 2),
        scatter=residual_scatter(residuals, free, shared(residuals, np.unique(units, return_inverse=True)[1]), runs)
        if dof
        else 0.0,
        dof=dof,
        n=len(y),
        domain={k: (float(np.nanmin(v)), float(np.nanmax(v))) for k, v in features.items() if _is_numeric(v)},
    )


def _is_numeric(values: Column) -> bool:
    return bool(values.dtype.kind == "f" and not np.isnan(values).all())


def _spread(values: list[float]) -> float:
    known = np.array(values)[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")


def _refits(
    law: ProcedureLaw, fitted: Fitted, frame: pd.DataFrame, resamples: Resamples, *, value: str, options: Options
) -> Iterator[Fitted | None]:
    """Yield the fit to each resample, None if it failed."""
    rng, count = np.random.default_rng([options.seed, 2]), len(resamples.weights)
    given = traits(law)
    if given.resamples:
        yield from islice(given.resamples(frame, value, fitted, rng), count)
        return
    law = given.settled(fitted) if given.settled else law
    tables = list(_tables(frame, resamples, rng, stay=options.resample == "documents"))
    fit_all = traits(law).fit_all
    if fit_all:
        with suppress(LawError, np.linalg.LinAlgError):
            yield from fit_all(tables, value, rng)
            return
    for table in tables:
        try:
            yield law.fit(table, value, rng)
        except (LawError, np.linalg.LinAlgError):
            yield None


def _tables(
    frame: pd.DataFrame, resamples: Resamples, rng: np.random.Generator, *, stay: bool
) -> Iterator[pd.DataFrame]:
    """Yield the points of every resample: units drawn with replacement, unless they `stay`, and redrawn columns."""
    members = [np.flatnonzero(resamples.units == unit) for unit in range(int(resamples.units.max()) + 1)]
    for r in range(len(resamples.weights)):
        moved = frame.assign(**{name: drawn[r] for name, drawn in resamples.columns.items()})
        picked = [members[unit] for unit in rng.integers(len(members), size=len(members))]
        yield (
            frame
            if stay and not resamples.columns
            else moved.iloc[np.arange(len(frame)) if stay else np.concatenate(picked)].reset_index(drop=True)
        )
