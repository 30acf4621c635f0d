"""Estimators with intervals for samples that are not simple random samples.

`multi_bootstrap` resamples seeds and documents. `lure` is for actively selected documents. `pass_at_k` and `pass_until`
are for problems sampled many times. `verified` is for samples accepted by an imperfect verifier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness import Floats, MetricError, Range
from harness_plugins.analyses.multi_bootstrap import Difference, multi_bootstrap
from harness_plugins.metrics.pass_at_k import mean_pass_at_k, pass_at_k, pass_at_k_interval, pass_until

__all__ = [
    "Difference",
    "Ends",
    "Verified",
    "lure",
    "lures",
    "mean_pass_at_k",
    "multi_bootstrap",
    "pass_at_k",
    "pass_at_k_interval",
    "pass_until",
    "verified",
]


def lure(losses: Floats, q: Floats, n_items: int, *, level: float = 0.95) -> Range:
    """Return an unbiased estimate of the mean loss of N items from M actively selected ones (LURE).

    :param losses: losses (M,) in the order of selection.
    :param q: the probability (M,) of each selection among the remaining items.
    :param n_items: the number of all items, N.

    R = 1/M sum v_m l_m with v_m = 1 + (N - M) / (N - m) (1 / ((N - m + 1) q_m) - 1) (Farquhar et al. 2021;
    Kossen et al. 2021). The interval is Student's t: R is a weighted mean, with weights c_m = N (N - M) / (M (N - m)
    (N - m + 1)), of terms w_m l_m + (sum of the earlier losses) / N with w_m = 1 / (N q_m). Each term is unbiased, and
    they are uncorrelated given the earlier selections. One loss has no interval (NaN); M = N has no error. Raises
    MetricError for inconsistent shapes and for probabilities outside (0, 1].

    >>> round(lure([3.0, 1.2], [0.5, 0.25], 4).value, 6)
    1.8
    """
    ends = lures(np.asarray(losses)[None], np.asarray(q)[None], n_items, level=level)
    return Range(*(float(end[0]) for end in ends))


Ends = tuple[Floats, Floats, Floats]  # values, low and high ends of intervals


def lures(losses: Floats, q: Floats, n_items: int, *, level: float = 0.95) -> Ends:
    """Apply `lure` to R subsets: values, low and high ends (R,) from losses and q, both (R, M)."""
    losses, q = np.asarray(losses, dtype=np.float64), np.asarray(q, dtype=np.float64)
    n, labelled = n_items, losses.shape[-1]
    if q.shape != losses.shape or not 1 <= labelled <= n or not ((q > 0) & (q <= 1)).all():
        raise MetricError(
            f"{labelled} losses, {q.shape[-1]} probabilities and {n} items: expected one probability in (0, 1] per "
            "loss, and at most as many losses as items"
        )
    if labelled == n:
        mean = losses.mean(axis=-1)
        return mean, mean, mean
    m = np.arange(1, labelled + 1)
    weights = 1 + (n - labelled) / (n - m) * (1 / ((n - m + 1) * q) - 1)
    value = (weights * losses).mean(axis=-1)
    shares = n * (n - labelled) / (labelled * (n - m) * (n - m + 1))
    terms = losses / (n * q) + (np.cumsum(losses, axis=-1) - losses) / n
    half = _half_width(terms - value[:, None], shares, level)
    return value, value - half, value + half


def _half_width(deviations: Floats, shares: Floats, level: float) -> Floats:
    """Return half the width (R,) of Student's interval of weighted means of uncorrelated terms; NaN for one term."""
    from scipy.stats import t

    rest = 1 - float((shares**2).sum())
    if rest <= 0:
        return np.full(len(deviations), np.nan)
    variance = (shares**2 * deviations**2).sum(axis=-1) / rest
    return np.asarray(np.sqrt(variance) * t.ppf((1 + level) / 2, 1 / (1 - rest) - 1))


@dataclass(frozen=True)
class Verified:
    """Resampling with an imperfect verifier: acceptance rate, precision of accepted samples, and the probability that
    k samples give a correct answer.
    """

    accepted: float
    precision: float
    success: float


def verified(p: float, accepts_right: float, accepts_wrong: float, k: int) -> Verified:
    """Return the outcome of drawing at most k samples, with the first accepted sample as the answer.

    With q = p t + (1 - p) f for success rate p, true-accept rate t and false-accept rate f, an accepted answer is
    correct with probability p t / q (the precision) for any k, and k samples succeed with (1 - (1 - q)^k) p t / q. The
    success rate cannot exceed the precision, which is below 1 if f > 0 (Stroebl et al. 2024). Precision is NaN if
    nothing is accepted. Raises MetricError for rates outside [0, 1] and k below 1.

    >>> round(verified(0.3, 0.9, 0.1, 2).success, 6)
    0.4482
    """
    if not all(0 <= rate <= 1 for rate in (p, accepts_right, accepts_wrong)) or k < 1:
        raise MetricError(f"rates {p}, {accepts_right}, {accepts_wrong} and k={k}: expected rates in [0, 1] and k >= 1")
    accepted = p * accepts_right + (1 - p) * accepts_wrong
    if accepted == 0:
        return Verified(0.0, float("nan"), 0.0)
    precision = p * accepts_right / accepted
    return Verified(accepted, precision, float((1 - (1 - accepted) ** k) * precision))
