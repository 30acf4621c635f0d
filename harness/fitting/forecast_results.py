"""The result of a forecast: distributions, verdicts, and how such forecasts did before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from harness.fitting.forecast_scores import LEVELS, Scores, interval, score
from harness.types import Floats


@dataclass(frozen=True)
class Forecast:
    """Distributions of accuracies to come: `frame` has a row per task and family, `quantiles` (rows, Q) the values
    at `levels`. Prints itself.

    Columns of the frame: task, family, sizes, params, tokens, flops, beyond (factor of FLOPs above the ladder), median,
    low50, high50, low, high, verdict, weights (of each part), factor (by which the spread was widened), effective
    (independent draws at least), measured (where known), and the evidence of earlier rungs: tried, covered,
    interval_score.
    """

    frame: pd.DataFrame
    quantiles: Floats
    level: float
    of: str
    value: str
    earlier: Scores
    notes: tuple[str, ...] = ()
    levels: Floats = field(default_factory=LEVELS.copy)

    @property
    def scores(self) -> Scores:
        """Return how the forecasts that do not abstain did, where the target was measured."""
        known = self.frame["measured"].notna() & ~self.abstained
        rows = known.to_numpy()
        measured = self.frame["measured"].to_numpy(dtype=np.float64)
        return score(measured[rows], self.quantiles[rows], level=self.level, clusters=list(self.frame["task"][known]))

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
        for row, own in zip(rows, self.quantiles.tolist(), strict=True):
            row["quantiles"] = own
        settings = {"level": self.level, "of": self.of, "value": self.value, "levels": self.levels.tolist()}
        return {**settings, "notes": list(self.notes), "rows": rows}

    def __str__(self) -> str:
        from harness.fitting.forecast_tables import text

        return text(self)
