"""Errors of estimates from subsets, measured on checkpoints that scored all documents, by repeated selection.

The targets are the largest sizes of each family. The largest sizes below them determine the selection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness import Floats, Ints, Measured, Table, UsageError
from harness_plugins.analyses import selection
from harness_plugins.analyses.document_pools import Pool, read_pools, strata_of
from harness_plugins.analyses.selection import METHODS, PredictedLosses

if TYPE_CHECKING:
    from harness import PointStore

SIZES = (25, 50, 100, 200, 400)


@dataclass(frozen=True)
class Target:
    """A checkpoint that scored all N documents of a task: losses (N,), strata (N,), and predicted losses."""

    pool: Pool
    row: int
    losses: Floats
    predicted: PredictedLosses
    strata: Ints

    @property
    def variance(self) -> float:
        """Return the variance of the loss over documents."""
        return float(self.losses.var(ddof=1))


@dataclass(frozen=True)
class SubsetErrors:
    """Squared errors (R,) of R subsets of `size` documents by one method, and the coverage of each interval."""

    target: Target
    method: str
    size: int
    squared: Floats
    covered: Floats

    @property
    def effective_size(self) -> float:
        """Return the number of uniformly selected documents with the same mean squared error.

        The error of n' such documents is (1 / n' - 1 / N) S^2 (Cochran 1977, eq. 2.14).
        """
        return float(1 / (1 / len(self.target.losses) + self.squared.mean() / self.target.variance))


def measure_subsets(
    store: PointStore,
    sizes: Sequence[int] = SIZES,
    *,
    task: str | None = None,
    metric: str | None = None,
    where: str | None = None,
    target: str | None = None,
    rungs: int = 1,
    strata: str | None = None,
    uniform: float = 0.2,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> list[Table]:
    """Return tables of the error of estimating the mean over all documents from `sizes` documents, per method.

    :param target: an expression that selects the checkpoints to estimate (default: the last one of the largest size of
        each family). Checkpoints smaller than all targets determine the selection.

    The other parameters are those of `choose`. The tables: `active` (error and coverage per number of documents) and
    `active_tasks` (number of documents at which the error equals the standard error of the whole task). Raises
    UsageError if no target, no smaller checkpoint or no size below the number of documents is left.
    """
    rng = np.random.default_rng(seed)
    pools = list(read_pools(store, task, metric))
    targets = [
        checkpoint
        for pool in pools
        for checkpoint in _targets(store, pool, where=where, target=target, rungs=rungs, strata=strata)
    ]
    varying = [checkpoint for checkpoint in targets if checkpoint.variance > 0]
    if not varying:
        raise UsageError("all documents have the same loss on every target; one document gives the mean")
    results = [
        result
        for checkpoint in varying
        for method in METHODS
        for result in _errors(checkpoint, method, sizes=sizes, uniform=uniform, draws=draws, level=level, rng=rng)
    ]
    if not results:
        most = max(len(checkpoint.losses) for checkpoint in varying)
        sizes_found = ", ".join(map(str, sizes))
        raise UsageError(
            f"--n must be below the number of documents of a task, at most {most}; found --n {sizes_found}"
        )
    constant = [f"{checkpoint.pool.task} {_label(checkpoint)}" for checkpoint in targets if not checkpoint.variance]
    notes = (f"Excluded, because all documents have the same loss: {', '.join(constant)}.",) if constant else ()
    return [_by_size(results, draws, level, notes), _by_task(results, notes)]


def _targets(
    store: PointStore, pool: Pool, *, where: str | None, target: str | None, rungs: int, strata: str | None
) -> Iterator[Target]:
    rows = pool.largest(target, 1)
    params = pool.points["params"]
    below = f"params < {params[rows].min():.0f}"
    predicted = pool.predicted_losses(pool.largest(f"({where}) and {below}" if where else below, rungs))
    numbers, _ = strata_of(store, pool, predicted, strata)
    for row in rows:
        yield Target(pool, int(row), pool.weights * pool.loss(pool.values[row]), predicted, numbers)


def _errors(
    target: Target,
    method: str,
    *,
    sizes: Sequence[int],
    uniform: float,
    draws: int,
    level: float,
    rng: np.random.Generator,
) -> Iterator[SubsetErrors]:
    n, truth = len(target.losses), target.losses.mean()
    strata = target.strata if method == "strata" else None
    for size in sizes:
        if size >= n:
            continue
        drawn = selection.select(target.predicted, method, size, strata=strata, uniform=uniform, count=draws, rng=rng)
        value, low, high = selection.estimate(target.losses[drawn.documents], drawn, n, by=method, level=level)
        yield SubsetErrors(target, method, size, (value - truth) ** 2, (low <= truth + 1e-9) & (truth - 1e-9 <= high))


def _by_size(results: Sequence[SubsetErrors], draws: int, level: float, notes: tuple[str, ...]) -> Table:
    rows = []
    for size in sorted({result.size for result in results}):
        for method in METHODS:
            chosen = [result for result in results if (result.size, result.method) == (size, method)]
            effective = np.array([result.effective_size for result in chosen])
            error = np.sqrt(np.mean([result.squared.mean() for result in chosen]))
            covered = np.concatenate([result.covered for result in chosen])
            rows.append(
                (
                    *(size, method, len(chosen), float(error)),
                    Measured(float(covered.mean()), float(covered.std() / np.sqrt(covered.size))),
                    min(float(result.covered.mean()) for result in chosen),
                    *(float(np.exp(np.log(effective).mean())), float(effective.min()), float(effective.max())),
                )
            )
    columns = (
        "documents",
        "by",
        "targets",
        "error",
        "coverage",
        "least coverage",
        "effective",
        "least effective",
        "most effective",
    )
    about = (
        f"error: root-mean-square error over {draws} subsets of every target, against the mean over all documents. "
        f"coverage: share of {level:.0%} intervals that cover that mean (least: the lowest of all targets). effective: "
        "number of uniformly selected documents with the same error (geometric mean over targets; least; most)."
    )
    return Table("active", "Error of estimates from subsets", columns, tuple(rows), (about, *notes))


def _by_task(results: Sequence[SubsetErrors], notes: tuple[str, ...]) -> Table:
    rows = []
    for number in dict.fromkeys(id(result.target) for result in results):
        chosen = [result for result in results if id(result.target) == number]
        target, n = chosen[0].target, len(chosen[0].target.losses)
        pool = target.pool
        value = float(pool.values[target.row] @ pool.weights / n)
        error = float(np.sqrt(target.variance / n))
        needed = [_needed([result for result in chosen if result.method == method], n) for method in METHODS]
        rows.append((pool.task, _label(target), pool.metric, n, Measured(value, error), *needed))
    columns = ("task", "target", "metric", "all", "value", *METHODS)
    about = (
        "all: number of documents of the task. value: with its standard error over all documents. Under each method: "
        "number of documents at which the error of a subset equals that standard error (half of all documents for "
        "uniform selection). The effective size per document is interpolated between the sizes tested."
    )
    return Table(
        "active_tasks",
        "Documents needed for the standard error of the whole task",
        columns,
        tuple(rows),
        (about, *notes),
    )


def _needed(results: Sequence[SubsetErrors], n: int) -> int:
    """Return the least number of documents whose effective size is N / 2, at which the error is S / sqrt(N)."""
    per_document = [result.effective_size / result.size for result in results]
    counts = np.arange(1, n + 1)
    effective = counts * np.interp(np.log(counts), np.log([result.size for result in results]), per_document)
    enough = np.flatnonzero(effective >= n / 2)
    return int(counts[enough[0]]) if len(enough) else n


def _label(target: Target) -> str:
    row = target.pool.points.iloc[target.row]
    return f"{row['family']} {row['size']}"
