"""Capabilities behind benchmarks: gaps of a table of models are filled, and its principal components taken.

Ruan et al. 2024 (Observational scaling laws), sec. 3: benchmark scores of models of many families lie near a plane of
few dimensions, whose coordinates follow training compute within each family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import Floats, LawError

ROUNDS = 1000  # at most, of filling gaps
SETTLED = 1e-10  # standard deviations by which a filled gap may still move
MOST = 5  # components that are kept


@dataclass(frozen=True)
class Space:
    """A plane of capabilities, found in scores of models (n, B).

    Gaps are filled in standardised scores (`mean`, `scale`: (B,)) by their first component alone (`level`, `direction`:
    (B,)); `centre` (B,) and `axes` (K, B) are the components of the filled scores, and `explained` (K,) the shares of
    variance that they explain. Every axis points to where most scores rise.
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
        """Find it in scores (n, B) from 0 to 1, NaN where missing; raise LawError where there is nothing to find."""
        known = np.isfinite(scores)
        if len(scores) < 3 or (known.sum(0) < 3).any():
            raise LawError(
                f"{len(scores)} models, {known.sum(0).min()} of them with a score; three at least are needed"
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
        """Return scores (m, B) without gaps: what the first component of the others says, fitted to the rest of a row.

        Raises LawError for a row without any score.
        """
        known = np.isfinite(scores)
        if not known.any(axis=1).all():
            raise LawError(f"{int((~known.any(axis=1)).sum())} models have none of the benchmarks; leave them out")
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
        """Return it as the state of a fit."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Space:
        """Read it back."""
        return cls(**{name: np.asarray(value, dtype=np.float64) for name, value in state.items()})


def _components(centred: Floats) -> tuple[Floats, Floats]:
    """Return variances (B,) and axes (B, B) of centred rows (n, B), largest first, each with a positive sum."""
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    axes = axes.T[::-1]
    return np.maximum(variance[::-1], 0.0), axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)


def _filled(standard: Floats) -> tuple[Floats, Floats, Floats]:
    """Fill the gaps of standardised scores (n, B) by their first component, again until they stay.

    Returns the scores, the mean (B,) and the direction (B,) of the last round. The published program goes on for all
    of its 1,000 rounds, as its own test of convergence never holds; the change of the gaps tells as much sooner.
    """
    gaps = ~np.isfinite(standard)
    filled = np.where(gaps, 0.0, standard)
    for _ in range(ROUNDS):
        level = filled.mean(0)
        direction = _components(filled - level)[1][0]
        again = level + np.outer((filled - level) @ direction, direction)
        change = np.abs(again - filled)[gaps].max(initial=0.0)
        filled = np.where(gaps, again, filled)
        if change < SETTLED:
            break
    return filled, level, direction
