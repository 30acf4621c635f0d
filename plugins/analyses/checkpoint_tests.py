"""Tests of the difference of two checkpoints on one task: by documents, or by standard errors for imported points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Measured

if TYPE_CHECKING:
    from harness import PointStore


@dataclass(frozen=True)
class Duel:
    """Two checkpoints on one task: their values, the difference B - A, and its test (p is NaN if unknown).

    For scores that are right or wrong, `wins` counts the documents that only A, and only B, has right.
    """

    task: str
    metric: str
    a: float
    b: float
    difference: Measured
    wins: tuple[int, int] | None
    test: str
    p: float
    is_b_better: bool


def compared(store: PointStore, first: Any, second: Any) -> Duel | None:
    """Compare two checkpoints on one task, by documents or by standard errors."""
    if first["cell"] is not None:
        return _duel(store, first["cell"], second["cell"])
    from harness.points import shown_error

    errors = [shown_error(*(float(row[name]) for name in ("stderr", "low", "high"))) for row in (first, second)]
    a, b = float(first["value"]), float(second["value"])
    difference = Measured(b - a, float(np.hypot(errors[0], errors[1])))
    metric = str(first["metric"])
    better = difference.value > 0 if store.rises(metric) else difference.value < 0
    return Duel(str(first["task"]), metric, a, b, difference, None, "z", _normal(difference), better)


def _normal(difference: Measured) -> float:
    """Return the two-sided p of a difference of independent measurements; NaN where an error is unknown."""
    from scipy.stats import norm

    if not difference.stderr > 0:
        return float("nan")
    return float(2 * norm.sf(abs(difference.value) / difference.stderr))


def _duel(store: PointStore, first: Any, second: Any) -> Duel | None:
    """Test the difference of two checkpoints on one task; return None if its metric does not apply."""
    from harness.points import evaluate, paired_difference

    meta = store.task_meta[first.id.fingerprint]
    metric, a, b = store.registries.metrics[meta["metric"]], store.load(first.id), store.load(second.id)
    if not set(metric.needs) <= a.offers & b.offers:
        return None
    average = meta["average"]
    difference = Measured(*paired_difference(metric, a, b, average))
    counts = _right(metric, a, b) if _is_plain(a, average) else None
    test, p = ("McNemar", _mcnemar(*counts)) if counts else ("t", _student(difference, a))
    better = difference.value > 0 if metric.higher_is_better else difference.value < 0
    values = [evaluate(metric, scores, average).value for scores in (a, b)]
    return Duel(first.task, metric.name, values[0], values[1], difference, counts, test, p, better)


def _is_plain(scores: Any, average: str) -> bool:
    """Tell whether the task's value is the mean of independent documents."""
    return not scores.clustered and (average == "micro" or len(set(scores.group.astype(str))) == 1)


def _right(metric: Any, a: Any, b: Any) -> tuple[int, int] | None:
    """Return the numbers of documents that only A, and only B, has right; None if scores are not right or wrong."""
    from harness.points import per_document

    if metric.aggregate != "mean":
        return None
    first, second = (per_document(metric, scores).columns[0] for scores in (a, b))
    if not np.isin([first, second], (0.0, 1.0)).all():
        return None
    return int((first > second).sum()), int((second > first).sum())


def _mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947): a binomial test of the discordant documents."""
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _student(difference: Measured, scores: Any) -> float:
    """Return the two-sided p of a paired difference, by Student's t over documents or clusters."""
    from scipy.stats import t

    units = len(set(scores.group.astype(str))) if scores.clustered else len(scores)
    if not np.isfinite(difference.stderr):
        return float("nan")
    if difference.stderr == 0:
        return 1.0 if difference.value == 0 else 0.0
    return float(2 * t.sf(abs(difference.value) / difference.stderr, max(units - 1, 1)))
