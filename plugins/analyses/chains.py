"""Where a score loses its relation to scale: correlations of every document, step by step (Schaeffer et al. 2024).

ln p_vocab(gold) -> p_vocab -> p_choices -> Brier -> accuracy. Each step brings in the wrong choices a little more, or
throws something away. A document's correlation with scale is 0 where its value is the same at all checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, Range
from harness_plugins.analyses.items import Items, over_documents
from harness_plugins.analyses.shapes import CORRELATIONS, EXACT, ORDERS, spearman

STRONG = 0.75  # a correlation beyond this is counted as strong


@dataclass(frozen=True)
class Step:
    """How the values of one step go with scale: correlations (n,) of all documents, by name, and the share of
    documents whose value is the same everywhere.
    """

    name: str
    rho: dict[str, Floats]
    constant: float

    def strong(self, correlation: str = "spearman") -> Floats:
        """Say for each document (n,) whether it goes with scale, up or down."""
        return (np.abs(self.rho[correlation]) > STRONG).astype(np.float64)


def correlations(items: Items) -> list[Step]:
    """Return Pearson's, Spearman's and Kendall's correlation of every document with log scale, at every step."""
    return [
        Step(
            name,
            {kind: correlate(items.x, values) for kind, correlate in CORRELATIONS.items()},
            float((np.ptp(values, axis=1) == 0).mean()),
        )
        for name, values in items.chain.items()
    ]


def by_chance(x: Floats, *, seed: int = 0) -> tuple[float, float]:
    """Return mean |rho| (Spearman) and the share beyond 0.75 of values that have nothing to do with scale x (M,).

    Of all orders for up to 7 checkpoints, of 9,999 otherwise; values without ties.
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
class Loss:
    """How far documents keep to scale at each step, and at which step they lose most of it.

    `kept` is the mean of |rho| over the largest |rho| that a document's values would have in any order: a document
    that turns from wrong to right once has 1, though ties leave its |rho| below 1. Documents whose value is the same
    everywhere have no correlation to lose and are left out of that step and of the `falls` to it. `at` is the step of
    the largest fall, where its interval lies above 0 and above every other fall; steps that cannot be told apart are
    all named; it is empty where nothing falls. Intervals are over documents, those of falls hold together for all steps
    (Bonferroni). `agree` of `ladders`, each without one training run, say the same.
    """

    kept: dict[str, float]
    falls: dict[str, Range]
    at: tuple[str, ...]
    agree: int
    ladders: int


def predictability_lost(items: Items, *, correlation: str = "spearman", level: float = 0.9) -> Loss:
    """Say at which step documents lose their correlation with scale, and whether that hangs on one training run."""
    kept, falls, at = _fall(items.x, items.chain, items.groups, correlation=correlation, level=level)
    others = list(_without_one_run(items, correlation, level))
    return Loss(kept, falls, at, sum(other == at for other in others), len(others))


def _without_one_run(items: Items, correlation: str, level: float) -> Iterator[tuple[str, ...]]:
    runs = items.runs
    for run in sorted(set(runs)):
        kept = runs != run
        if kept.sum() > 2:
            chain = {name: values[:, kept] for name, values in items.chain.items()}
            yield _fall(items.x[kept], chain, items.groups, correlation=correlation, level=level)[2]


def _fall(
    x: Floats, chain: dict[str, Floats], units: Ints, *, correlation: str, level: float
) -> tuple[dict[str, float], dict[str, Range], tuple[str, ...]]:
    """Return what is kept at each step, the falls, and the steps of the largest one."""
    shares = {name: _share(x, values, correlation) for name, values in chain.items()}
    kept = {name: float(np.nanmean(share)) if np.isfinite(share).any() else np.nan for name, share in shares.items()}
    names, columns = list(chain), np.stack(list(shares.values()))
    falls = {name: _linear(fall) for name, fall in zip(names[1:], columns[:-1] - columns[1:], strict=True)}
    tested = max(sum(np.ptp(fall) > 0 for fall in falls.values()), 1)
    together = 1 - (1 - level) / tested
    ranges = {name: over_documents(fall, units, together) for name, fall in falls.items()}
    clear = [name for name, one in ranges.items() if one.low > 0]
    if not clear:
        return kept, ranges, ()
    best = max(clear, key=lambda name: ranges[name].value)
    rivals = (
        name for name in clear if name == best or not over_documents(falls[best] - falls[name], units, together).low > 0
    )
    return kept, ranges, tuple(rivals)


def _share(x: Floats, values: Floats, correlation: str) -> Floats:
    """Return |rho| over the largest that the values (n, M) have in any order; NaN (n,) where they are all the same."""
    correlate = CORRELATIONS[correlation]
    order = np.argsort(np.argsort(x, kind="stable"), kind="stable")
    most = correlate(x, np.sort(values, axis=1)[:, order])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(most > 0, np.minimum(np.abs(correlate(x, values)) / most, 1.0), np.nan)


def _linear(fall: Floats) -> Floats:
    """Return values (n,) whose mean, and its error, are those of what is not NaN; all NaN where fewer than two are."""
    there = np.isfinite(fall)
    if there.sum() < 2:
        return np.full(len(fall), np.nan)
    mean = fall[there].mean()
    return np.asarray(mean + np.where(there, fall - mean, 0.0) / there.mean())
