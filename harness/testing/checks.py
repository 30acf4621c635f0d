"""Checks that a plugin passes in one line of its author's tests, and an engine without a model.

    from harness.testing import check_law, check_metric, check_task, check_engine, check_checker

    def test_law():
        check_law(MyLaw())

Each raises AssertionError, saying what was found and what the contract is. Our own plugins pass the same checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import MetricError, PluginError
from harness.evaluation.tokens import Encoder, encode_task
from harness.fitting.laws import bounds, curve
from harness.fitting.procedures import ProcedureFit
from harness.host import default_host
from harness.metrics.aggregation import evaluate
from harness.metrics.per_document import per_document
from harness.metrics.samples import Samples, Scored
from harness.metrics.scores import Scores
from harness.origins import describe
from harness.registries import expect_law, make_metric
from harness.tasks.loading import load_task
from harness.tasks.task_files import read_task_file
from harness.testing.fake_engine import ByteTokenizer
from harness.types import OUTCOMES, Floats, Metric, Sampler, Task
from harness.types.laws import Fitted, FormulaLaw, ProcedureLaw, traits

if TYPE_CHECKING:
    import pandas as pd


def check_task(path: str | Path, data: str | Path | None = None) -> Task:
    """Check a task folder: it reads, every continuation holds text behind its context, prompts are the same twice.

    Returns the task, for further checks of the author's own.
    """
    file = read_task_file(Path(path))
    folder = Path(data) if data else None
    task, again = load_task(file, folder), load_task(file, folder)
    assert task.fingerprint == again.fingerprint, "the prompts differ between two readings"
    encoded = encode_task(task, Encoder(ByteTokenizer(), max_length=1_000_000))
    metrics = default_host().metrics
    assert task.metric in metrics, f"metric: {task.metric!r} is not registered; there are: {', '.join(metrics)}"
    assert len(encoded.n_tokens) == sum(len(doc.choices) for doc in task.docs), "a choice got lost"
    for doc in task.docs:
        for k in range(len(doc.choices)):
            context, continuation = doc.prompt(k)
            assert context or continuation.strip(), f"document {doc.doc_id}: choice {k} scores white space only"
    return task


def example_scores(n: int = 12, *, groups: int = 1, seed: int = 0, clustered: bool = False) -> Scores:
    """Return made-up scores of n documents with two to five choices, one of them gold; everything is offered."""
    rng = np.random.default_rng(seed)
    n_choices = rng.integers(2, 6, size=n)
    first = np.concatenate([[0], np.cumsum(n_choices)[:-1]])
    rows = int(n_choices.sum())
    is_gold = np.zeros(rows, dtype=np.bool_)
    is_gold[first + rng.integers(n_choices)] = True
    n_tokens = rng.integers(1, 9, size=rows)
    return Scores(
        kind="choice",
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
        clustered=clustered,
    )


def check_sampler(sampler: Sampler) -> None:
    """Check a sampler: each document ends, has no more samples than `at_most`, and is asked about by itself."""
    assert isinstance(sampler, Sampler), f"{sampler!r} lacks more() or at_most"
    rng = np.random.default_rng(0)
    rate = np.array([0.0, 0.001, 0.1, 0.5, 1.0])
    drawn, passed = np.zeros((2, len(rate)), dtype=np.int64)
    while drawn.max() <= sampler.at_most:
        more = np.asarray(sampler.more(drawn, passed))
        assert more.shape == drawn.shape, f"more() gives {more.shape} for {drawn.shape} documents"
        assert np.issubdtype(more.dtype, np.integer), f"more() gives {more.dtype}; expected whole numbers"
        assert (more >= 0).all(), f"more() gives {more}"
        alone = [int(np.asarray(sampler.more(drawn[[i]], passed[[i]]))[0]) for i in range(len(rate))]
        assert more.tolist() == alone, f"more() gives {more} together and {alone} one by one"
        if not more.any():
            return
        drawn, passed = drawn + more, passed + rng.binomial(more, rate)
    raise AssertionError(f"it draws {drawn.max()} samples of a document; at_most is {sampler.at_most}")


def example_samples(n: int = 40, each: int = 100, seed: int = 0) -> Samples:
    """Return made-up samples of n documents, `each` of every one, of all outcomes."""
    rng = np.random.default_rng(seed)
    outcome = rng.choice(OUTCOMES[:4], size=n * each, p=[0.3, 0.5, 0.1, 0.1])
    return Samples(
        doc_ids=np.array([str(i) for i in range(n)]),
        first=np.arange(n) * each,
        outcome=outcome,
        n_tokens=rng.integers(1, 9, size=n * each),
        group=np.full(n, None, dtype=object),
        truncated=np.zeros(n, dtype=np.bool_),
    )


def check_metric(metric: Metric | Callable[..., Any], scores: Scored | None = None, **registered: Any) -> None:
    """Check a metric: one finite value a document, the same whatever else is scored with it, and an aggregate.

    `metric` is a function with what it is registered with (needs=, aggregate= ...), or a registered Metric. `scores`
    replaces the made-up multiple-choice scores, or samples, that it is tried on.
    """
    metric = _checked_metric(metric, registered)
    scores = scores or (example_samples() if "samples" in metric.needs else example_scores())
    if isinstance(scores, Scores):
        _check_needs(metric, scores)
    whole = per_document(metric, scores).columns
    order = np.random.default_rng(1).permutation(len(scores))
    shuffled = per_document(metric, scores.take(order)).columns
    for a, b in zip(whole, shuffled, strict=True):
        assert np.allclose(a[order], b), f"{metric.name}: a document's value depends on the order of documents"
    half = per_document(metric, scores.take(np.arange(len(scores) // 2))).columns
    for a, b in zip(whole, half, strict=True):
        assert np.allclose(a[: len(b)], b), f"{metric.name}: a document's value depends on the other documents"
    estimate = evaluate(metric, scores)
    assert np.isfinite([estimate.value, estimate.stderr]).all(), f"{metric.name}: {estimate}"
    assert estimate.low <= estimate.high, f"{metric.name}: {estimate}"


def _checked_metric(metric: Metric | Callable[..., Any], registered: Mapping[str, Any]) -> Metric:
    try:
        return metric if isinstance(metric, Metric) else make_metric(metric, **registered)
    except PluginError as error:
        raise AssertionError(str(error)) from error


def _check_needs(metric: Metric, scores: Scores) -> None:
    """Try a metric where nothing is offered beyond what it says it needs."""
    optional = {"unconditional": "logprob_unconditional", "greedy": "is_greedy"}
    without: dict[str, Any] = {column: None for need, column in optional.items() if need not in metric.needs}
    try:
        per_document(metric, replace(scores, **without))
    except MetricError:
        raise
    except Exception as error:
        where = f"where {' and '.join(without)} are not offered"
        raise AssertionError(f"{metric.name}: {describe(error)}, {where}; say what it needs in needs=") from error


DOMAINS = {
    "flops": np.geomspace(1e18, 1e22, 12),
    "params": np.geomspace(1e7, 1e10, 12),
    "tokens": np.geomspace(1e9, 1e12, 12)[[3, 1, 7, 0, 9, 5, 11, 2, 8, 4, 10, 6]],
    "loss": np.linspace(0.1, 4.0, 12),
}


def check_law(
    law: FormulaLaw | ProcedureLaw,
    *,
    params: Mapping[str, float] | None = None,
    features: Mapping[str, Any] | None = None,
    points: pd.DataFrame | None = None,
) -> None:
    """Check a law: its formula broadcasts, its guess lies within its bounds, a fit recovers it without noise from three
    seeds and orders of the points and in other units, and its intervals hold the true curve with noise.

    `params` are the parameters of a typical case (by default `law.example`), `features` the places to try it at. Of a
    procedure, `points` are a table whose column y it reproduces (by default `law.example()`).
    """
    if isinstance(law, ProcedureLaw):
        _check_procedure(law, points)
        return
    import pandas as pd

    from harness.fitting.fit import fit
    from harness.fitting.simulations import places

    _expect(law)
    truth = params or traits(law).example
    assert isinstance(truth, Mapping), f"law {law.name!r}: give params=, or the law an attribute `example`"
    assert set(truth) == set(law.parameters), (
        f"law {law.name!r}: {set(truth)} given, parameters are {set(law.parameters)}"
    )
    x = {k: np.asarray((features or DOMAINS).get(k, np.linspace(0.5, 5, 12)), dtype=np.float64) for k in law.features}
    values = np.array([[truth[name] for name in law.parameters]])
    y = curve(law, values, x)[0]
    assert np.isfinite(y).all(), f"law {law.name!r}: the formula gives {y} for {dict(truth)}"
    _check_broadcast(law, np.vstack([values] * 3), x, y)
    lower, upper = bounds(law)
    assert ((lower <= values) & (values <= upper)).all(), f"law {law.name!r}: {dict(truth)} lies outside the bounds"
    _check_parameters(law, values, x)
    guess = law.guess(y=y, **x)
    assert isinstance(guess, Mapping), (
        f"law {law.name!r}: guess() returned {guess!r}; expected a value for each parameter"
    )
    assert np.isfinite(list(guess.values())).all(), f"law {law.name!r}: guess() gives {dict(guess)}"
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(y))
        points = pd.DataFrame({**{k: v[order] for k, v in x.items()}, "y": y[order], "trials": 1000.0})
        found = fit(points, law, value="y", bootstrap=20, seed=seed, resample="checkpoints")
        miss = np.abs(found.curve(x) - y).max()
        assert miss <= 1e-5 * np.abs(y).max(), f"law {law.name!r}: without noise the fit misses by {miss:.3g}\n{found}"
    _check_units(law, x, y)
    _check_intervals(law, truth, places(law, 48) if features is None else {k: np.tile(v, 4) for k, v in x.items()})


def _check_units(law: FormulaLaw, x: Mapping[str, Floats], y: Floats) -> None:
    """Counts in other units must be fitted as well, unless the law has a scale of its own (`own_units`)."""
    import pandas as pd

    from harness.fitting.fit import fit

    for name in set(law.features) & {"flops", "params", "tokens"} - set(traits(law).own_units):
        scaled = {**x, name: 100 * x[name]}
        points = pd.DataFrame({**scaled, "y": y, "trials": 1000.0})
        miss = np.abs(fit(points, law, value="y", bootstrap=20, resample="checkpoints").curve(scaled) - y).max()
        assert miss <= 1e-5 * np.abs(y).max(), (
            f"law {law.name!r}: with {name} 100 times as large the fit misses by {miss:.3g}; widen the bounds, or say "
            f"own_units = ({name!r},)"
        )


def _check_intervals(law: FormulaLaw, truth: Mapping[str, float], x: Mapping[str, Floats]) -> None:
    """Of six fits to points with noise, three must hold the true curve in their 90 % interval; 1 in 800 would not."""
    from harness.fitting.simulations import coverage

    found = coverage(law, truth, x, count=6, bootstrap=40, starts=4)
    assert found.curve >= 3, f"law {law.name!r}: {found.curve} of 6 intervals hold the true curve; expected 3 or more"


def _check_procedure(law: ProcedureLaw, points: pd.DataFrame | None) -> None:
    """Check a procedure: order and company change nothing, no point is changed, JSON keeps it, y comes out again."""
    _expect(law)
    if points is None:
        example = traits(law).example
        assert callable(example), f"law {law.name!r}: give points=, or the law a method `example`"
        points = example()
    kept, rng = points.copy(), np.random.default_rng(0)
    found = law.fit(points, "y", rng)
    assert isinstance(found, Fitted), f"law {law.name!r}: fit() returned {found!r}; expected a harness.Fitted"
    assert points.equals(kept), f"law {law.name!r}: fit() changes the points that it is given"
    bare = points[list(law.features)]
    y = law.predict(found, bare)
    assert y.shape == (len(points),), f"law {law.name!r}: predict() gives {y.shape} for {len(points)} points"
    miss = np.abs(y - points["y"]).max()
    assert miss <= 1e-3 * np.abs(points["y"]).max(), f"law {law.name!r}: without noise it misses by {miss:.3g}"
    alone = np.concatenate([law.predict(found, bare.iloc[[i]].reset_index(drop=True)) for i in range(len(bare))])
    assert np.allclose(alone, y), f"law {law.name!r}: a prediction depends on the points predicted with it"
    order = rng.permutation(len(points))
    again = law.predict(law.fit(points.iloc[order].reset_index(drop=True), "y", np.random.default_rng(0)), bare)
    assert np.allclose(again, y, rtol=1e-4, atol=1e-6), f"law {law.name!r}: the fit depends on the order of the points"
    stored = ProcedureFit(law, found, {}, (), 0, "least_squares", 0.0, 0.0, 0, len(y), {})
    read = ProcedureFit.from_json(law, json.loads(json.dumps(stored.to_json(), allow_nan=False)))
    assert np.allclose(read.value(dict(bare)), stored.value(dict(bare))), (
        f"law {law.name!r}: the state is not kept by JSON"
    )


def _expect(law: Any) -> None:
    try:
        expect_law(law)
    except PluginError as error:
        raise AssertionError(str(error)) from error


def _check_parameters(law: FormulaLaw, values: Floats, x: Mapping[str, Floats]) -> None:
    """Every parameter must change the curve, or nothing can be learnt of it."""
    for j, name in enumerate(law.parameters):
        moved = values.copy()
        moved[0, j] = 1.1 * moved[0, j] + 0.01
        assert (curve(law, moved, x) != curve(law, values, x)).any(), f"law {law.name!r}: nothing depends on {name!r}"


def _check_broadcast(law: FormulaLaw, values: Floats, x: Mapping[str, Floats], y: Floats) -> None:
    columns = {name: values[:, j : j + 1] for j, name in enumerate(law.parameters)}
    try:
        stacked = np.asarray(law.formula(**x, **columns))
        found = str(stacked.shape)
    except (TypeError, ValueError) as error:
        stacked, found = np.empty(0), f"{type(error).__name__}: {error}"
    assert stacked.shape == (3, len(y)), (
        f"law {law.name!r}: parameters (3, 1) and features ({len(y)},) give {found}; expected (3, {len(y)}), so that "
        "all resamples are solved at once: use numpy functions, no float() and no if"
    )
    assert np.allclose(stacked, y), f"law {law.name!r}: the formula gives other values for stacked parameters"
