"""pass@k and pass rates of problems that are sampled many times, with intervals."""

from __future__ import annotations

import numpy as np

from harness import Floats, Ints, Measured, MetricError


def pass_at_k(successes: Ints, trials: Ints, k: int) -> Floats:
    """Return pass@k (P,) of P problems with c successes in n trials each: 1 - C(n - c, k) / C(n, k).

    The estimator is unbiased (Chen et al. 2021). Raises MetricError for fewer than k trials.

    >>> pass_at_k([3], [10], 2).round(6).tolist()
    [0.533333]
    """
    from scipy.special import gammaln

    c, n = _counts(successes, trials)
    if k < 1 or (n < k).any():
        raise MetricError(
            f"pass@{k} needs {max(k, 1)} samples per problem; found {int(n.min())}; draw more, or lower k"
        )
    left = np.maximum(n - c, k)
    missed = np.exp(gammaln(left + 1) - gammaln(left - k + 1) - gammaln(n + 1) + gammaln(n - k + 1))
    return np.where(n - c < k, 1.0, 1 - missed)


def pass_at_k_interval(successes: Ints, trials: Ints, k: int, *, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return the interval (P,), (P,) of pass@k of each problem: that of p (Clopper-Pearson), mapped by 1 - (1 - p)^k.

    Its coverage is at least `level`, also if no sample passed.
    """
    from scipy.stats import beta

    c, n = _counts(successes, trials)
    tail = (1 - level) / 2
    low = np.where(c > 0, beta.ppf(tail, np.maximum(c, 1), n - c + 1), 0.0)
    high = np.where(c < n, beta.ppf(1 - tail, c + 1, np.maximum(n - c, 1)), 1.0)
    return 1 - (1 - low) ** k, 1 - (1 - high) ** k


def mean_pass_at_k(successes: Ints, trials: Ints, k: int) -> Measured:
    """Return pass@k averaged over problems, with the standard error over problems, which includes sampling noise."""
    rates = pass_at_k(successes, trials, k)
    return Measured(float(rates.mean()), float(rates.std(ddof=1) / np.sqrt(len(rates))) if len(rates) > 1 else np.nan)


def _counts(successes: Ints, trials: Ints) -> tuple[Floats, Floats]:
    c, n = np.atleast_1d(np.asarray(successes, dtype=np.float64)), np.atleast_1d(np.asarray(trials, dtype=np.float64))
    if c.shape != n.shape or not c.size or ((c < 0) | (c > n) | (n < 1)).any():
        raise MetricError(
            f"successes {c.shape} and trials {n.shape}: expected one pair per problem with 0 <= successes <= trials"
        )
    return c, n


def pass_until(successes: Ints, trials: Ints, *, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Return the pass rate of problems sampled until the r-th success at trial K: values, low and high ends (P,).

    r / K is biased upwards because sampling stops at a success. (r - 1) / (K - 1) is unbiased for r >= 2 (Haldane 1945;
    Hu et al. 2024, PassUntil). The interval is exact. Raises MetricError for r below 2.

    >>> [float(x[0].round(4)) for x in pass_until([5], [401])]
    [0.01, 0.0041, 0.0254]
    """
    from scipy.stats import beta

    r, k = _counts(successes, trials)
    if (r < 2).any():
        raise MetricError(
            f"{int(r.min())} successes; pass_until needs 2 or more per problem to be unbiased; draw more samples"
        )
    tail = (1 - level) / 2
    high = np.where(k > r, beta.ppf(1 - tail, r, np.maximum(k - r, 1)), 1.0)
    return (r - 1) / (k - 1), np.asarray(beta.ppf(tail, r, k - r + 1)), high
