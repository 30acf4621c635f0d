"""The result of a forecast: distributions, verdicts, and how such forecasts did before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.charts import FORECAST, LARGEST_FORECAST, POINT, forecast_chart, with_figure
from harness.errors import UsageError
from harness.fitting.forecast_scores import LEVELS, PredictionScores, References, interval, score
from harness.tables import Range, Table
from harness.types import Floats

if TYPE_CHECKING:
    from harness.charts import Chart

COLUMNS = ("task", "family", "forecast", "50 %", "beyond", "verdict", "parts", "earlier rungs")
LESS = ("parts", "50 %", "earlier rungs", "beyond")  # what a narrow terminal leaves out first


@dataclass(frozen=True)
class Forecast:
    """Distributions of accuracies of larger models, which print themselves.

    `frame` has one row per task and family, `quantiles` (rows, Q) are the values at `levels`.

    Columns of the frame: task, family, sizes, params, tokens, flops, beyond (factor of FLOPs above the ladder), median,
    low50, high50, low, high, verdict, weights (of each part), factor (by which the spread was widened), effective
    (independent draws at least), measured (where known), and the evidence of earlier rungs: tried, covered,
    interval_score; and two references: last (the value of the largest fitted run) and constant (the mean of all sizes).
    """

    frame: pd.DataFrame
    quantiles: Floats
    level: float
    of: str
    value: str
    earlier: PredictionScores
    notes: tuple[str, ...] = ()
    levels: Floats = field(default_factory=LEVELS.copy)
    planner: Callable[[Forecast], Table] | None = field(default=None, repr=False, compare=False)
    points: pd.DataFrame | None = field(default=None, repr=False, compare=False)  # ends of runs, for figures

    @property
    def scores(self) -> PredictionScores:
        """Return how the forecasts that do not abstain did, where the target was measured."""
        known = self.frame["measured"].notna() & ~self.abstained
        rows = known.to_numpy()
        measured = self.frame["measured"].to_numpy(dtype=np.float64)
        scored = self.frame[known]
        references = References(
            scored["last"].to_numpy(dtype=np.float64), scored["constant"].to_numpy(dtype=np.float64)
        )
        return score(
            measured[rows], self.quantiles[rows], level=self.level, clusters=list(scored["task"]), references=references
        )

    @property
    def abstained(self) -> pd.Series[bool]:
        """Say which rows abstain."""
        return self.frame["verdict"].str.startswith("abstain")

    def interval(self, level: float) -> tuple[Floats, Floats]:
        """Return the ends (rows,) of the central intervals at another level."""
        return interval(self.quantiles, level, self.levels)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        rows = self.frame.astype(object).where(self.frame.notna(), None).to_dict("records")
        for row, quantiles in zip(rows, self.quantiles.tolist(), strict=True):
            row["quantiles"] = quantiles
        settings = {"level": self.level, "of": self.of, "value": self.value, "levels": self.levels.tolist()}
        scores = {"earlier": self.earlier.to_json(), "scores": self.scores.to_json()}
        return {**settings, **scores, "notes": list(self.notes), "rows": rows}

    def plan(self) -> Table:
        """Return the expected widths of the intervals after runs and measurements that could be made next.

        Raises UsageError where several models are forecast at once, or the forecast was not made by `forecast`.
        """
        if self.planner is None:
            raise UsageError("this forecast does not contain its input; plan with the result of harness.forecast")
        return self.planner(self)

    def table(self) -> Table:
        """Return one row per task and family."""
        return table(self)

    def plot(self, *, log_x: bool = True) -> Chart:
        """Draw the measured ends of runs, and the forecasts with their intervals, as an Altair chart.

        There is a chart per task. Forecasts that abstain are pale. Raises UsageError if the extra `report` is not
        installed.
        """
        return forecast_figure(self, log_x=log_x)

    def _repr_html_(self) -> str:
        """Return the table of the forecast for a notebook, and its figure."""
        return with_figure(self.table()._repr_html_(), self.plot)

    def __str__(self) -> str:
        return text(self)


def table(forecast: Forecast) -> Table:
    """Return one row per task and family."""
    known = bool(forecast.frame["measured"].notna().any())
    rows = []
    for row in forecast.frame.to_dict("records"):
        half = f"{row['low50']:.3f} to {row['high50']:.3f}"
        cells = [
            row["task"],
            row["family"],
            Range(row["median"], row["low"], row["high"]),
            half,
            f"{row['beyond']:.3g}x",
            row["verdict"],
            _parts(row["weights"]),
            _evidence(row["tried"], row["covered"], row["interval_score"]),
        ]
        rows.append(tuple([*cells[:3], row["measured"], *cells[3:]] if known else cells))
    columns = (*COLUMNS[:3], "measured", *COLUMNS[3:]) if known else COLUMNS
    return Table("forecast", f"Forecasts of {forecast.value}", columns, tuple(rows), notes(forecast), optional=LESS)


def forecast_figure(forecast: Forecast, *, log_x: bool = True) -> Chart:
    """Return the chart of a forecast; see `Forecast.plot`."""
    frame = forecast.frame
    known = frame["measured"].notna()
    rows = frame.rename(columns={"median": "value"}).assign(
        kind=[LARGEST_FORECAST if is_known else FORECAST for is_known in known],
        label=[f"{kind} of {family or task}" for kind, family, task in zip(
            ["the largest size" if is_known else "a model" for is_known in known],
            frame["family"], frame["task"], strict=True,
        )],
        abstains=forecast.abstained,
    )  # fmt: skip
    measured = pd.DataFrame() if forecast.points is None else forecast.points.assign(kind=POINT, abstains=False)
    rows = pd.concat([measured, rows], ignore_index=True)
    x = next((name for name in ("flops", "params") if rows[name].notna().all()), "params")
    columns = ["task", "family", "label", "kind", "verdict", "abstains", x, "value", "low", "high"]
    return forecast_chart(rows.reindex(columns=columns), x=x, value=forecast.value, log_x=log_x, title="Forecast")


def notes(forecast: Forecast) -> tuple[str, ...]:
    """Return what a reader has to know."""
    about = (
        f"Median and {forecast.level:.0%} interval of {forecast.value} on {_of(forecast.of)}. Beyond: how many times "
        "the FLOPs of the ladder's largest run. Parts: weights of the models in the forecast, from their forecasts of "
        "earlier rungs. Earlier rungs: forecasts made the same way from fewer sizes, covered by "
        f"{forecast.level:.0%} intervals, with their interval score (width plus misses; less is better)."
    )
    exchangeable = "Calibration assumes that later rungs resemble earlier ones, apart from their distance."
    lines = [about, f"All earlier rungs: {forecast.earlier}.", exchangeable, *forecast.notes]
    if forecast.frame["measured"].notna().any():
        lines.append(f"Targets that were measured: {forecast.scores} ({int(forecast.abstained.sum())} abstained).")
    return tuple(lines)


def _of(of: str) -> str:
    return "these documents" if of == "documents" else "all documents like these"


def _parts(weights: Mapping[str, float]) -> str:
    shown = sorted(((w, name) for name, w in weights.items() if w >= 0.005), reverse=True)
    return ", ".join(f"{name} {w:.2f}" for w, name in shown)


def _evidence(tried: int, covered: int, score: float) -> str:
    return f"{covered} of {tried}, {score:.3f}" if tried and np.isfinite(score) else "none"


def score_rows(rows: Mapping[str, PredictionScores]) -> Table:
    """Return a table of scores, a row each."""
    columns = (
        "forecast",
        "n",
        "MAE",
        "covered",
        "95 % interval",
        "mean width",
        "median width",
        "interval score",
        "CRPS",
    )
    cells = tuple(
        (
            name,
            scores.n,
            scores.mae,
            f"{scores.coverage:.0%}",
            f"{scores.coverage_interval[0]:.0%} to {scores.coverage_interval[1]:.0%}",
            scores.mean_width,
            scores.median_width,
            scores.interval_score,
            scores.crps,
        )
        for name, scores in rows.items()
    )
    return Table("forecast_scores", "How forecasts did", columns, cells)


def text(forecast: Forecast) -> str:
    """Return a forecast as it is printed."""
    shown = table(forecast)
    lines = [shown.title, ""]
    for row in forecast.frame.to_dict("records"):
        name = ", ".join(part for part in (row["task"], row["family"]) if part) or "forecast"
        interval = Range(row["median"], row["low"], row["high"])
        lines.append(f"{name}: {interval} ({row['beyond']:.3g}x beyond), {row['verdict']}")
    return "\n".join([*lines, "", *shown.notes])
