"""Means of finite sets from samples of them: strata, and shares whose intervals do not collapse at 0 and 1."""

from __future__ import annotations

import numpy as np

from harness import Floats, Ints
from harness_plugins.analyses.estimators import Ends

SMALLEST = 1e-9  # parameter of a beta distribution


def stratified(values: Floats, strata: Ints, sizes: Ints, *, level: float = 0.95) -> Ends:
    """Return the mean over H strata of N_h items from n_h of each: values, low and high ends (R,).

    :param values: values (R, M) of R subsets; `strata` (M,) numbers the stratum of each, `sizes` (H,) are the N_h.

    sum N_h / N mean_h, with the variance of Cochran 1977 (eq. 5.12) and Student's t with his degrees of freedom
    (eq. 5.16). A stratum with one item of several has no variance: its interval is NaN.
    """
    from scipy.stats import t

    value, variance, per_freedom = (np.zeros(len(values)) for _ in range(3))
    for stratum, size in enumerate(sizes):
        inside = values[:, strata == stratum]
        n = inside.shape[1]
        value += size / sizes.sum() * inside.mean(axis=1)
        if n < size:
            spread = inside.var(axis=1, ddof=1) if n > 1 else np.full(len(values), np.nan)
            own = (size / sizes.sum()) ** 2 * (1 - n / size) * spread / n
            variance, per_freedom = variance + own, per_freedom + own**2 / max(n - 1, 1)
    freedom = np.divide(variance**2, per_freedom, out=np.ones(len(values)), where=per_freedom > 0)
    half = np.sqrt(variance) * t.ppf((1 + level) / 2, freedom)
    return value, value - half, value + half


def shares(values: Floats, n_items: int, *, level: float = 0.95) -> Ends:
    """Return the share of ones among N items from n drawn evenly without replacement: values (R, n) are 0 or 1.

    The interval is exact: all shares under which neither so few nor so many ones have less than (1 - level) / 2 (the
    hypergeometric of Clopper and Pearson's). It does not collapse where all values are equal.
    """
    from scipy.stats import hypergeom

    n, tail = values.shape[1], (1 - level) / 2
    found, inverse = np.unique(values.sum(axis=1).astype(np.int64), return_inverse=True)
    ones = np.arange(n_items + 1)
    possible = (ones >= found[:, None]) & (ones <= n_items - n + found[:, None])
    kept = possible & (hypergeom.cdf(found[:, None], n_items, ones, n) > tail)
    kept &= hypergeom.sf(found[:, None] - 1, n_items, ones, n) > tail
    low, high = kept.argmax(axis=1), n_items - kept[:, ::-1].argmax(axis=1)
    return values.mean(axis=1), low[inverse] / n_items, high[inverse] / n_items


def widened(ends: Ends, drawn: int, n_items: int, *, level: float = 0.95) -> Ends:
    """Return estimates of shares with ends that do not collapse where hardly any, or nearly all, values are 1.

    Clopper and Pearson's interval for as many even draws as have the variance that the ends stand for (Korn and
    Graubard 1998), and for those `drawn` from `n_items` where no variance was seen.
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
