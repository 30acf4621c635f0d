"""A fitted law: its predictions, and its file format."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.charts import with_figure
from harness.errors import HarnessError, LawError, UsageError
from harness.files import write_whole
from harness.fitting.earlier_sizes import EarlierSize
from harness.fitting.fit_figures import fits_chart, point_rows, read_rows
from harness.fitting.fitted_formula import StepFit
from harness.fitting.forecast_scores import PredictionScores
from harness.fitting.held_out_scores import HeldOut, held_out_scores
from harness.fitting.laws import Column, FeatureValues, configured, steps_of
from harness.fitting.options import Options
from harness.fitting.procedures import ProcedureFit
from harness.fitting.warnings import without_freedom
from harness.host import default_host
from harness.host.registries import Registries
from harness.metrics.intervals import wilson
from harness.tables import printable
from harness.types import Floats, Json
from harness.types.json import JsonObject
from harness.types.laws import FormulaLaw, Law, ProcedureLaw

if TYPE_CHECKING:
    from harness.charts import Chart


@dataclass(frozen=True)
class LawFit:
    """A law fitted to a ladder. Prints a report; `predict` returns values with intervals; `to_json` stores it."""

    law: str
    value: str
    via: str
    negated: bool
    steps: tuple[StepFit | ProcedureFit, ...]
    options: Options
    runs: int
    law_options: JsonObject = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    hold_out: tuple[HeldOut, ...] = ()
    warnings: tuple[str, ...] = ()
    sizes: int | None = None
    told_apart: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    earlier: tuple[EarlierSize, ...] = ()  # predictions of earlier sizes of the ladder from the sizes below them
    worth: float = float("nan")  # effective number of documents of each measured rate; NaN if unknown
    points: pd.DataFrame | None = field(default=None, repr=False, compare=False)  # fitted and held out, for figures

    @property
    def features(self) -> tuple[str, ...]:
        """Return the features that a prediction needs."""
        return tuple(self.steps[0].law.features)

    @property
    def domain(self) -> Mapping[str, tuple[float, float]]:
        """Return the fitted range of each feature."""
        return self.steps[0].domain

    @property
    def level(self) -> float:
        """Return the coverage level of the intervals."""
        return self.options.level

    def predict(self, points: pd.DataFrame | None = None, **features: FeatureValues) -> pd.DataFrame:
        """Return value, low, high (at the level of the fit) and the factor beyond the fitted range.

        Pass features as columns of a frame, or by name: `fit.predict(flops=[1e20, 1e21])`.
        """
        frame = pd.DataFrame({k: np.atleast_1d(v) for k, v in features.items()}) if points is None else points
        return self.predicted(frame)[0]

    def predicted(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, Floats]:
        """Return the result of `predict` for points (n,), and the draws (R, n) of which intervals are quantiles."""
        return self.predicted_at(self.steps[0].read(frame))

    def predicted_at(self, x: Mapping[str, Column]) -> tuple[pd.DataFrame, Floats]:
        """Return the result of `predict` at features (n,), and the draws (R, n) of which intervals are quantiles."""
        draws = self._chain(x, np.random.default_rng(self.options.seed))
        tail = (1 - self.options.level) / 2
        low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
        low, high = self._at_least(self.curve(x), low, high)
        domain = self.steps[0].domain
        beyond = np.max(
            [
                np.ones(draws.shape[1]),
                *(_beyond(np.asarray(x[name], dtype=np.float64), seen) for name, seen in domain.items()),
            ],
            axis=0,
        )
        return pd.DataFrame({**x, "value": self.curve(x), "low": low, "high": high, "beyond": beyond}), draws

    @property
    def no_freedom(self) -> str:
        """Return why there is no residual degree of freedom, and so no interval; "" where there is one."""
        return without_freedom(self)

    @property
    def scores(self) -> PredictionScores:
        """Return the scores of the predictions of the held-out points; their runs are the independent units."""
        runs = [row.get("run", number) for number, row in enumerate(self.hold_out)]
        return held_out_scores(self.hold_out, self.level, runs)

    def _at_least(self, value: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Return ends (n,) of intervals of rates that are no narrower than a measurement allows (Wilson's)."""
        if not np.isfinite(self.worth):
            return low, high
        z = NormalDist().inv_cdf((1 + self.options.level) / 2)
        ends = np.array([wilson(float(np.clip(v, 0, 1)), self.worth, z) for v in value])
        return np.minimum(low, ends[:, 0]), np.maximum(high, ends[:, 1])

    def plot(self, *, log_x: bool = True) -> Chart:
        """Draw the points, the law with its interval, and the held-out points, as an Altair chart.

        A law of several features is drawn as predicted against measured values. Raises UsageError if the extra
        `report` is not installed.
        """
        return fits_chart([self], log_x=log_x)

    def optimal(self, flops: Sequence[float] | float, at: Mapping[str, float] | None = None) -> pd.DataFrame:
        """Return params and tokens of the smallest loss at budgets of FLOPs, with intervals; see allocations."""
        from harness.fitting.allocations import optimal

        return optimal(self, flops, at)

    def curve(self, x: Mapping[str, Column]) -> Floats:
        """Return the law's best curve (n,) at features (n,)."""
        for step, after in zip(self.steps, [*self.steps[1:], None], strict=True):
            y = step.value(x)
            x = {after.law.features[0]: y} if after else {}
        return y

    def draws(self, x: Mapping[str, Column]) -> Floats:
        """Return the curve of every resample (R, n) at features (n,), without scatter."""
        for step, after in zip(self.steps, [*self.steps[1:], None], strict=True):
            y = step.curves(x)
            x = {after.law.features[0]: y} if after else {}
        return y

    def sample(self, points: pd.DataFrame, rng: np.random.Generator) -> Floats:
        """Return the prediction of every resample (R, n) at points (n,), with the scatter of measured points."""
        return self._chain(self.steps[0].read(points), rng)

    def _chain(self, x: Mapping[str, Column], rng: np.random.Generator) -> Floats:
        """Return the predictions of every resample (R, n) through all steps."""
        for step, after in zip(self.steps, [*self.steps[1:], None], strict=True):
            y = step.sample(x, rng)
            x = {after.law.features[0]: y} if after else {}
        return y

    def to_json(self, *, draws: bool = True) -> dict[str, Json]:
        """Return everything as JSON values, which `LawFit.from_json` reads back; without `draws`, for printing only."""
        steps = [self._step_json(step) for step in self.steps]
        if not draws:
            steps = [{name: value for name, value in step.items() if name != "draws"} for step in steps]
        table = {**vars(self), "options": asdict(self.options), "steps": steps}
        table["scores"] = self.scores.to_json() if self.hold_out else None
        table["points"] = point_rows(self).to_dict("records")
        return {key: _strict(value) for key, value in table.items()}

    def _step_json(self, step: StepFit | ProcedureFit) -> dict[str, Json]:
        table = step.to_json()
        return table if isinstance(step, ProcedureFit) else {**table, "intervals": step.intervals(self.options.level)}

    @classmethod
    def from_json(cls, table: Mapping[str, Any], registries: Registries | None = None) -> LawFit:
        """Return a fit from JSON values; raise UsageError if its law is not registered."""
        law: Law = configured((registries or default_host()).laws[table["law"]], table.get("law_options"))
        steps = tuple(_step(step_law, step) for step_law, step in zip(steps_of(law), table["steps"], strict=True))
        held = tuple({k: v if k == "inside" else _number(v) for k, v in row.items()} for row in table["hold_out"])
        read = {"steps": steps, "options": Options(**table["options"]), "hold_out": held}
        read |= {"worth": _number(table.get("worth"))}
        lists = {name: tuple(table.get(name, ())) for name in ("warnings", "told_apart", "notes", "earlier")}
        stored = {name: value for name, value in table.items() if name != "scores"}  # follows from the held-out points
        rows = [{name: _number(value) for name, value in row.items()} for row in table.get("points", ())]
        return cls(**{**stored, **read, **lists, "points": read_rows(rows, table["value"])})

    def __repr__(self) -> str:
        names = "".join(f", {key} {self.labels[key]}" for key in ("family", "task") if key in self.labels)
        held = f", {len(self.hold_out)} held out" if self.hold_out else ""
        features = ", ".join(self.features)
        return f"<LawFit {self.law}: {self.value} from {features}{names}; {self.steps[-1].n} points{held}>"

    def _repr_html_(self) -> str:
        """Return the report of the fit for a notebook, and its figure; text is escaped."""
        return with_figure(f"<pre>{html.escape(printable(str(self), lines=True))}</pre>", self.plot)

    def __str__(self) -> str:
        from harness.fitting.summary import fit_report

        return fit_report(self)


def _strict(value: Json) -> Json:
    """Replace NaN and infinity, which JSON lacks, by None at any depth."""
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _number(value: Any) -> Any:
    """Return a value that `_strict` wrote; None stands for NaN."""
    return float("nan") if value is None else value


def _step(law: FormulaLaw | ProcedureLaw, table: Mapping[str, Any]) -> StepFit | ProcedureFit:
    """Return a step from JSON values."""
    if isinstance(law, ProcedureLaw):
        return ProcedureFit.from_json(law, table)
    read = {
        "law": law,
        "draws": np.array(table["draws"], dtype=np.float64),
        "stderr": {name: _number(value) for name, value in table["stderr"].items()},
        "domain": {name: (float(low), float(high)) for name, (low, high) in table["domain"].items()},
    }
    known = {field.name for field in fields(StepFit)}
    return StepFit(**{**{key: value for key, value in table.items() if key in known}, **read})


def _beyond(x: Floats, domain: tuple[float, float]) -> Floats:
    """Return the factor by which features lie outside the fitted range: 1 inside, infinite for values of 0 or less.

    For a range with values of 0 or less it is 1 plus the distance from the range, in units of its width.
    """
    low, high = domain
    with np.errstate(all="ignore"):
        if low > 0:
            factor = np.where(x > 0, np.maximum(x / high, low / x), np.where(np.isnan(x), np.nan, np.inf))
        else:
            distance = np.maximum(np.maximum(low - x, x - high), 0.0)
            factor = 1.0 + np.where(distance > 0, distance / (high - low), distance)
    return np.nan_to_num(np.maximum(1.0, factor), nan=1.0, posinf=np.inf)


def save_fits(fits: Sequence[LawFit], path: Path) -> None:
    """Write fits as one JSON file."""
    write_whole(path, json.dumps([fit.to_json() for fit in fits], allow_nan=False).encode())


def check_output(path: Path) -> None:
    """Raise UsageError, before fits are computed, if their file cannot be written."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file for the fits")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: {path.parent} does not exist or is not writable; choose another folder")


def load_fits(path: str | Path, registries: Registries | None = None) -> list[LawFit]:
    """Return the fits in a file of `harness fit -o`; raise LawError for any other file."""
    try:
        tables = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(tables, list):
            raise TypeError(f"a JSON {type(tables).__name__}")
        if not tables:
            raise LawError(f"{path} has no fits; harness fit ... -o writes them")
        return [LawFit.from_json(table, registries) for table in tables]
    except (OSError, ValueError, TypeError, KeyError) as error:
        if isinstance(error, HarnessError):
            raise
        raise LawError(f"{path} is not a file of fits ({error}); write one with harness fit ... -o") from error
