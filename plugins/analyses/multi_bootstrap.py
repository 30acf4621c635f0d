"""The mean difference over training seeds and documents, with resamples of both (multi-bootstrap)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import Floats, MetricError

RESAMPLES = 1000
BATCH = 4_000_000  # maximum number of values in memory


@dataclass(frozen=True)
class Difference:
    """A mean difference, its standard error and interval, and the one-sided `p` of the hypothesis that it is <= 0.

    `dof` are the degrees of freedom of the standard error.
    """

    value: float
    stderr: float
    low: float
    high: float
    p: float
    dof: float


def multi_bootstrap(
    a: Floats,
    b: Floats | None = None,
    *,
    paired: bool = True,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return the mean of b - a over seeds and documents, both resampled (Sellam et al. 2022, The MultiBERTs).

    :param a: scores (S, n) of S seeds on n documents, or differences, where `b` is None.
    :param b: scores (S', n) of the other system on the same documents; S' = S where seeds are `paired`.
    :param paired: both systems have the same seeds (of initialisation, for example); else seeds are resampled per
        system.

    Documents are always shared. Two biases of plain resampling are corrected: the variance of S seeds is too small by
    (S - 1) / S, and the residual variance is counted three times. The interval and p are Student's, with
    Satterthwaite's degrees of freedom (1946). p is at least 1 / (resamples + 1). The error is NaN for one seed or one
    document. Raises MetricError for other shapes.
    """
    first, second = np.atleast_2d(a), np.zeros_like(np.atleast_2d(a)) if b is None else np.atleast_2d(b)
    first, second = (-second, first) if b is None else (first, second)
    if first.shape[1] != second.shape[1] or (paired and len(first) != len(second)) or not first.size:
        raise MetricError(
            f"scores of shapes {first.shape} and {second.shape}: expected (seeds, documents) with the same documents"
            f"{' and seeds (or paired=False)' if paired else ''}"
        )
    value = float(second.mean() - first.mean())
    systems = [second - first] if paired or b is None else [first, second]
    if min(min(system.shape) for system in systems) < 2:
        return Difference(value, *[float("nan")] * 5)
    rng, variances = np.random.default_rng(seed), _Variances.of(systems)
    drawn = np.concatenate(list(_resampled(first, second, resamples, rng, paired=paired)))
    stderr = float(drawn.std(ddof=1) * np.sqrt(variances.once))
    ends = _student(value, stderr, variances.dof, level=level, least=1 / (resamples + 1))
    return Difference(value, stderr, *ends, variances.dof)


def _resampled(
    first: Floats, second: Floats, resamples: int, rng: np.random.Generator, *, paired: bool
) -> Iterator[Floats]:
    """Yield batches of the difference of means in resamples of seeds and documents."""
    for count in _batches(resamples, first.shape[1]):
        documents = _shares(first.shape[1], count, rng)
        seeds = _shares(len(first), count, rng)
        others = seeds if paired else _shares(len(second), count, rng)
        yield ((others @ second) * documents).sum(1) - ((seeds @ first) * documents).sum(1)


def _shares(n: int, count: int, rng: np.random.Generator) -> Floats:
    """Return bootstrap weights (count, n) of n units drawn with replacement.

    Deviations from 1 / n are scaled by sqrt(n / (n - 1)), so that means have the unbiased variance of the units.
    """
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=count) / n
    return np.asarray(1 / n + (drawn - 1 / n) * np.sqrt(n / (n - 1)))


@dataclass(frozen=True)
class _Variances:
    """Components of the variance of a mean over seeds and documents, with their degrees of freedom.

    `seeds` and `documents` are the variances of the mean estimated over seeds or documents alone. Both contain the
    `residual`, which a bootstrap of both counts a third time.
    """

    seeds: float
    documents: float
    residual: float
    dof: float

    @property
    def once(self) -> float:
        """Return the factor from the bootstrap variance to the variance with the residual counted once."""
        total = self.seeds + self.documents + self.residual
        return self._variance / total if total else 1.0

    @property
    def _variance(self) -> float:
        return max(self.seeds + self.documents - self.residual, self.seeds, self.documents)

    @classmethod
    def of(cls, systems: Sequence[Floats]) -> _Variances:
        """Compute the components of one system (S, n), or of two systems with different seeds."""
        n = systems[0].shape[1]
        seeds = [float(scores.mean(axis=1).var(ddof=1)) / len(scores) for scores in systems]
        residual = [_residual(scores) for scores in systems]
        means = systems[0].mean(axis=0) - (systems[1].mean(axis=0) if len(systems) > 1 else 0.0)
        documents = float(means.var(ddof=1)) / n
        result = cls(sum(seeds), documents, sum(residual), float(n - 1))
        squares = documents**2 / (n - 1)
        for scores, by_seed, rest in zip(systems, seeds, residual, strict=True):
            squares += by_seed**2 / (len(scores) - 1) + rest**2 / ((len(scores) - 1) * (n - 1))
        dof = max(result._variance**2 / squares, 1.0) if squares else result.dof
        return replace(result, dof=dof)


def _residual(scores: Floats) -> float:
    """Return the residual variance of the mean of (S, n) after the effects of seeds and documents."""
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    return float((rest**2).sum() / (scores.size * (scores.shape[0] - 1) * (scores.shape[1] - 1)))


def _student(value: float, stderr: float, dof: float, *, level: float, least: float) -> tuple[float, float, float]:
    """Return the ends of Student's interval and the one-sided p of a value <= 0, from `least` to 1 - `least`."""
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, dof)) * stderr
    p = float(t.sf(value / stderr, dof)) if stderr else 0.5 * (1 - float(np.sign(value)))
    return value - half, value + half, min(max(p, least), 1 - least)


def _batches(count: int, width: int) -> list[int]:
    """Return the sizes of batches of `count` rows of that width that fit into memory."""
    size = max(BATCH // width, 1)
    return [min(size, count - begin) for begin in range(0, count, size)]
