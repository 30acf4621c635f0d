"""Reasons for a forecast to abstain, from the ladder and the interval alone, and what would help."""

from __future__ import annotations

import numpy as np

from harness.fitting.rungs import ForecastLadder
from harness.types import Floats

BELOW = 0.15  # under chance
MOST = 0.5  # of the sizes
DROP = 0.10  # from one size to a larger one that measurement error does not explain
RUN = 0.15  # standard deviation of runs, in logits, that is not held against a ladder
CERTAIN = 3.0  # standard errors
FEWEST = 3  # sizes
SAYS_LITTLE, SAYS_NOTHING = 0.25, 0.5  # width of the 90 % interval, as a share of the way from chance to 1


def error_of(value: Floats, docs: Floats) -> Floats:
    """Return the standard error (n,) of values as a law sees them: documents, and runs."""
    n = np.where(np.isfinite(docs), docs, np.inf)
    p = np.where(np.isfinite(docs), (value * docs + 1) / (docs + 2), value)
    return np.asarray(np.sqrt(p * (1 - p) / n + (RUN * p * (1 - p)) ** 2))


def _of_ladder(ladder: ForecastLadder) -> str:
    y = ladder.value[ladder.tops]
    errors = error_of(y, ladder.docs[ladder.tops])
    if ladder.rungs < FEWEST:
        return f"{ladder.rungs} sizes, and a curve needs {FEWEST}; add a size"
    why = _below(y, ladder.chance)
    if why:
        return why
    drops = y[:, None] - y[None, :]
    both = np.hypot(errors[:, None], errors[None, :])
    later = np.triu(np.ones_like(drops, dtype=bool), 1)
    sure = later & (drops > DROP) & (drops > CERTAIN * both)
    if sure.any():
        i, j = np.unravel_index(np.argmax(np.where(sure, drops, -np.inf)), drops.shape)
        return f"falls from {y[i]:.3g} to {y[j]:.3g} as size grows, which noise does not explain; add a size or a seed"
    if np.isfinite(ladder.chance) and ladder.chance > 0 and (y - ladder.chance < 2 * errors).all():
        return "at chance at every size; add a larger size, or measure bits per byte of right answers"
    return ""


def _below(y: Floats, chance: float) -> str:
    """Say that values (rungs,) are far below chance at the largest size or at most sizes: no curve starts there."""
    under = y < (chance if np.isfinite(chance) else 0.0) - BELOW
    look = f"below chance, {chance:.3g}; look at what the model prefers"
    if under[-1]:
        return f"{y[-1]:.3g} at the largest size is {look}"
    return f"{int(under.sum())} of {len(y)} sizes are far {look}" if under.mean() > MOST else ""


def _of_interval(ladder: ForecastLadder, low: float, high: float) -> str:
    if high - low <= SAYS_NOTHING * _range(ladder):
        return ""
    docs = ladder.docs[ladder.tops[-1]]
    limit = 3.3 * np.sqrt(0.25 / docs) if np.isfinite(docs) else 0.0
    advice = "measure more documents" if limit > (high - low) / 2 else "add a size nearer the target"
    return f"the interval is {high - low:.2f} wide, more than half of the way from chance to 1; {advice}"


def verdict(ladder: ForecastLadder, low: float, high: float, *, curve: bool = True) -> str:
    """Return forecast, wide, or abstain with the reason, for a 90 % interval from `low` to `high`, and what would help.

    Without a `curve`, where a family is forecast from others, its own sizes need not make one.
    """
    why = (_of_ladder(ladder) if curve else "") or _of_interval(ladder, low, high)
    if why:
        return f"abstain: {why}"
    return "wide" if high - low > SAYS_LITTLE * _range(ladder) else "forecast"


def _range(ladder: ForecastLadder) -> float:
    return 1 - (ladder.chance if np.isfinite(ladder.chance) else 0.0)
