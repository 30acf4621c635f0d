"""Multiple-choice metrics: the steps from log-probabilities to accuracy (Schaeffer et al. 2024, sec. 3).

Each step weakens the correlation with scale: log p_vocab(gold) -> p_vocab(gold) -> p_choices(gold) -> Brier score ->
accuracy. The reason is that later metrics depend on the probability of specific wrong choices. If several choices are
correct, their probabilities are added. If several choices have the largest score, all accuracies take the first, as in
lm-eval.
"""

from __future__ import annotations

import math

import numpy as np

import harness
from harness import PerDoc, Scores

BINS = 15


def acc(scores: Scores) -> PerDoc:
    """Return 1 if the choice with the largest log-probability is correct, else 0."""
    return scores.picks_gold(scores.logprob)


def acc_char(scores: Scores) -> PerDoc:
    """Return accuracy of log-probability per character (lm-eval's acc_norm)."""
    return scores.picks_gold(scores.logprob / scores.n_chars)


def acc_byte(scores: Scores) -> PerDoc:
    """Return accuracy of log-probability per UTF-8 byte (lm-eval's acc_bytes)."""
    return scores.picks_gold(scores.logprob / scores.n_bytes)


def acc_token(scores: Scores) -> PerDoc:
    """Return accuracy of log-probability per token (Brown et al. 2020, sec. 2.4)."""
    return scores.picks_gold(scores.logprob / scores.n_tokens)


def acc_pmi(scores: Scores) -> PerDoc:
    """Return accuracy of log p(choice | context) - log p(choice) (lm-eval's acc_mutual_info; Holtzman et al. 2021)."""
    return scores.picks_gold(scores.logprob - np.asarray(scores.logprob_unconditional))


def logp_gold(scores: Scores) -> harness.Floats:
    """Return log p_vocab of the correct choice in nats; if several are correct, log of their summed probability."""
    return scores.logsumexp(np.where(scores.is_gold, scores.logprob, -np.inf))


def p_vocab(scores: Scores) -> harness.Floats:
    """Return the probability of the correct choice among all possible texts."""
    return np.exp(logp_gold(scores))


def p_choices(scores: Scores) -> harness.Floats:
    """Return the probability of the correct choice among the listed choices."""
    return np.exp(logp_gold(scores) - scores.logsumexp(scores.logprob))


def cross_entropy(scores: Scores) -> harness.Floats:
    """Return -log p_choices of the correct choice in nats."""
    return scores.logsumexp(scores.logprob) - logp_gold(scores)


def brier(scores: Scores) -> harness.Floats:
    """Return the sum over choices of (p_choices - [is gold])^2, from 0 to 2 (Brier 1950; lm-eval's brier_score)."""
    return scores.sum((_distribution(scores) - scores.is_gold) ** 2)


def margin(scores: Scores) -> harness.Floats:
    """Return log p of the correct choice minus log p of the best wrong choice, in nats."""
    return logp_gold(scores) - scores.max(np.where(scores.is_gold, -np.inf, scores.logprob))


def p_wrong(scores: Scores) -> harness.Floats:
    """Return the summed probability of all wrong choices, among all possible texts."""
    return np.exp(scores.logsumexp(np.where(scores.is_gold, -np.inf, scores.logprob)))


def mc2(scores: Scores) -> harness.Floats:
    """Return the correct choices' share of the probability of all choices (TruthfulQA, Lin et al. 2022): p_choices."""
    return p_choices(scores)


def gold_bits_per_byte(scores: Scores) -> harness.Floats:
    """Return -log2 p_vocab of the correct choice divided by its bytes: the task loss of Bhagia et al. 2024."""
    return np.asarray(-scores.gold(scores.logprob) / scores.gold(scores.n_bytes) / np.log(2))


def ece(scores: Scores) -> tuple[harness.Floats, harness.Floats]:
    """Return (confidence, is correct) of the most probable choice, for the expected calibration error."""
    confidence = scores.max(_distribution(scores))
    return confidence, scores.picks_gold(scores.logprob).values


def calibration_error(confidence: harness.Floats, right: harness.Floats) -> harness.Floats:
    """Return the expected calibration error over 15 bins of equal width, (low, high] (Guo et al. 2017, eq. 3).

    Shapes (n,) to (), or (R, n) to (R,). The estimate is biased upwards by about the standard error of a bin. With 60
    to 2,000 documents, 95 % intervals cover true errors of 0.05 and 0.2 in 85 to 96 % of samples, and an error of
    exactly 0 in 60 to 70 %.
    """
    gaps = (confidence - right).reshape(-1, confidence.shape[-1])  # (R, n)
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence).reshape(gaps.shape)
    cells = bins + BINS * np.arange(len(gaps))[:, None]
    sums = np.bincount(cells.ravel(), gaps.ravel(), BINS * len(gaps)).reshape(-1, BINS)
    return np.asarray(np.abs(sums).sum(-1).reshape(confidence.shape[:-1]) / confidence.shape[-1])


def _distribution(scores: Scores) -> harness.Floats:
    """Return the probability of each choice among the listed choices, (m,)."""
    return np.exp(scores.logprob - scores.logsumexp(scores.logprob)[scores.doc])


@harness.hookimpl
def register_metrics(register: harness.Register) -> None:
    """Register the metrics with their requirements."""
    for metric in (acc, acc_char, acc_byte, p_choices):
        register(metric, needs=["choices"], bounds=(0, 1))
    register(acc_token, needs=["choices", "token_counts"], bounds=(0, 1))
    register(margin, needs=["choices"])
    register(p_wrong, needs=["choices"], higher_is_better=False, bounds=(0, 1))
    register(cross_entropy, needs=["choices"], higher_is_better=False, bounds=(0, math.inf))
    register(brier, needs=["choices", "one_gold"], higher_is_better=False, bounds=(0, 2))
    register(acc_pmi, needs=["choices", "unconditional"], bounds=(0, 1))
    register(mc2, needs=["choices", "several_gold"], bounds=(0, 1))
    register(ece, needs=["choices"], aggregate=calibration_error, higher_is_better=False, bounds=(0, 1))
    register(gold_bits_per_byte, needs=["answers", "one_gold"], higher_is_better=False, bounds=(0, math.inf))
    register(logp_gold, needs=["answers"], bounds=(-math.inf, 0))
    register(p_vocab, needs=["answers"], bounds=(0, 1))
