"""TimeEstimate the remaining time of a run from the time of finished documents.

A document takes a + b x parameters seconds: a does not depend on the model, b is the time of arithmetic. One measured
size does not determine a and b. The estimate is then a range: from b = 0 to the largest b of a slow core. With two
sizes, a and b are fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import nnls

SLOWEST = 1e-8  # seconds per document and parameter: 100 tokens at 2e10 FLOP/s, a slow core


@dataclass
class TimeEstimate:
    """Measured seconds of documents, by the number of parameters of their checkpoint."""

    documents: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def add(self, params: int, documents: int, seconds: float) -> None:
        """Record the seconds of some documents."""
        self.documents[params] = self.documents.get(params, 0) + documents
        self.seconds[params] = self.seconds.get(params, 0.0) + seconds

    def left(self, remaining: Mapping[int, int]) -> tuple[float, float]:
        """Return the smallest and largest estimate of the remaining seconds; NaN before the first measurement.

        `remaining` is the number of documents by parameters.

        >>> estimate = TimeEstimate()
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
        per_document = self.seconds[params] / documents
        slope = min(SLOWEST, per_document / max(params, 1))
        steepest = sum(n * (per_document + slope * max(size - params, -params)) for size, n in remaining.items())
        flat = per_document * sum(remaining.values())
        return min(flat, steepest), max(flat, steepest)

    def _fitted(self) -> tuple[float, float]:
        """Return a and b by non-negative least squares, each size weighted by its share of the time."""
        sizes = sorted(self.documents)
        n = np.array([self.documents[size] for size in sizes], dtype=np.float64)
        matrix = np.column_stack([n, n * np.array(sizes, dtype=np.float64)])
        seconds = np.array([self.seconds[size] for size in sizes])
        weight = 1 / np.sqrt(seconds + seconds.mean() / 100)
        scale = np.maximum(matrix.max(axis=0), 1e-300)
        coefficients, _ = nnls(weight[:, None] * matrix / scale, weight * seconds)
        return float(coefficients[0] / scale[0]), float(coefficients[1] / scale[1])
