"""Scores of the held-out points of fits, and of two references that use only the fitted values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.fitting.forecast_scores import References, Scores, score_intervals
from harness.fitting.runs import along, numeric
from harness.types import Floats

HeldOut = Mapping[str, Any]  # a held-out point: its label and features, measured and predicted values, errors


def references_of(points: pd.DataFrame, target: pd.DataFrame, value: str) -> References:
    """Return the value of the largest fitted point, and the mean of the fitted values, for held-out points (n,).

    Both use the family of each held-out point if it has fitted points, else all points.
    """
    known = points[points[value].notna()]
    if known.empty:
        unknown = np.full(len(target), np.nan)
        return References(unknown, unknown)
    order = along(known)
    y = numeric(known, value)[order]
    scales = [numeric(known, name)[order] for name in ("flops", "params") if name in known.columns]
    whole = _references(y, scales)
    by_family: dict[Hashable, tuple[float, float]] = {}
    if "family" in known.columns and "family" in target.columns:
        families = known["family"].iloc[order]
        for name in families.dropna().unique():
            own = (families == name).to_numpy()
            by_family[name] = _references(y[own], [scale[own] for scale in scales])
    of_target = target["family"] if by_family else [None] * len(target)
    found = np.array([by_family.get(name, whole) for name in of_target]).reshape(-1, 2)
    return References(found[:, 0], found[:, 1])


def _references(y: Floats, scales: Sequence[Floats]) -> tuple[float, float]:
    """Return the value at the most FLOPs (or params; of equals, the last in training), and the mean."""
    scale = next((found for found in scales if np.isfinite(found).any()), np.zeros(len(y)))
    scale = np.where(np.isfinite(scale), scale, -np.inf)
    return float(y[np.flatnonzero(scale == scale.max())[-1]]), float(y.mean())


def held_out_scores(rows: Sequence[HeldOut], level: float, clusters: Sequence[object] = ()) -> Scores:
    """Score held-out points (`LawFit.hold_out`, rows of a back-test) with intervals of this level."""
    known = References(_floats(rows, "last"), _floats(rows, "constant"))
    y, predicted, low, high, crps = (_floats(rows, name) for name in ("measured", "predicted", "low", "high", "crps"))
    return score_intervals(y, predicted, low, high, crps, level=level, clusters=clusters, references=known)


def _floats(rows: Sequence[HeldOut], name: str) -> Floats:
    """Return a column of rows (n,); NaN if a fit of an earlier version lacks it."""
    return np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)
