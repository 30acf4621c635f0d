"""How long the rest of a run takes, from the time that finished documents took.

A document takes a + b x parameters: a is what does not depend on the model, b is arithmetic. With one size measured,
a and b cannot be told apart, so there is a range: from "all of it is a" to "as much of it is b as a slow core allows".
With two sizes they are fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

SLOWEST = 1e-8  # seconds per document and parameter: 100 tokens at 2e10 FLOP/s, a slow core


@dataclass
class Estimate:
    """Seconds that documents took, by the number of parameters of their checkpoint."""

    documents: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def add(self, params: int, documents: int, seconds: float) -> None:
        """Keep what some documents took."""
        self.documents[params] = self.documents.get(params, 0) + documents
        self.seconds[params] = self.seconds.get(params, 0.0) + seconds

    def left(self, remaining: Mapping[int, int]) -> tuple[float, float]:
        """Return the least and the most seconds that the remaining documents take, by parameters; NaN before any.

        >>> estimate = Estimate()
        >>> estimate.add(1_000_000, 100, 1.0)
        >>> [round(seconds, 1) for seconds in estimate.left({1_000_000: 100, 100_000_000: 100})]
        [2.0, 101.0]
        """
        if not self.documents:
            return float("nan"), float("nan")
        if len(self.documents) > 1:
            a, b = self._fitted()
            seconds = sum(n * (a + b * params) for params, n in remaining.items())
            return seconds, seconds
        ((params, documents),) = self.documents.items()
        each = self.seconds[params] / documents
        slope = min(SLOWEST, each / max(params, 1))
        steepest = sum(n * (each + slope * max(own - params, -params)) for own, n in remaining.items())
        flat = each * sum(remaining.values())
        return min(flat, steepest), max(flat, steepest)

    def _fitted(self) -> tuple[float, float]:
        """Return a and b by non-negative least squares, each size weighted by its share of the time."""
        sizes = sorted(self.documents)
        n = np.array([self.documents[size] for size in sizes], dtype=np.float64)
        matrix = np.column_stack([n, n * np.array(sizes, dtype=np.float64)])
        seconds = np.array([self.seconds[size] for size in sizes])
        weight = 1 / np.sqrt(seconds + seconds.mean() / 100)
        scale = np.maximum(matrix.max(axis=0), 1e-300)
        found, _ = nnls(weight[:, None] * matrix / scale, weight * seconds)
        return float(found[0] / scale[0]), float(found[1] / scale[1])
