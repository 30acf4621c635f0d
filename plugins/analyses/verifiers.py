"""Resampling with an imperfect verifier: weak tests accept an answer, strong tests judge it (Stroebl et al. 2024).

At most k samples are drawn until the weak tests accept one, which is the answer. A correct answer gains 1, a wrong one
loses `cost`, no answer is 0. Larger k reaches harder documents, on which accepted answers are more often wrong, so that
there is an optimal k, which is small or 0 for a high cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, Measured, MetricError, Range, Table
from harness.tables import Cell
from harness_plugins.analyses.estimators import pass_at_k, verified

RESAMPLES = 1000


@dataclass(frozen=True)
class Resampling:
    """Results of resampling with at most k samples per document, for k from 1 to K, the least number of samples drawn.

    :param false_positives: the share of accepted samples that are wrong.
    :param single: the accuracy of one sample without verification.
    :param right: the share of documents (K,) with a correct answer at k samples.
    :param wrong: the share of documents (K,) with a wrong answer at k samples.
    :param ceiling: the share of correct answers for unlimited samples, if documents never accepted stay so.
    :param never: the share of documents without an accepted sample; the ceiling may be higher by it.
    :param best: the k of the largest gain, with its interval over documents; 0 means to give no answers.
    :param gain: the mean gain (K,) at k.
    :param cost: the loss by a wrong answer, in units of the gain by a correct one.
    """

    false_positives: Measured
    single: Measured
    right: tuple[Measured, ...]
    wrong: tuple[Measured, ...]
    gain: tuple[Measured, ...]
    ceiling: Measured
    never: float
    best: Range
    cost: float

    def tables(self, ks: Sequence[int] = (1, 2, 5, 10, 20, 50, 100, 200)) -> list[Table]:
        """Return the table of the verifier, and that of k for `ks` up to K and the best k."""
        most, best = len(self.gain), int(self.best.value)
        shown = sorted({k for k in ks if k <= most} | ({best} if best else set()) | {most})
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (k, *(column[k - 1] for column in (self.right, self.wrong, self.gain))) for k in shown
        )
        summary = (self.single, self.false_positives, self.ceiling, self.never, self.best)
        return [
            Table(
                "verifier",
                "Resampling with an imperfect verifier",
                ("accuracy of one sample", "false positives", "ceiling", "never accepted", "best samples"),
                (summary,),
                (f"best samples: k with the largest gain; a wrong answer costs {self.cost:g}, a correct one gains 1.",),
            ),
            Table(
                "resampling", "Answer by the first accepted of at most k samples", ("k", "right", "wrong", "gain"), rows
            ),
        ]


def resampling(
    weak: Ints,
    strong: Ints,
    trials: Ints,
    *,
    cost: float,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Resampling:
    """Return the results of resampling with weak tests, judged by strong tests.

    :param weak: number of samples (P,) of each of P documents that pass the weak tests.
    :param strong: number of samples (P,) that pass the weak and the strong tests.
    :param trials: number of samples (P,) drawn.
    :param cost: the loss by a wrong answer, in units of the gain by a correct one.

    With a accepted and b correct among n samples, k samples without replacement include an accepted one with
    probability 1 - C(n - a, k) / C(n, k), and the first of these is correct with b / a, unbiased for any k <= n. Errors
    are standard errors over documents. The interval of the best k is over resamples of documents. Raises MetricError
    for inconsistent counts, a negative cost, and if no sample was accepted.
    """
    a, b, n = (np.atleast_1d(np.asarray(counts, dtype=np.int64)) for counts in (weak, strong, trials))
    _expect(a, b, n, cost)
    precision = np.array([_precision(*counts) for counts in zip(a, b, n, strict=True)])
    accepted = np.array([pass_at_k(a, n, k) for k in range(1, int(n.min()) + 1)])  # (K, P)
    right, wrong = accepted * precision, accepted * (1 - precision)
    gain = right - cost * wrong
    return Resampling(
        false_positives=_ratio(a - b, a),
        single=_mean(b / n),
        right=tuple(map(_mean, right)),
        wrong=tuple(map(_mean, wrong)),
        gain=tuple(map(_mean, gain)),
        ceiling=_mean(precision),
        never=float((a == 0).mean()),
        best=_best(gain, level, resamples, seed),
        cost=cost,
    )


def _expect(a: Ints, b: Ints, n: Ints, cost: float) -> None:
    if not a.shape == b.shape == n.shape or not a.size or not ((b >= 0) & (b <= a) & (a <= n) & (n > 0)).all():
        raise MetricError(
            f"weak {a.shape}, strong {b.shape} and trials {n.shape}: expected one of each per document, "
            "0 <= strong <= weak <= trials; strong counts samples that pass both"
        )
    if not 0 <= cost < np.inf:
        raise MetricError(f"cost={cost}: expected 0 or more, in units of the gain by a correct answer")
    if not a.any():
        raise MetricError(
            "the weak tests accept no sample, so that their errors cannot be estimated; draw more samples"
        )


def _precision(a: int, b: int, n: int) -> float:
    """Return the share of accepted answers that are correct; 0 if nothing was accepted."""
    if a == 0:
        return 0.0
    return float(verified(b / n, 1.0, (a - b) / (n - b) if n > b else 0.0, 1).precision)


def _mean(values: Floats) -> Measured:
    return Measured(
        float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan
    )


def _ratio(numerators: Ints, denominators: Ints) -> Measured:
    """Return a ratio of sums and its standard error over documents (linearised)."""
    value = numerators.sum() / denominators.sum()
    residuals = (numerators - value * denominators) / denominators.mean()
    return Measured(float(value), _mean(residuals).stderr)


def _best(gain: Floats, level: float, resamples: int, seed: int) -> Range:
    """Return the number of samples with the largest mean gain (K, P), 0 if all are negative, and its interval."""
    documents = gain.shape[1]
    shares = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=resamples)
    means = np.vstack([np.full(documents, 1 / documents), shares / documents]) @ gain.T  # (1 + R, K)
    best = np.where(means.max(1) > 0, means.argmax(1) + 1, 0)
    low, high = np.quantile(best[1:], [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Range(float(best[0]), float(low), float(high))
