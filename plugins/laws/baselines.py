"""Baselines: trivial laws that every other law must beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

import harness
from harness import Fitted, Floats, LawError

if TYPE_CHECKING:
    import pandas as pd

ORDER = ("params", "tokens", "step", "flops")  # sort order that defines the last point of a size and the largest size


class Last:
    """y = the last value of the largest size: no further change.

    The predicted scatter is the root mean square of the changes between consecutive sizes. Needs params and at least
    two sizes.
    """

    name = "last"
    avoid = "as a prediction; it is the baseline that every law must beat"
    features = ("flops",)
    parameters = ("y", "change")
    needs = ("params",)
    baseline = True

    def fit(self, points: pd.DataFrame, value: str, rng: np.random.Generator) -> Fitted:  # noqa: ARG002  # nothing is drawn
        """Find the last value of every size."""
        order = [name for name in ORDER if name in points.columns]
        ends = points.sort_values(order, kind="stable").groupby("params").tail(1)[value].to_numpy(dtype=np.float64)
        if len(ends) < 2:
            raise LawError(f"law {self.name!r} needs two sizes, found {len(ends)}")
        change = float(np.sqrt(np.mean(np.diff(ends) ** 2)))
        return Fitted({"y": float(ends[-1]), "change": change}, {"sizes": len(ends)}, free=1)

    def predict(self, fitted: Fitted, points: pd.DataFrame) -> Floats:
        """Return the last value, (n,)."""
        return np.full(len(points), fitted.parameters["y"])

    def resamples(
        self,
        points: pd.DataFrame,  # noqa: ARG002  # the contract of procedures; so are the others
        value: str,  # noqa: ARG002
        fitted: Fitted,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> Iterator[Fitted]:
        """Yield the unchanged fit: the last value does not depend on the other points."""
        while True:
            yield fitted

    def sample(self, fitted: Fitted, points: pd.DataFrame, rng: np.random.Generator) -> Floats:
        """Return the last value plus a random change of the size of the earlier ones."""
        change = fitted.parameters["change"] * rng.standard_t(max(int(fitted.state["sizes"]) - 1, 1))
        return np.full(len(points), fitted.parameters["y"] + change)


class Line:
    """y(C) = a + b log10 C: a straight line, unbounded on both sides."""

    name = "line"
    avoid = "for accuracies, which have a ceiling, beyond a small step; it is a baseline"
    features = ("flops",)
    parameters = {"a": (-np.inf, np.inf), "b": (-np.inf, np.inf)}
    example = {"a": -1.0, "b": 0.08}

    def formula(self, flops: Floats, a: Floats, b: Floats) -> Floats:
        """Return y."""
        return a + b * np.log10(flops)

    def guess(self, y: Floats, flops: Floats) -> dict[str, float]:
        """Return the least-squares solution."""
        b, a = np.polyfit(np.log10(flops), y, 1) if len(set(flops)) > 1 else (0.0, float(y.mean()))
        return {"a": float(a), "b": float(b)}


@harness.hookimpl
def register_laws(register: harness.Register) -> None:
    """Register the baselines."""
    register(Last())
    register(Line())
