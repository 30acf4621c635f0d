"""Capabilities: fill the missing scores of a table of models, and compute its principal components.

Ruan et al. 2024 (Observational scaling laws), sec. 3: the benchmark scores of models of many families lie near a
low-dimensional plane. Within a family, the coordinates on this plane follow training compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import Floats, LawError

ROUNDS = 1000  # largest number of iterations that fill missing scores
SETTLED = 1e-10  # largest change of a filled score, in standard deviations, at convergence
MOST = 5  # largest number of components


@dataclass(frozen=True)
class Space:
    """A capability space, computed from the scores of models (n, B).

    `mean` and `scale` (B,) standardise scores. Missing scores are filled from the first component of the standardised
    scores alone (`level`, `direction`: (B,)). `centre` (B,) and `axes` (K, B) are the components of the filled scores;
    `explained` (K,) are their shares of the variance. The sign of each axis is chosen so that its weights have a
    positive sum.
    """

    mean: Floats
    scale: Floats
    level: Floats
    direction: Floats
    centre: Floats
    axes: Floats
    explained: Floats

    @classmethod
    def of(cls, scores: Floats) -> Space:
        """Compute the space from scores (n, B) in [0, 1], NaN where missing; raise LawError for too few scores."""
        known = np.isfinite(scores)
        if len(scores) < 3 or (known.sum(0) < 3).any():
            raise LawError(
                f"found {len(scores)} models and a benchmark with {known.sum(0).min()} scores; expected at least three "
                "models, and three scores on every benchmark"
            )
        mean, scale = np.nanmean(scores, axis=0), np.nanstd(scores, axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        standard, level, direction = _filled((scores - mean) / scale)
        filled = np.clip(mean + scale * standard, 0.0, 1.0)
        centre = filled.mean(0)
        variance, axes = _components(filled - centre)
        count = min(MOST, len(scores) - 1, scores.shape[1])
        return cls(mean, scale, level, direction, centre, axes[:count], variance[:count] / variance.sum())

    def filled(self, scores: Floats) -> Floats:
        """Return scores (m, B) in which the first component, fitted to a row's known scores, fills its missing ones.

        Raises LawError for a row without any score.
        """
        known = np.isfinite(scores)
        if not known.any(axis=1).all():
            raise LawError(f"{int((~known.any(axis=1)).sum())} models have no benchmark score; leave them out")
        off = np.where(known, (scores - self.mean) / self.scale - self.level, 0.0)
        weight = (known * self.direction**2).sum(axis=1)
        along = off @ self.direction / np.where(weight > 0, weight, 1.0)
        guess = self.mean + self.scale * (self.level + along[:, None] * self.direction)
        return np.clip(np.where(known, scores, guess), 0.0, 1.0)

    def coordinates(self, scores: Floats) -> Floats:
        """Return the capabilities (m, K) of models with scores (m, B)."""
        coordinates: Floats = (self.filled(scores) - self.centre) @ self.axes.T
        return coordinates

    def to_state(self) -> dict[str, Any]:
        """Return the space as the state of a fit."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Space:
        """Return the space from the state of a fit."""
        return cls(**{name: np.asarray(value, dtype=np.float64) for name, value in state.items()})


def _components(centred: Floats) -> tuple[Floats, Floats]:
    """Return variances (B,) and axes (B, B) of centred rows (n, B), largest first, each with a positive sum."""
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    axes = axes.T[::-1]
    return np.maximum(variance[::-1], 0.0), axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)


def _filled(standard: Floats) -> tuple[Floats, Floats, Floats]:
    """Fill the missing standardised scores (n, B) from their first component, iterating until they converge.

    Returns the scores, the mean (B,) and the direction (B,) of the last iteration. The published program always runs
    1,000 iterations, because its convergence test is never true. Here the change of the filled scores is tested.
    """
    gaps = ~np.isfinite(standard)
    filled = np.where(gaps, 0.0, standard)
    for _ in range(ROUNDS):
        level = filled.mean(0)
        direction = _components(filled - level)[1][0]
        projected = level + np.outer((filled - level) @ direction, direction)
        change = np.abs(projected - filled)[gaps].max(initial=0.0)
        filled = np.where(gaps, projected, filled)
        if change < SETTLED:
            break
    return filled, level, direction
