"""Correlation of every document's score with scale, from log-probability to accuracy (Schaeffer et al. 2024).

ln p_vocab(gold) -> p_vocab -> p_choices -> Brier -> accuracy. Each step adds the wrong choices or discards information.
A document has correlation 0 if its value is the same at all checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, Range
from harness_plugins.analyses.correlations import CORRELATIONS, EXACT, ORDERS, spearman
from harness_plugins.analyses.document_scores import DocumentScores, over_documents

STRONG = 0.75  # threshold on |correlation|


@dataclass(frozen=True)
class StepCorrelations:
    """Correlations (n,) of the values of one step with scale, by name of the correlation.

    `constant` is the share of documents with the same value at all checkpoints.
    """

    name: str
    rho: dict[str, Floats]
    constant: float

    def strong(self, correlation: str = "spearman") -> Floats:
        """Return 1 for each document (n,) with |correlation| above 0.75, else 0."""
        return (np.abs(self.rho[correlation]) > STRONG).astype(np.float64)


def correlations(documents: DocumentScores) -> list[StepCorrelations]:
    """Return Pearson's, Spearman's and Kendall's correlation of every document with log scale, at every step."""
    return [
        StepCorrelations(
            name,
            {kind: correlate(documents.x, values) for kind, correlate in CORRELATIONS.items()},
            float((np.ptp(values, axis=1) == 0).mean()),
        )
        for name, values in documents.steps.items()
    ]


def correlation_by_chance(x: Floats, *, seed: int = 0) -> tuple[float, float]:
    """Return mean |rho| (Spearman) and the share above 0.75 for values independent of scale x (M,).

    Computed over all orders for up to 7 checkpoints, else over 9,999 random orders; values without ties.
    """
    from itertools import permutations

    if len(x) <= EXACT:
        orders = np.array(list(permutations(range(len(x)))), dtype=np.float64)
    else:
        rows = np.tile(np.arange(len(x), dtype=np.float64), (ORDERS, 1))
        orders = np.random.default_rng(seed).permuted(rows, axis=1)
    rho = np.abs(spearman(x, orders))
    return float(rho.mean()), float((rho > STRONG).mean())


@dataclass(frozen=True)
class PredictabilityLoss:
    """Mean relative correlation with scale at each step, and the step at which it decreases most.

    `relative` is the mean of |rho| divided by the largest |rho| that the same values can have in any order, so that a
    document that changes once from wrong to right has 1 in spite of ties. Documents with a constant value are excluded
    from that step and from the `falls` to it. `at` is the step of the largest decrease, provided that its interval is
    above 0. It also names every step whose decrease is not significantly smaller. It is empty if nothing decreases.
    Intervals are over documents. Those of `falls` are simultaneous for all steps (Bonferroni). `agree` of `ladders`,
    each without one training run, give the same `at`.
    """

    relative: dict[str, float]
    falls: dict[str, Range]
    at: tuple[str, ...]
    agree: int
    ladders: int


def predictability_lost(
    documents: DocumentScores, *, correlation: str = "spearman", level: float = 0.9
) -> PredictabilityLoss:
    """Find the step at which documents lose their correlation with scale, and repeat it without each training run."""
    relative, falls, at = _fall(documents.x, documents.steps, documents.groups, correlation=correlation, level=level)
    others = list(_without_one_run(documents, correlation, level))
    return PredictabilityLoss(relative, falls, at, sum(other == at for other in others), len(others))


def _without_one_run(documents: DocumentScores, correlation: str, level: float) -> Iterator[tuple[str, ...]]:
    runs = documents.runs
    for run in sorted(set(runs)):
        others = runs != run
        if others.sum() > 2:
            steps = {name: values[:, others] for name, values in documents.steps.items()}
            yield _fall(documents.x[others], steps, documents.groups, correlation=correlation, level=level)[2]


def _fall(
    x: Floats, steps: dict[str, Floats], units: Ints, *, correlation: str, level: float
) -> tuple[dict[str, float], dict[str, Range], tuple[str, ...]]:
    """Return the mean relative correlation of each step, the decreases, and the steps of the largest decrease."""
    shares = {name: _share(x, values, correlation) for name, values in steps.items()}
    relative = {
        name: float(np.nanmean(share)) if np.isfinite(share).any() else np.nan for name, share in shares.items()
    }
    names, columns = list(steps), np.stack(list(shares.values()))
    falls = {name: _linear(fall) for name, fall in zip(names[1:], columns[:-1] - columns[1:], strict=True)}
    tested = max(sum(np.ptp(fall) > 0 for fall in falls.values()), 1)
    together = 1 - (1 - level) / tested
    ranges = {name: over_documents(fall, units, together) for name, fall in falls.items()}
    clear = [name for name, interval in ranges.items() if interval.low > 0]
    if not clear:
        return relative, ranges, ()
    best = max(clear, key=lambda name: ranges[name].value)
    rivals = (
        name for name in clear if name == best or not over_documents(falls[best] - falls[name], units, together).low > 0
    )
    return relative, ranges, tuple(rivals)


def _share(x: Floats, values: Floats, correlation: str) -> Floats:
    """Return |rho| over the largest |rho| of the same values (n, M) in any order (n,); NaN for constant values."""
    correlate = CORRELATIONS[correlation]
    order = np.argsort(np.argsort(x, kind="stable"), kind="stable")
    most = correlate(x, np.sort(values, axis=1)[:, order])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(most > 0, np.minimum(np.abs(correlate(x, values)) / most, 1.0), np.nan)


def _linear(fall: Floats) -> Floats:
    """Return values (n,) with the mean and standard error of the finite ones; all NaN if fewer than two are finite."""
    finite = np.isfinite(fall)
    if finite.sum() < 2:
        return np.full(len(fall), np.nan)
    mean = fall[finite].mean()
    return np.asarray(mean + np.where(finite, fall - mean, 0.0) / finite.mean())
