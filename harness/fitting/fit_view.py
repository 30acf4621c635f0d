"""What reports, warnings and allocations read of a fitted law; `result.LawFit` provides it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import pandas as pd

from harness.fitting.earlier_sizes import EarlierSize
from harness.fitting.fitted_formula import StepFit
from harness.fitting.forecast_scores import PredictionScores
from harness.fitting.held_out_scores import HeldOut
from harness.fitting.laws import Column, FeatureValues
from harness.fitting.options import Options
from harness.fitting.procedures import ProcedureFit
from harness.types import Floats


class FitView(Protocol):
    """A fitted law, read-only; see `result.LawFit` for the meaning of each attribute."""

    @property
    def law(self) -> str: ...  # noqa: D102
    @property
    def value(self) -> str: ...  # noqa: D102
    @property
    def via(self) -> str: ...  # noqa: D102
    @property
    def negated(self) -> bool: ...  # noqa: D102
    @property
    def steps(self) -> tuple[StepFit | ProcedureFit, ...]: ...  # noqa: D102
    @property
    def options(self) -> Options: ...  # noqa: D102
    @property
    def runs(self) -> int: ...  # noqa: D102
    @property
    def sizes(self) -> int | None: ...  # noqa: D102
    @property
    def told_apart(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def hold_out(self) -> tuple[HeldOut, ...]: ...  # noqa: D102
    @property
    def warnings(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def earlier(self) -> tuple[EarlierSize, ...]: ...  # noqa: D102
    @property
    def domain(self) -> Mapping[str, tuple[float, float]]: ...  # noqa: D102
    @property
    def scores(self) -> PredictionScores: ...  # noqa: D102
    @property
    def features(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def points(self) -> pd.DataFrame | None: ...  # noqa: D102

    def curve(self, x: Mapping[str, Column]) -> Floats:
        """Return the law's best curve (n,)."""

    def predict(self, points: pd.DataFrame | None = None, **features: FeatureValues) -> pd.DataFrame:
        """Return value, low and high, one row per point."""
