"""The result of a back-test: predictions and measurements of every law, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.charts import agreement_chart, with_figure
from harness.fitting.forecast_scores import PredictionScores
from harness.fitting.held_out_scores import held_out_scores
from harness.tables import Cell, Measured, Range, Table

if TYPE_CHECKING:
    from harness.charts import Chart

TEST = ["task", "family", "point"]  # columns that identify a prediction


@dataclass(frozen=True)
class BackTest:
    """Predictions of every law and the measured values: `rows` is a frame with one row per law and prediction.

    Columns: task, family, law, sizes (fitted), target, point (its number in the points), measured, stderr, predicted,
    low, high, error, inside, beyond, crps, last and constant (predictions of references), interval_score, rank (1 is
    the best by interval score; laws without a prediction rank last and have no row). `missing` has these laws with the
    reasons.
    """

    rows: pd.DataFrame
    value: str
    level: float
    missing: tuple[tuple[str, str], ...] = ()
    said: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return notes on the points, and for each law the first reason for a missing prediction, with their number."""
        why: dict[str, list[str]] = {}
        for law, reason in self.missing:
            why.setdefault(law, []).append(reason)
        more = {law: f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "" for law, reasons in why.items()}
        failed = (f"{law} makes no prediction: {reasons[0]}{more[law]}" for law, reasons in sorted(why.items()))
        return (*self.said, *self._worse(), *failed)

    def plot(self) -> Chart:
        """Draw predicted against measured values with their intervals, a chart per law, best first, in Altair.

        Raises UsageError if the extra `report` is not installed.
        """
        order = self.rows.groupby("law")["rank"].mean().sort_values(kind="stable").index
        rows = self.rows.sort_values("law", key=lambda laws: laws.map(list(order).index), kind="stable")
        title = f"{self.value}: every size predicted from the smaller ones"
        return agreement_chart(rows, "target", "task", "law", "sizes", by="law", title=title)

    def _repr_html_(self) -> str:
        """Return the summary for a notebook, and its figure."""
        return with_figure(self.summary()._repr_html_(), self.plot)

    def scores(self, law: str) -> PredictionScores:
        """Return the scores of the predictions of one law; families and tasks are the independent units."""
        rows = self.rows[self.rows["law"] == law].to_dict("records")
        clusters = [row["cluster"] for row in rows]
        return held_out_scores(
            [{str(name): value for name, value in row.items()} for row in rows], self.level, clusters
        )

    def _worse(self) -> list[str]:
        """Return a note on the laws that predict worse than the mean of the measured values."""
        r2_by_law = {law: self.scores(law).r2 for law in self.rows["law"].unique()}
        said = ", ".join(f"{law} {r2:.3g}" for law, r2 in sorted(r2_by_law.items()) if r2 < 0)
        return [f"R2 < 0 (worse than the mean of the measured values): {said}"] if said else []

    def summary(self) -> Table:
        """Return one row per law, best mean rank first."""
        rows = [self._law(law) for law in sorted(self.rows["law"].unique(), key=self._rank)]
        columns = (
            *("law", "predictions", "mean error", "median error", "bias", "inside", "mean width", "median width"),
            *("interval score", "CRPS", "error of last", "error of constant", "won", "mean rank", "beyond"),
        )
        about = (
            "For every k, laws are fitted to the sizes up to k and predict the last checkpoint of size k + 1. Error: "
            f"absolute, of {self.value}, ± standard error (units: families and tasks). Inside: share of measured "
            f"values covered by the {self.level:.0%} interval, with the 95 % interval of that share (same units). "
            "Interval score: mean width plus penalties for values outside. CRPS: score of the whole distribution. "
            "Predictions are cut to the range of the metric, such as 0 to 1. Error of last, of constant: mean absolute "
            "errors, on the same points, of the largest fitted value and of the mean of the fitted values. Won: number "
            "of best interval scores. Mean rank: by interval score; a law without a prediction or an interval ranks "
            "last. Beyond: median factor beyond the fitted range."
        )
        return Table(
            "back_test", "Laws by their predictions of the next size", columns, tuple(rows), (about, *self.notes)
        )

    def details(self) -> Table:
        """Return every prediction of every law."""
        rows = [
            (
                row["task"],
                row["target"],
                row["law"],
                Measured(row["measured"], row["stderr"]),
                Range(row["predicted"], row["low"], row["high"]),
                row["error"],
                row["inside"],
                row["rank"],
            )
            for row in self.rows.sort_values(["task", "family", "sizes", "target", "rank"], kind="stable").to_dict(
                "records"
            )
        ]
        columns = ("task", "target", "law", "measured", "predicted", "error", "inside", "rank")
        return Table("back_test_predictions", "Every prediction", columns, tuple(rows))

    def _rank(self, law: str) -> float:
        """Return the mean rank of a law over all tests; a missing prediction has the last rank."""
        law_rows, tests = self.rows[self.rows["law"] == law], self._tests()
        last = float(self.rows["rank"].max())
        return float((law_rows["rank"].sum() + last * (tests - len(law_rows))) / tests)

    def _law(self, law: str) -> tuple[Cell, ...]:
        law_rows, tests = self.rows[self.rows["law"] == law], self._tests()
        size, scores = law_rows["error"].abs(), self.scores(law)
        return (
            law,
            f"{len(law_rows)} of {tests}",
            Measured(float(size.mean()), _clustered(size, law_rows["cluster"])),
            float(size.median()),
            float(law_rows["error"].mean()),
            _share(scores),
            scores.mean_width,
            scores.median_width,
            scores.interval_score,
            scores.crps,
            scores.last,
            scores.constant,
            int((law_rows["rank"] == 1).sum()),
            self._rank(law),
            float(law_rows["beyond"].median()),
        )

    def _tests(self) -> int:
        return len(self.rows.drop_duplicates(TEST))


def _clustered(values: pd.Series[float], clusters: pd.Series[str]) -> float:
    """Return the clustered standard error of a mean.

    It is at least that of independent values, because few clusters may agree by chance.
    """
    sums = (values - values.mean()).groupby(clusters).sum()
    g, n = len(sums), len(values)
    if n < 2:
        return float("nan")
    apart = float(values.std(ddof=1) / np.sqrt(n))
    return max(float(np.sqrt((sums**2).sum() * g / (g - 1)) / n), apart) if g > 1 else apart


def _share(scores: PredictionScores) -> str:
    """Return how many intervals covered, with the share and its 95 % interval."""
    bounded = scores.n - scores.unbounded
    low, high = scores.coverage_interval
    return f"{scores.covered} of {bounded}: {scores.coverage:.0%} [{low:.0%}, {high:.0%}]" if bounded else "-"


def joined(results: Sequence[BackTest]) -> BackTest:
    """Return the back-tests of several tasks combined."""
    values = list(dict.fromkeys(result.value for result in results))
    rows = pd.concat([result.rows for result in results], ignore_index=True)
    missing = tuple(pair for result in results for pair in result.missing)
    said = tuple(dict.fromkeys(note for result in results for note in result.said))
    return BackTest(rows, " and ".join(values), results[0].level, missing, said)
