"""Means and proportions of a finite population, estimated from samples without replacement (Cochran 1977)."""

from __future__ import annotations

import numpy as np

from harness import Floats, Ints
from harness_plugins.analyses.estimators import Ends

SMALLEST = 1e-9  # parameter of a beta distribution


def stratified_mean(values: Floats, strata: Ints, sizes: Ints, *, level: float = 0.95) -> Ends:
    """Return the stratified mean of N items in H strata, from n_h of N_h per stratum: values, low and high ends (R,).

    :param values: values (R, M) of R samples.
    :param strata: the number of the stratum of each column (M,).
    :param sizes: the population sizes N_h (H,).

    The estimate is sum N_h / N mean_h. Its variance is Cochran's eq. 5.12, the degrees of freedom of Student's t are
    his eq. 5.16. One sampled item of a larger stratum leaves the variance unknown: the interval is NaN.
    """
    from scipy.stats import t

    value, variance, per_freedom = (np.zeros(len(values)) for _ in range(3))
    for stratum, size in enumerate(sizes):
        inside = values[:, strata == stratum]
        n = inside.shape[1]
        value += size / sizes.sum() * inside.mean(axis=1)
        if n < size:
            spread = inside.var(axis=1, ddof=1) if n > 1 else np.full(len(values), np.nan)
            term = (size / sizes.sum()) ** 2 * (1 - n / size) * spread / n
            variance, per_freedom = variance + term, per_freedom + term**2 / max(n - 1, 1)
    freedom = np.divide(variance**2, per_freedom, out=np.ones(len(values)), where=per_freedom > 0)
    half = np.sqrt(variance) * t.ppf((1 + level) / 2, freedom)
    return value, value - half, value + half


def proportion(values: Floats, n_items: int, *, level: float = 0.95) -> Ends:
    """Return the proportion of ones among N items from n drawn uniformly without replacement: values (R, n) are 0 or 1.

    The interval is exact: the hypergeometric form of Clopper and Pearson's. It has a positive width if all values are
    equal.
    """
    from scipy.stats import hypergeom

    n, tail = values.shape[1], (1 - level) / 2
    observed, inverse = np.unique(values.sum(axis=1).astype(np.int64), return_inverse=True)
    ones = np.arange(n_items + 1)
    possible = (ones >= observed[:, None]) & (ones <= n_items - n + observed[:, None])
    is_accepted = possible & (hypergeom.cdf(observed[:, None], n_items, ones, n) > tail)
    is_accepted &= hypergeom.sf(observed[:, None] - 1, n_items, ones, n) > tail
    low, high = is_accepted.argmax(axis=1), n_items - is_accepted[:, ::-1].argmax(axis=1)
    return values.mean(axis=1), low[inverse] / n_items, high[inverse] / n_items


def widened_interval(ends: Ends, drawn: int, n_items: int, *, level: float = 0.95) -> Ends:
    """Widen the intervals of proportions near 0 and 1 (Korn and Graubard 1998).

    The result is Clopper and Pearson's interval for the effective sample size that gives the variance of `ends`. If
    the observed variance is 0, the sample size is that of `drawn` items of `n_items`.
    """
    from scipy.stats import beta, t

    value, low, high = ends
    share, even = np.clip(value, 0, 1), 1 / (1 / drawn - 1 / n_items)
    variance = np.nan_to_num((high - low) / 2 / t.ppf((1 + level) / 2, drawn - 1)) ** 2
    seen = (variance > 0) & (share > 0) & (share < 1)
    n = np.where(seen, share * (1 - share) / np.where(seen, variance, 1), even)
    ones, zeros, tail = share * n, (1 - share) * n, (1 - level) / 2
    below = np.where(ones > 0, beta.ppf(tail, np.maximum(ones, SMALLEST), zeros + 1), 0.0)
    above = np.where(zeros > 0, beta.ppf(1 - tail, ones + 1, np.maximum(zeros, SMALLEST)), 1.0)
    return value, np.minimum(below, value), np.maximum(above, value)
