"""The contract of metrics, and example scores; part of `harness.testing`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypedDict, Unpack

import numpy as np

from harness.errors import MetricError
from harness.host.origins import describe
from harness.host.registrars import make_metric
from harness.metrics.aggregation import evaluate
from harness.metrics.per_document import per_document
from harness.metrics.samples import Samples, Scored
from harness.metrics.scores import Scores
from harness.testing.findings import collected, expect_call
from harness.types import OUTCOMES, Floats, Metric, MetricValues

ROUNDING = 1e-6  # by which a value may lie outside the bounds
WORDS = ("a", "blue", "house", "stands", "near", "the", "river", "today")  # of made-up texts


def example_scores(
    n: int = 12, *, groups: int = 1, seed: int = 0, clustered: bool = False, needs: tuple[str, ...] = ()
) -> Scores:
    """Return artificial scores of n documents with two to five choices, one of them gold, with all optional fields.

    `needs` changes the kind of document: "text" and "cloze" have one row per document, "several_gold" two gold choices,
    "two_choices" two choices.
    """
    rng = np.random.default_rng(seed)
    kind = next((kind for kind in ("text", "cloze") if kind in needs), "choice")
    n_choices = rng.integers(2, 6, size=n) if kind == "choice" else np.ones(n, dtype=np.int64)
    n_choices = n_choices + ("several_gold" in needs)
    n_choices = np.full(n, 2) if "two_choices" in needs else n_choices
    first = np.concatenate([[0], np.cumsum(n_choices)[:-1]])
    rows = int(n_choices.sum())
    is_gold = np.zeros(rows, dtype=np.bool_)
    gold = rng.integers(n_choices)
    is_gold[first + gold] = True
    if "several_gold" in needs:
        is_gold[first + (gold + 1) % n_choices] = True
    n_tokens = rng.integers(1, 9, size=rows)
    return Scores(
        kind=kind,
        doc_ids=np.array([str(i) for i in range(n)]),
        first=first,
        logprob=-rng.exponential(3.0, size=rows) - 0.1,
        is_gold=is_gold,
        n_tokens=n_tokens,
        n_chars=4 * n_tokens,
        n_bytes=5 * n_tokens,
        truncated=np.zeros(rows, dtype=np.bool_),
        group=np.array([f"group {i % groups}" if groups > 1 else None for i in range(n)], dtype=object),
        logprob_unconditional=-rng.exponential(4.0, size=rows) - 0.1,
        is_greedy=rng.random(rows) < 0.3,
        n_words=n_tokens if kind == "text" else None,
        clustered=clustered,
    )


def example_samples(n: int = 40, each: int = 100, seed: int = 0) -> Samples:
    """Return artificial samples of n documents, `each` per document, with all outcomes, texts and references."""
    rng = np.random.default_rng(seed)
    outcome = rng.choice(OUTCOMES[:4], size=n * each, p=[0.3, 0.5, 0.1, 0.1])
    sentences = np.array([" ".join(rng.choice(WORDS, size=5)) for _ in range(20)], dtype=object)
    references = np.empty(n, dtype=object)
    references[:] = [tuple(rng.choice(sentences, size=1 + i % 2)) for i in range(n)]
    return Samples(
        doc_ids=np.array([str(i) for i in range(n)]),
        first=np.arange(n) * each,
        outcome=outcome,
        n_tokens=rng.integers(1, 9, size=n * each),
        group=np.full(n, None, dtype=object),
        truncated=np.zeros(n, dtype=np.bool_),
        texts=rng.choice(sentences, size=n * each),
        references=references,
    )


class Registered(TypedDict, total=False):
    """Keywords of register_metrics besides the function."""

    name: str | None
    needs: str | Sequence[str]
    aggregate: str | Callable[..., Floats]
    higher_is_better: bool
    bounds: tuple[float, float]


def check_metric(
    metric: Metric | Callable[..., MetricValues], scores: Scored | None = None, **registered: Unpack[Registered]
) -> None:
    """Check a metric: it gives one finite value per document, independent of the other documents, and an aggregate.

    `metric` is a registered Metric, or a function with its registration keywords (needs=, aggregate= ...). `scores`
    replaces the artificial scores or samples. Raises an AssertionError that lists all failures.
    """
    name = metric.name if isinstance(metric, Metric) else getattr(metric, "__name__", repr(metric))
    with collected(f"metric {name!r}") as findings:
        made: Metric = findings.vital(_made, metric, registered)
        tried = scores or _scores_for(made)
        findings.vital(expect_call, made.fn, tried)
        findings.vital(_check_values, made, tried)
        if isinstance(tried, Scores):
            findings.run(_check_needs, made, tried)
        findings.run(_check_order, made, tried)
        findings.run(_check_company, made, tried)
        findings.run(_check_estimate, made, tried)


def _made(metric: Metric | Callable[..., MetricValues], registered: Registered) -> Metric:
    return metric if isinstance(metric, Metric) else make_metric(metric, **registered)


def _scores_for(metric: Metric) -> Scored:
    """Return artificial scores that fulfil a metric's needs."""
    if "references" in metric.needs:
        return example_samples(each=2)
    return example_samples() if "samples" in metric.needs else example_scores(needs=metric.needs)


def _columns(metric: Metric, scores: Scored) -> tuple[Floats, ...]:
    return per_document(metric, scores).columns


def _check_values(metric: Metric, scores: Scored) -> None:
    """Check that values lie within the bounds, unless several gold choices add up to more."""
    (low, high), values = metric.bounds, _columns(metric, scores)[0]
    outside = np.flatnonzero((values < low - ROUNDING) | (values > high + ROUNDING))
    if metric.aggregate == "mean" and len(outside) and ("one_gold" in scores.offers or isinstance(scores, Samples)):
        strange = f"{values[outside[0]]:g} for document {scores.doc_ids[outside[0]]}"
        raise AssertionError(f"{metric.name}: {strange}, outside its bounds {low:g} to {high:g}; correct bounds=")


def _check_order(metric: Metric, scores: Scored) -> None:
    order = np.random.default_rng(1).permutation(len(scores))
    for a, b in zip(_columns(metric, scores), _columns(metric, scores.take(order)), strict=True):
        assert np.allclose(a[order], b), f"{metric.name}: a document's value depends on the order of documents"


def _check_company(metric: Metric, scores: Scored) -> None:
    half = _columns(metric, scores.take(np.arange(len(scores) // 2)))
    for a, b in zip(_columns(metric, scores), half, strict=True):
        assert np.allclose(a[: len(b)], b), f"{metric.name}: a document's value depends on the other documents"


def _check_estimate(metric: Metric, scores: Scored) -> None:
    estimate = evaluate(metric, scores)
    assert np.isfinite([estimate.value, estimate.stderr]).all(), f"{metric.name}: the aggregate is {estimate}"
    assert estimate.low <= estimate.high, f"{metric.name}: the interval of the aggregate is {estimate}"


def _check_needs(metric: Metric, scores: Scores) -> None:
    """Check that a metric works if scores provide only the fields in its needs."""
    optional = {"unconditional": "logprob_unconditional", "greedy": "is_greedy"}
    without = [column for need, column in optional.items() if need not in metric.needs]
    offered = replace(
        scores,
        logprob_unconditional=None if "logprob_unconditional" in without else scores.logprob_unconditional,
        is_greedy=None if "is_greedy" in without else scores.is_greedy,
    )
    try:
        per_document(metric, offered)
    except MetricError:
        raise
    except Exception as error:
        where = f"if scores do not provide {' and '.join(without)}"
        raise AssertionError(f"{metric.name}: {describe(error)}, {where}; list what it needs in needs=") from error
