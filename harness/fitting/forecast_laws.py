"""Laws as parts of a forecast: each is fitted to the ladder, and its resamples are its draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.checkpoints.flops import training_flops
from harness.errors import LawError
from harness.fitting.fit import FitRequest, fit_points
from harness.fitting.laws import steps_of
from harness.fitting.options import Options
from harness.fitting.rungs import SCALES, Batch, ForecastLadder, Targets
from harness.host.registries import Registries
from harness.types import Floats
from harness.types.laws import ComposedLaw, Law, traits

RESAMPLES = 200


@dataclass(frozen=True)
class LawForecaster:
    """A law that takes part in forecasts. Ladders it cannot be fitted to are left to others."""

    law: Law
    registries: Registries

    @property
    def name(self) -> str:
        """The law's own name."""
        return self.law.name

    def draw(self, batch: Batch, rng: np.random.Generator) -> Floats:
        """Return draws (P, R, T), the scatter of the law's points included."""
        width = batch.targets("params").shape[1]
        draws = np.full((len(batch.ladders), RESAMPLES, width), np.nan)
        for p, ladder in enumerate(batch.ladders):
            if ladder.targets is None:
                continue
            try:
                drawn = self._fit(ladder, seed=int(rng.integers(2**31)))
            except LawError:  # too few points for this law; its weight goes to the others
                continue
            if np.isfinite(drawn).all():
                draws[p, :, : drawn.shape[1]] = np.clip(drawn, 0.0, 1.0)
        return draws

    def _fit(self, ladder: ForecastLadder, seed: int) -> Floats:
        via = "via" if isinstance(self.law, ComposedLaw) else None
        options = Options(bootstrap=RESAMPLES, starts=8, resample="runs", seed=seed)
        fit = fit_points(frame_of(ladder), self.law, FitRequest("value", via, options=options))
        return fit.sample(pd.DataFrame(_scales(ladder.targets)), np.random.default_rng(seed))


def _scales(of: ForecastLadder | Targets | None) -> dict[str, Floats]:
    """Return the scales that are known of every row or target; FLOPs are 6 N D where they are not given."""
    if of is None:
        return {}
    columns = {name: getattr(of, name) for name in SCALES}
    columns["flops"] = np.where(np.isfinite(of.flops), of.flops, training_flops(1.0, 1.0) * of.params * of.tokens)
    return {name: column for name, column in columns.items() if np.isfinite(column).all()}


def frame_of(ladder: ForecastLadder) -> pd.DataFrame:
    """Return the rows of a ladder as points; columns that are not known of every row are left out."""
    columns: dict[str, object] = {**_scales(ladder), "value": ladder.value, "family": ladder.family}
    if ladder.via is not None:
        columns["via"] = ladder.via
    if np.isfinite(ladder.docs).all():
        columns["value_n"] = ladder.docs
    return pd.DataFrame({**columns, "size": np.arange(len(ladder.value))})


def takes_part(law: Law) -> bool:
    """Say whether a law describes accuracies by features that a ladder has."""
    first, last = steps_of(law)[0], steps_of(law)[-1]
    bounded = traits(last).value_range == (0.0, 1.0)
    return bounded and set(first.features) <= {"params", "tokens", "flops"} and not traits(law).baseline
