"""Predictions of the held-out points of a fit, their scores, and two references that use only the fitted values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from harness.fitting.forecast_scores import LEVELS, PredictionScores, References, crps, score_intervals
from harness.fitting.ladder import Ladder
from harness.fitting.laws import Column
from harness.types import Floats

HeldOut = Mapping[str, Any]  # a held-out point: its label and features, measured and predicted values, errors


class Predicting(Protocol):
    """A fitted law that predicts."""

    @property
    def value(self) -> str: ...  # noqa: D102
    @property
    def features(self) -> tuple[str, ...]: ...  # noqa: D102

    def predicted(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, Floats]:
        """Return predictions of points (n,), and their draws (R, n)."""

    def predicted_at(self, x: Mapping[str, Column]) -> tuple[pd.DataFrame, Floats]:
        """Return predictions at features (n,), and their draws (R, n)."""


def held_out_rows(fitted: Predicting, ladder: Ladder, bounds: tuple[float, float]) -> tuple[HeldOut, ...]:
    """Return measured and predicted values of each held-out point, and the predictions of references.

    `run` numbers the runs of held-out points. Predictions and their distributions are cut to `bounds`.
    """
    target, measured = ladder.target, ladder.held
    if target.empty:
        return ()
    known = references_of(ladder)
    predicted, draws = fitted.predicted_at(ladder.ahead) if ladder.ahead else fitted.predicted(target)
    predicted = predicted.assign(**{name: predicted[name].clip(*bounds) for name in ("value", "low", "high")})
    with np.errstate(invalid="ignore"):  # infinite draws
        scores = crps(measured, np.quantile(np.clip(draws, *bounds), LEVELS, axis=0).T)
    errors = target.get(f"{fitted.value}_stderr", pd.Series(np.nan, index=target.index))
    rows = zip(ladder.names, measured, errors, predicted.to_dict("records"), strict=True)
    return tuple(
        {
            "point": name,
            "run": int(ladder.held_runs[number]),
            **{feature: guess[feature] for feature in fitted.features},
            "measured": float(y),
            "stderr": float(stderr),
            "predicted": guess["value"],
            "low": guess["low"],
            "high": guess["high"],
            "error": guess["value"] - y,
            "relative_error": (guess["value"] - y) / y if y else float("nan"),
            "inside": bool(guess["low"] <= y <= guess["high"]) if np.isfinite(guess["low"]) else None,
            "beyond": guess["beyond"],
            "crps": float(scores[number]),
            "last": float(known.last[number]),
            "constant": float(known.constant[number]),
        }
        for number, (name, y, stderr, guess) in enumerate(rows)
    )


def references_of(ladder: Ladder) -> References:
    """Return the value of the largest fitted point, and the mean of the fitted values, for held-out points (m,).

    Both use the family of each held-out point if it has fitted points, else all points.
    """
    points, target, value = ladder.points, ladder.target, ladder.columns[-1]
    order = ladder.runs.order[points[value].notna().to_numpy()[ladder.runs.order]]
    if not len(order):
        unknown = np.full(len(target), np.nan)
        return References(unknown, unknown)
    y = ladder.numbers[value][order]
    scales = [ladder.numbers[name][order] for name in ("flops", "params") if name in ladder.numbers]
    whole = _references(y, scales)
    by_family: dict[Hashable, tuple[float, float]] = {}
    if "family" in points.columns and "family" in target.columns:
        families = points["family"].iloc[order]
        for name in families.dropna().unique():
            of_family = (families == name).to_numpy()
            by_family[name] = _references(y[of_family], [scale[of_family] for scale in scales])
    of_target = target["family"] if by_family else [None] * len(target)
    references = np.array([by_family.get(name, whole) for name in of_target]).reshape(-1, 2)
    return References(references[:, 0], references[:, 1])


def _references(y: Floats, scales: Sequence[Floats]) -> tuple[float, float]:
    """Return the value at the most FLOPs (or params; of equals, the last in training), and the mean."""
    scale = next((column for column in scales if np.isfinite(column).any()), np.zeros(len(y)))
    scale = np.where(np.isfinite(scale), scale, -np.inf)
    return float(y[np.flatnonzero(scale == scale.max())[-1]]), float(y.mean())


def held_out_scores(rows: Sequence[HeldOut], level: float, clusters: Sequence[object] = ()) -> PredictionScores:
    """Score held-out points (`LawFit.hold_out`, rows of a back-test) with intervals of this level."""
    known = References(_floats(rows, "last"), _floats(rows, "constant"))
    y, predicted, low, high, crps = (_floats(rows, name) for name in ("measured", "predicted", "low", "high", "crps"))
    return score_intervals(y, predicted, low, high, crps, level=level, clusters=clusters, references=known)


def _floats(rows: Sequence[HeldOut], name: str) -> Floats:
    """Return a column of rows (n,); NaN if a fit of an earlier version lacks it."""
    return np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)
