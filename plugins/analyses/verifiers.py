"""Verifiers that err: what resampling gives when weak tests accept an answer and strong ones know better.

Samples are drawn until the weak tests accept one, at most k; that one is the answer (Stroebl et al. 2024). A right one
gains 1, a wrong one costs `cost`, none costs nothing. More samples find answers to harder documents, whose accepted
answers are wrong more often: there is a best k, and with a high cost it is small, or 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness import Floats, Ints, Measured, MetricError, Range, Table
from harness_plugins.analyses.estimators import pass_at_k, verified

RESAMPLES = 1000


@dataclass(frozen=True)
class Resampling:
    """What resampling gives with at most k samples a document, k from 1 to the least that was drawn of any.

    :param false_positives: the share of accepted samples that are wrong.
    :param single: the accuracy of one sample, not verified.
    :param right: the share of documents (K,) whose answer is right with k samples, and `wrong` likewise.
    :param ceiling: the share of right answers without end of samples, if documents never accepted stay so.
    :param never: the share of documents no sample of which was accepted; the ceiling may be higher by it.
    :param best: the k of the largest gain, with its interval over documents; 0 says to give no answers.
    :param gain: the mean gain (K,) at k, `cost` the loss by a wrong answer, a right one gaining 1.
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
        """Return the table of the verifier, and that of k, for those `ks` that were drawn and the best one."""
        most, best = len(self.gain), int(self.best.value)
        shown = sorted({k for k in ks if k <= most} | ({best} if best else set()) | {most})
        rows = tuple((k, *(column[k - 1] for column in (self.right, self.wrong, self.gain))) for k in shown)
        summary = (self.single, self.false_positives, self.ceiling, self.never, self.best)
        return [
            Table(
                "verifier",
                "Resampling with an imperfect verifier",
                ("accuracy of one sample", "false positives", "ceiling", "never accepted", "best samples"),
                (summary,),
                (f"best samples: at a cost of {self.cost:g} for a wrong answer, where a right one gains 1.",),
            ),
            Table("resampling", "At most k samples, the first accepted answers", ("k", "right", "wrong", "gain"), rows),
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
    """Return what resampling with weak tests gives, judged by strong ones.

    :param weak: samples (P,) of P documents that pass the weak tests.
    :param strong: samples (P,) that pass the weak and the strong tests.
    :param trials: samples (P,) drawn.
    :param cost: the loss by a wrong answer, in units of the gain by a right one.

    Among n samples, a accepted and b of them right, k drawn without replacement hold an accepted one with
    1 - C(n - a, k) / C(n, k), and the first of these is right with b / a: no bias at any k <= n. Errors are standard
    errors over documents; best k is taken anew in resamples of documents, its interval holds `level` of them.
    Raises MetricError for counts that cannot be, a negative cost, and samples of which none was accepted.
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
            f"weak {a.shape}, strong {b.shape} and trials {n.shape}: expected one of each a document, "
            "0 <= strong <= weak <= trials; strong counts samples that pass both"
        )
    if not 0 <= cost < np.inf:
        raise MetricError(f"cost={cost}: expected 0 or more, in units of what a right answer gains")
    if not a.any():
        raise MetricError("the weak tests accept no sample; there is nothing to say of their errors: draw more")


def _precision(a: int, b: int, n: int) -> float:
    """Return the share of accepted answers that are right; 0 where nothing was accepted, and nothing is."""
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
    """Return the number of samples of the largest mean gain (K, P), 0 where all lose, and its interval."""
    documents = gain.shape[1]
    shares = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), size=resamples)
    means = np.vstack([np.full(documents, 1 / documents), shares / documents]) @ gain.T  # (1 + R, K)
    best = np.where(means.max(1) > 0, means.argmax(1) + 1, 0)
    low, high = np.quantile(best[1:], [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    return Range(float(best[0]), float(low), float(high))
