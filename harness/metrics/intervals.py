"""Intervals of proportions with positive width, also for a sample without variance."""

from __future__ import annotations

import math

Z = 1.959963984540054  # 97.5 % of the normal distribution


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """Return Wilson's interval of a proportion of n (Wilson 1927); its width is positive at 0 and 1.

    >>> [round(end, 4) for end in wilson(1.0, 400)]
    [0.9905, 1.0]
    """
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(max(share * (1 - share), 0.0) / n + z**2 / (4 * n**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def shown_error(stderr: float, low: float, high: float) -> float:
    """Return a standard error, or width / (2 x 1.96) of the 95 % interval if all documents agree and it is 0.

    >>> round(shown_error(0.0, 0.9905, 1.0), 4)
    0.0024
    """
    return stderr if stderr != 0 or not high > low else (high - low) / (2 * Z)
