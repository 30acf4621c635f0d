"""Aggregate a metric over documents, with a standard error and an interval.

A value over documents without groups is their mean. With groups (subjects, paradigms) it is the mean of the groups'
means (`macro`) or of all documents (`micro`), and the standard error is clustered by group: documents of one group
are not independent (Miller 2024, eq. 4). Intervals are 95 %: Wilson's for shares of documents, Student's t over groups
where there are any, normal otherwise. For metrics with an aggregate of their own, a bootstrap over documents (whole
groups where there are any) says by how much the value may be off: the basic interval, which takes most of a bias out
that the percentiles of a bootstrap would put in twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t

from harness.errors import MetricError, choose
from harness.registries import Registries
from harness.samples import Scored
from harness.scores import PerDoc
from harness.types import Floats, Ints, Metric

Z = 1.959963984540054  # 97.5 % of the normal distribution
RESAMPLES = 1000
SMALLEST_SHAPE = 0.1  # of gamma weights, for two groups
BATCH = 50  # resamples of documents at a time


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and 95 % interval over `n` documents, of which `ties` have tied best choices."""

    value: float
    stderr: float
    low: float
    high: float
    n: int
    ties: int | None = None


@dataclass(frozen=True)
class Values:
    """What a metric says per document (n,): values, or the columns of a ratio or of an aggregate of its own."""

    columns: tuple[Floats, ...]
    ties: int | None = None


def applicable(scores: Scored, registries: Registries) -> list[Metric]:
    """Return the metrics whose needs these scores meet, by name."""
    metrics: list[Metric] = [registries.metrics[name] for name in registries.metrics]
    return [metric for metric in metrics if set(metric.needs) <= scores.offers]


def per_document(metric: Metric, scores: Scored) -> Values:
    """Apply a metric to every document; raise MetricError where its needs are not met or its values are not finite."""
    missing = set(metric.needs) - scores.offers
    if missing:
        raise MetricError(f"metric {metric.name!r} needs {choose(missing)}; these scores offer {choose(scores.offers)}")
    result = metric.fn(scores)
    ties = int(result.tied.sum()) if isinstance(result, PerDoc) else None
    found = result.values if isinstance(result, PerDoc) else result
    columns = tuple(np.asarray(c, dtype=np.float64) for c in (found if isinstance(found, tuple) else (found,)))
    _check(metric, columns, scores)
    return Values(columns, ties)


def _check(metric: Metric, columns: tuple[Floats, ...], scores: Scored) -> None:
    expected = 2 if metric.aggregate in {"ratio", "exp_ratio"} else 1 if metric.aggregate == "mean" else len(columns)
    if len(columns) != expected or any(column.shape != (len(scores),) for column in columns):
        shapes = ", ".join(str(column.shape) for column in columns)
        raise MetricError(f"metric {metric.name!r} returned {shapes}; expected {expected} of ({len(scores)},)")
    for column in columns:
        bad = np.flatnonzero(~np.isfinite(column))
        if len(bad):
            raise MetricError(f"metric {metric.name!r} is {column[bad[0]]} for document {scores.doc_ids[bad[0]]}")


def evaluate(metric: Metric, scores: Scored, average: str = "macro") -> Estimate:
    """Return the value of a metric over all documents, with its uncertainty."""
    values = per_document(metric, scores)
    groups = _group_numbers(scores)
    aggregate = AGGREGATES.get(metric.aggregate) if isinstance(metric.aggregate, str) else None
    if aggregate is None:
        return _bootstrapped(metric, values, groups)
    value, stderr = aggregate(*values.columns, groups, average)
    low, high = _interval(metric, values, value, stderr, groups)
    return Estimate(value, stderr, low, high, len(scores), values.ties)


def paired_difference(metric: Metric, a: Scored, b: Scored, average: str = "macro") -> tuple[float, float]:
    """Return the value of a metric on `b` minus that on `a`, scores of the same documents, and its standard error.

    The error is that of paired differences (Miller 2024), clustered by group as the metric's own.
    """
    first, second = per_document(metric, a).columns, per_document(metric, b).columns
    groups = _group_numbers(a)
    if metric.aggregate == "mean":
        return _mean(second[0] - first[0], groups, average)
    if isinstance(metric.aggregate, str):
        (before, residuals_a), (after, residuals_b) = (_linearised(metric, columns) for columns in (first, second))
        residuals = residuals_b - residuals_a
        error = _clustered(residuals, groups) if groups is not None else _standard_error(residuals) * len(residuals)
        return after - before, float(error)
    draws = _draws(metric, second, groups) - _draws(metric, first, groups)  # of the same documents: the seed is fixed
    return float(metric.aggregate(*second) - metric.aggregate(*first)), float(np.std(draws, ddof=1))


def _linearised(metric: Metric, columns: tuple[Floats, ...]) -> tuple[float, Floats]:
    """Return a ratio, or its exponential, and what each document adds to its error (n,)."""
    top, bottom = columns
    value = top.sum() / bottom.sum()
    residuals = (top - value * bottom) / bottom.sum()
    if metric.aggregate == "exp_ratio":
        return float(np.exp(value)), np.exp(value) * residuals
    return float(value), residuals


def _group_numbers(scores: Scored) -> Ints | None:
    """Return the number of each document's group (n,), or None where there are fewer than two groups."""
    names, numbers = np.unique(scores.group.astype(str), return_inverse=True)
    return numbers.astype(np.int64) if len(names) > 1 else None


def _mean(values: Floats, groups: Ints | None, average: str) -> tuple[float, float]:
    if groups is None:
        return float(values.mean()), _standard_error(values)
    counts = np.bincount(groups)
    if average == "macro":
        means = np.bincount(groups, values) / counts
        return float(means.mean()), _standard_error(means)
    value = float(values.mean())
    return value, _clustered(values - value, groups) / len(values)


def _ratio(top: Floats, bottom: Floats, groups: Ints | None, _average: str) -> tuple[float, float]:
    """Return sum over sum, with the error of its linearisation (Cochran 1977, sec. 6.4)."""
    value = top.sum() / bottom.sum()
    residuals = top - value * bottom
    error = _clustered(residuals, groups) if groups is not None else _standard_error(residuals) * len(top)
    return float(value), float(error / bottom.sum())


def _exp_ratio(top: Floats, bottom: Floats, groups: Ints | None, average: str) -> tuple[float, float]:
    value, stderr = _ratio(top, bottom, groups, average)
    return float(np.exp(value)), float(np.exp(value) * stderr)


AGGREGATES: dict[str, Callable[..., tuple[float, float]]] = {
    "mean": _mean,
    "ratio": _ratio,
    "exp_ratio": _exp_ratio,
}


def document_weights(scores: Scored, count: int, rng: np.random.Generator) -> Floats:
    """Return weights of documents (count, n): a Bayesian bootstrap (Rubin 1981), whole groups where there are any.

    Weights are gamma with shape (G - 2) / G for G groups (or documents), not Rubin's 1: the weighted mean then varies
    by the squared standard error, s^2 / G; with Rubin's it is (G - 1) / (G + 1) of that, 40 % too little for 4 groups.
    """
    groups = _group_numbers(scores)
    units = np.arange(len(scores)) if groups is None else groups
    count_units = int(units.max()) + 1
    shape = max((count_units - 2) / count_units, SMALLEST_SHAPE)
    return rng.gamma(shape, size=(count, count_units))[:, units]


def reweighted(metric: Metric, scores: Scored, weights: Floats, average: str = "macro") -> Floats:
    """Return the value of a metric for each row of document weights (R, n); raise MetricError where it has none."""
    if not isinstance(metric.aggregate, str):
        raise MetricError(
            f"metric {metric.name!r} has an aggregate of its own, which takes no weights; resample runs instead"
        )
    columns, groups = per_document(metric, scores).columns, _group_numbers(scores)
    if metric.aggregate != "mean":
        ratio = (weights @ columns[0]) / (weights @ columns[1])
        return np.exp(ratio) if metric.aggregate == "exp_ratio" else ratio
    if groups is not None and average == "macro":
        weights = weights / np.bincount(groups)[groups]
    value: Floats = (weights @ columns[0]) / weights.sum(axis=1)
    return value


def _standard_error(values: Floats) -> float:
    """Return the standard error of a mean; one value alone says nothing of it (NaN)."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _clustered(residuals: Floats, groups: Ints) -> float:
    """Return the standard error of a sum of residuals that are dependent within groups."""
    sums = np.bincount(groups, residuals)
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)))


def _interval(metric: Metric, values: Values, value: float, stderr: float, groups: Ints | None) -> tuple[float, float]:
    column = values.columns[0]
    is_share = metric.aggregate == "mean" and groups is None and bool(np.isin(column, (0.0, 1.0)).all())
    if is_share:
        return _wilson(value, len(column))
    wide = Z if groups is None else float(t.ppf(0.975, groups.max()))
    return value - wide * stderr, value + wide * stderr


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of n (Wilson 1927); it does not collapse at 0 and 1."""
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def _bootstrapped(metric: Metric, values: Values, groups: Ints | None) -> Estimate:
    """Resample documents, or whole groups, around an aggregate of the metric's own."""
    aggregate: Callable[..., Any] = metric.aggregate  # type: ignore[assignment]  # AGGREGATES holds the names
    value = float(aggregate(*values.columns))
    draws = _draws(metric, values.columns, groups)
    low, high = 2 * value - np.quantile(draws, [0.975, 0.025])
    low = max(low, 0.0) if draws.min() >= 0 else low  # what is never below 0 stays so
    n = len(values.columns[0])
    return Estimate(value, float(draws.std(ddof=1)), float(min(low, value)), float(max(high, value)), n, values.ties)


def _draws(metric: Metric, columns: tuple[Floats, ...], groups: Ints | None) -> Floats:
    """Return the aggregate of a metric's own in resamples of documents (R,), the same ones at every call."""
    aggregate: Callable[..., Any] = metric.aggregate  # type: ignore[assignment]  # AGGREGATES holds the names
    rng = np.random.default_rng(0)
    resamples = _documents(len(columns[0]), rng) if groups is None else _clusters(groups, rng)
    return np.concatenate([aggregate(*(column[rows] for column in columns)) for rows in resamples])


def _documents(n: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield numbers of documents (b, n), in batches that fit into memory."""
    for begin in range(0, RESAMPLES, BATCH):
        yield rng.integers(n, size=(min(BATCH, RESAMPLES - begin), n))


def _clusters(groups: Ints, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield the documents (1, m) of as many groups as there are, drawn with replacement."""
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    for _ in range(RESAMPLES):
        yield np.concatenate([members[group] for group in rng.integers(len(members), size=len(members))])[None]
