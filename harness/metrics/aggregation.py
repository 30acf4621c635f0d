"""Aggregate a metric over documents, with a standard error and an interval.

Without groups the value is the mean over documents. With groups it is the mean of the groups' means (`macro`) or of all
documents (`micro`). Groups are strata by default: the subjects or paradigms are fixed, and documents are sampled within
them (Cochran 1977, ch. 5). If the task declares clusters (such as passages with several questions), the groups are
sampled, too. Errors are then clustered (Miller 2024, eq. 4), with Student's t over groups.

Intervals are 95 %. Proportions have Wilson's interval with the effective number of documents, other means a normal one.
Metrics with their own aggregate have a bootstrap over documents (within strata, or of whole clusters) and its basic
interval, which corrects most of the bias; a percentile interval would double it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from harness.errors import MetricError, choose
from harness.host.distribution import missing
from harness.host.registries import Registries
from harness.metrics.intervals import Z, wilson
from harness.metrics.per_document import Values, per_document
from harness.metrics.resampling import BATCH
from harness.metrics.samples import Scored
from harness.metrics.standard_errors import Groups
from harness.types import Floats, Ints, Metric

RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and 95 % interval over `n` documents, of which `ties` have tied best choices."""

    value: float
    stderr: float
    low: float
    high: float
    n: int
    ties: int | None = None


def applicable(scores: Scored, registries: Registries, task_metric: str = "") -> list[Metric]:
    """Return the metrics whose needs these scores meet, by name.

    Those that compare texts with references are left out where a checker judged the texts, which they are not written
    for (programs, numbers), those of packages that are not installed, and those that are computed by name only, unless
    it is `task_metric`, the task's own.
    """
    every: list[Metric] = [registries.metrics[name] for name in registries.metrics]
    metrics = [metric for metric in every if not metric.by_name or metric.name == task_metric]
    offered = scores.offers - {"references"} if "samples" in scores.offers else scores.offers
    return [metric for metric in metrics if set(metric.needs) <= offered and not missing(metric.modules)]


def evaluate(metric: Metric, scores: Scored, average: str = "macro") -> Estimate:
    """Return the value of a metric over all documents, with its standard error and interval."""
    return estimate(metric, per_document(metric, scores), Groups.of(scores), average)


def estimate(metric: Metric, values: Values, groups: Groups, average: str = "macro") -> Estimate:
    """Return the value of a metric from its values per document; see `evaluate`."""
    return estimates(metric, tuple(column[None] for column in values.columns), [values.ties], groups, average)[0]


def estimates(
    metric: Metric,
    columns: tuple[Floats, ...],
    ties: Sequence[int | None],
    groups: Groups,
    average: str = "macro",
) -> list[Estimate]:
    """Return the value of a metric for each of k cells of one task, from columns (k, n) and ties; see `evaluate`."""
    aggregate = AGGREGATES.get(metric.aggregate) if isinstance(metric.aggregate, str) else None
    if aggregate is None:
        cells = (tuple(column[number] for column in columns) for number in range(len(ties)))
        return [_bootstrapped(metric, Values(cell, tied), groups) for cell, tied in zip(cells, ties, strict=True)]
    pairs = [(float(value), float(stderr)) for value, stderr in zip(*aggregate(*columns, groups, average), strict=True)]
    wide = float(t.ppf(0.975, groups.numbers.max())) if groups.clustered else Z
    are_rates = ((columns[0] == 0) | (columns[0] == 1)).all(axis=1) & (metric.aggregate == "mean")
    results = []
    for (value, stderr), column, is_rate, tied in zip(pairs, columns[0], are_rates, ties, strict=True):
        low, high = value - wide * stderr, value + wide * stderr
        if is_rate:
            low, high = wilson(value, _effective_documents(column, (value, stderr), groups, average), wide)
        least, most = metric.bounds
        low, high = (min(max(end, least), most) for end in (low, high))  # NaN stays
        results.append(Estimate(value, stderr, low, high, len(column), tied))
    return results


def paired_difference(metric: Metric, a: Scored, b: Scored, average: str = "macro") -> tuple[float, float]:
    """Return the value of a metric on `b` minus that on `a`, scores of the same documents, and its standard error.

    The error is that of paired differences (Miller 2024), within strata or by clusters.
    """
    first, second = per_document(metric, a).columns, per_document(metric, b).columns
    groups = Groups.of(a)
    if metric.aggregate == "mean":
        value, stderr = _mean((second[0] - first[0])[None], groups, average)
        return float(value[0]), float(stderr[0])
    if isinstance(metric.aggregate, str):
        (before, residuals_a), (after, residuals_b) = (_linearised(metric, columns) for columns in (first, second))
        return after - before, float(groups.errors((residuals_b - residuals_a)[None])[0])
    draws = _draws(metric, second, groups) - _draws(
        metric, first, groups
    )  # both with the same resamples: the seed is fixed
    return float(metric.aggregate(*second) - metric.aggregate(*first)), float(np.std(draws, ddof=1))


def _linearised(metric: Metric, columns: tuple[Floats, ...]) -> tuple[float, Floats]:
    """Return a ratio, or its exponential, and the linearised residual of each document (n,)."""
    top, bottom = columns
    value = top.sum() / bottom.sum()
    residuals = (top - value * bottom) / bottom.sum()
    if metric.aggregate == "exp_ratio":
        return float(np.exp(value)), np.exp(value) * residuals
    return float(value), residuals


def _mean(values: Floats, groups: Groups, average: str) -> tuple[Floats, Floats]:
    """Return the mean of each cell (k,) from values (k, n), and its error (k,)."""
    value = values.mean(axis=1)
    if average == "macro" and not groups.is_one:
        value = groups.means(values).mean(axis=1)
    return value, groups.errors(groups.shares(average) * (values - value[:, None]))


def _ratio(top: Floats, bottom: Floats, groups: Groups, _average: str) -> tuple[Floats, Floats]:
    """Return sum over sum, with the error of its linearisation (Cochran 1977, sec. 6.4)."""
    total = bottom.sum(axis=1)
    value = top.sum(axis=1) / total
    return value, groups.errors((top - value[:, None] * bottom) / total[:, None])


def _exp_ratio(top: Floats, bottom: Floats, groups: Groups, average: str) -> tuple[Floats, Floats]:
    value, stderr = _ratio(top, bottom, groups, average)
    return np.exp(value), np.exp(value) * stderr


AGGREGATES: dict[str, Callable[..., tuple[Floats, Floats]]] = {
    "mean": _mean,
    "ratio": _ratio,
    "exp_ratio": _exp_ratio,
}


def _effective_documents(column: Floats, proportion: tuple[float, float], groups: Groups, average: str) -> float:
    """Return the effective number of independent documents of a proportion (value, standard error).

    If all documents of each group agree, the error is 0. Half a success and half a failure are then added to each
    group.
    """
    if not groups.clustered and groups.is_one:
        return float(len(column))
    (value, stderr), shares = proportion, groups.shares(average)
    of_groups = np.bincount(groups.numbers, shares)
    if value in (0.0, 1.0):
        return float(1 / (of_groups**2).sum() if groups.clustered else 1 / (shares**2).sum())
    if not stderr > 0:
        counts = np.bincount(groups.numbers)
        rates = (np.bincount(groups.numbers, column) + 0.5) / (counts + 1)
        stderr = float(np.sqrt((of_groups**2 * rates * (1 - rates) / counts).sum()))
    return float(value * (1 - value) / stderr**2)


def _own_aggregate(metric: Metric) -> Callable[..., Floats]:
    if isinstance(metric.aggregate, str):
        raise MetricError(
            f"metric {metric.name!r}: aggregate={metric.aggregate!r}; expected one of {choose(AGGREGATES)}"
        )
    return metric.aggregate


def _bootstrapped(metric: Metric, values: Values, groups: Groups) -> Estimate:
    """Bootstrap a metric with its own aggregate over documents, or over whole clusters."""
    aggregate = _own_aggregate(metric)
    value = float(aggregate(*values.columns))
    draws = _draws(metric, values.columns, groups)
    low, high = 2 * value - np.quantile(draws, [0.975, 0.025])
    low = max(low, 0.0) if draws.min() >= 0 else low  # a value that is never negative has no negative bound
    low, high = np.clip((low, high), *metric.bounds)
    n = len(values.columns[0])
    return Estimate(value, float(draws.std(ddof=1)), float(min(low, value)), float(max(high, value)), n, values.ties)


def _draws(metric: Metric, columns: tuple[Floats, ...], groups: Groups) -> Floats:
    """Return a metric's own aggregate in resamples of documents (R,), which are the same in every call."""
    aggregate = _own_aggregate(metric)
    rng = np.random.default_rng(0)
    resamples = _clusters(groups.numbers, rng) if groups.clustered else _documents(groups.strata, rng)
    return np.concatenate([aggregate(*(column[rows] for column in columns)) for rows in resamples])


def _documents(strata: Ints, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield numbers of documents (b, n), drawn within strata, in batches that fit into memory."""
    members = [np.flatnonzero(strata == stratum) for stratum in range(int(strata.max()) + 1)]
    for begin in range(0, RESAMPLES, BATCH):
        count = min(BATCH, RESAMPLES - begin)
        yield np.hstack([rows[rng.integers(len(rows), size=(count, len(rows)))] for rows in members])


def _clusters(groups: Ints, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield the documents (1, m) of groups drawn with replacement, as many as there are groups."""
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    for _ in range(RESAMPLES):
        yield np.concatenate([members[group] for group in rng.integers(len(members), size=len(members))])[None]
