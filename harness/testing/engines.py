"""The contract of engines, tested on the engine itself; part of `harness.testing`."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.errors import HarnessError
from harness.testing.findings import collected, expect_call
from harness.types import Checkpoint, ChoiceScore, Engine, EngineInfo, Request, Sample, SampleRequest
from harness.types.json import Json, JsonObject

METHODS = ("score", "generate", "swap", "prefetch", "describe")


def check_engine(
    open_engine: Callable[..., AbstractContextManager[Engine]],
    checkpoint: Checkpoint,
    folder: str | Path,
    *,
    inspect: Callable[..., EngineInfo] | None = None,
    generates: bool = True,
    tokens: bool = False,
    tolerance: float = 1e-3,
    **options: Json,
) -> None:
    """Check an engine: each request has one result, which does not depend on the batch, and probabilities are valid.

    Samples must agree with the scores: greedy samples are the most probable tokens, and other tokens have the
    frequencies that the scores predict. With `generates=False` the engine only scores, and `generate` must raise a
    HarnessError. With `tokens=True` it is registered with `tokens`, and must return log-probabilities of single tokens
    that add up. `inspect` is checked if given. `tolerance` is in nats. Token ids below 200 must be in the vocabulary.
    Raises an AssertionError that lists all failures.
    """
    with collected(f"engine {getattr(open_engine, '__name__', open_engine)}") as findings:
        if inspect is not None:
            findings.run(_check_inspect, inspect, checkpoint, Path(folder), options)
        findings.vital(expect_call, open_engine, checkpoint, Path(folder), **options)
        with ExitStack() as stack:
            engine: Engine = findings.vital(_opened, stack, open_engine(checkpoint, Path(folder), **options))
            findings.run(_check_company, engine, tolerance)
            findings.run(_check_single_tokens, engine, tolerance)
            findings.run(_check_chain_rule, engine, tolerance)
            if tokens:
                findings.run(_check_tokens, engine)
            for check in (_check_samples, _check_frequencies) if generates else (_check_refusal,):
                findings.run(check, engine)
            findings.run(_check_describe, engine)


def _opened(stack: ExitStack, manager: AbstractContextManager[Engine]) -> Engine:
    engine = stack.enter_context(manager)
    lacking = [name for name in METHODS if not callable(getattr(engine, name, None))]
    assert not lacking, f"{engine!r} lacks {', '.join(lacking)} of harness.Engine"
    return engine


def _check_inspect(
    inspect: Callable[..., EngineInfo], checkpoint: Checkpoint, folder: Path, options: JsonObject
) -> None:
    """Check that inspect returns dtype, max_length and tokenizer, and that the tokenizer returns lists of token ids."""
    expect_call(inspect, checkpoint, folder, **options)
    info = inspect(checkpoint, folder, **options)
    assert isinstance(info, EngineInfo), f"inspect returned {info!r}; expected a harness.EngineInfo"
    assert info.max_length > 1, f"inspect gives max_length {info.max_length}; expected 2 or more"
    tokenizer = info.load_tokenizer()
    ids = tokenizer.encode_batch(["one", "another"])
    assert len(ids) == 2, f"encode_batch gives {len(ids)} lists for two texts"
    is_ids = all(isinstance(token, int) and token >= 0 for text_ids in ids for token in text_ids)
    assert is_ids, f"encode_batch gives {ids[0][:5]}; expected lists of integers, 0 or more"
    lacking = [name for name in ("bos_id", "eos_id", "prefix_ids") if not hasattr(tokenizer, name)]
    assert not lacking, f"the tokenizer lacks {', '.join(lacking)}"


def _check_refusal(engine: Engine) -> None:
    """Check that an engine that only scores raises a HarnessError when it is asked to generate."""
    request = SampleRequest("text", (1, 2, 3), 4)
    try:
        samples = list(engine.generate([request]))
    except HarnessError:
        return
    raise AssertionError(f"generate() returned {samples!r}; raise EngineError, or check the engine with generates=True")


def _check_describe(engine: Engine) -> None:
    provenance = engine.describe()
    assert isinstance(provenance, Mapping), f"describe() returned {provenance!r}; expected a mapping"
    json.dumps(dict(provenance))


def _some_requests() -> list[Request]:
    rng = np.random.default_rng(0)
    return [
        Request(
            i,
            tuple(map(int, rng.integers(1, 200, size=3 + i))),
            tuple(tuple(map(int, rng.integers(1, 200, size=n))) for n in (1, 4, 2)),
        )
        for i in range(6)
    ]


def _check_company(engine: Engine, tolerance: float) -> None:
    requests = _some_requests()
    together = _by_key(engine.score(requests))
    assert set(together) == set(range(6)), f"score() returned keys {list(together)}; expected each of 0..5 once"
    for request in requests:
        alone = _by_key(engine.score([request]))[request.key]
        logprobs = np.asarray(together[request.key].logprobs)
        assert logprobs.shape == (3,), f"logprobs has shape {logprobs.shape} for 3 continuations; expected (3,)"
        assert (logprobs <= tolerance).all(), f"a log-probability is {logprobs.max():.4g}; expected 0 or less, in nats"
        assert np.allclose(alone.logprobs, logprobs, atol=tolerance), "scores depend on the other requests of the batch"


def _check_single_tokens(engine: Engine, tolerance: float) -> None:
    first = _some_requests()[0].context
    score = _by_key(engine.score([Request("all", first, tuple((t,) for t in range(1, 200)))]))["all"]
    assert np.exp(score.logprobs).sum() <= 1 + tolerance, "the probabilities of single tokens sum to more than 1"


def _check_tokens(engine: Engine) -> None:
    requests = _some_requests()
    plain, with_tokens = (_by_key(engine.score([replace(r, tokens=t) for r in requests])) for t in (False, True))
    for request in requests:
        tokens = with_tokens[request.key].tokens
        assert tokens is not None, "a request with tokens=True came back without log-probabilities of tokens"
        lengths = [len(values) for values in tokens]
        assert lengths == [len(c) for c in request.continuations], f"{lengths} tokens of continuations came back"
        sums = np.array([np.sum(values) for values in tokens])
        assert np.allclose(sums, plain[request.key].logprobs, rtol=1e-6, atol=1e-6), "tokens do not add up to logprobs"


def _check_chain_rule(engine: Engine, tolerance: float) -> None:
    first = _some_requests()[0].context
    joined = _by_key(
        engine.score(
            [
                Request("a", first, ((5, 6),)),
                Request("b", first, ((5,),)),
                Request("c", (*first, 5), ((6,),)),
            ]
        )
    )
    split = joined["b"].logprobs[0] + joined["c"].logprobs[0]
    assert abs(joined["a"].logprobs[0] - split) <= tolerance, "log p(a b) is not log p(a) + log p(b | a)"


def _by_key(scores: Iterable[ChoiceScore]) -> dict[Hashable, ChoiceScore]:
    scores_by_key: dict[Hashable, ChoiceScore] = {}
    for score in scores:
        assert score.key not in scores_by_key, f"the key {score.key!r} was returned twice"
        scores_by_key[score.key] = score
    return scores_by_key


def _check_samples(engine: Engine) -> None:
    """Check every sample's seed, length and finish, and that it does not depend on the other requests."""
    greedy = [SampleRequest(request.key, request.context, 5 + i) for i, request in enumerate(_some_requests())]
    requests = [replace(r, n=2, temperature=0.8, top_p=0.9, seed=7) if i % 2 else r for i, r in enumerate(greedy)]
    together = _by_place(engine.generate(requests))
    wanted = {(request.key, i): request for request in requests for i in range(request.n)}
    assert set(together) == set(wanted), f"generate() returned the samples {set(together)}; expected {set(wanted)}"
    for (key, index), sample in together.items():
        request = wanted[key, index]
        assert sample.seed == request.seed + index, f"sample {index} has seed {sample.seed}, not {request.seed + index}"
        assert 0 < len(sample.ids) <= request.max_tokens, f"{len(sample.ids)} tokens; at most {request.max_tokens}"
        finishes = {"stop", "length"} if len(sample.ids) == request.max_tokens else {"stop"}
        assert sample.finish in finishes, f"a sample of {len(sample.ids)} tokens ends with {sample.finish!r}"
        alone = _by_place(engine.generate([replace(request, n=1, seed=sample.seed)]))[key, 0]
        assert alone.ids == sample.ids, "a sample depends on the other requests, not on its seed alone"
        if request.temperature == 0:
            _check_greedy(engine, request, sample)


def _check_greedy(engine: Engine, request: SampleRequest, sample: Sample) -> None:
    """Check that a sample at temperature 0 has the most probable tokens, and that it ends before a stop text."""
    score = _by_key(engine.score([Request("greedy", request.prompt, (sample.ids,))]))["greedy"]
    assert score.is_greedy is None or score.is_greedy.all(), "at temperature 0, a sample lacks the most probable tokens"
    stop = sample.text[len(sample.text) // 2 :][:2]
    if stop.strip():
        cut = _by_place(engine.generate([replace(request, stop=("never", stop))]))[request.key, 0]
        expected = sample.text[: sample.text.index(stop)]
        assert (cut.text, cut.finish) == (expected, "stop"), f"stop={stop!r} gives {cut.text!r}, expected {expected!r}"


def _check_frequencies(engine: Engine, n: int = 300) -> None:
    """Check that token frequencies agree with the probabilities, within five standard errors."""
    prompt = _some_requests()[0].context
    request = SampleRequest("often", prompt, 1, n=n, temperature=1.0, seed=11)
    drawn = [sample.ids[0] for sample in engine.generate([request])]
    ids = sorted(set(drawn))
    score = _by_key(engine.score([Request("p", prompt, tuple((i,) for i in ids))]))["p"]
    p = np.exp(score.logprobs)
    off = np.abs(np.array([drawn.count(i) for i in ids]) / n - p) - 5 * np.sqrt(p * (1 - p) / n) - 1 / n
    assert (off <= 0).all(), f"the frequency of token {ids[int(off.argmax())]} differs from its probability"


def _by_place(samples: Iterable[Sample]) -> dict[tuple[Hashable, int], Sample]:
    by_place: dict[tuple[Hashable, int], Sample] = {}
    for sample in samples:
        assert (sample.key, sample.index) not in by_place, f"sample {sample.index} of {sample.key!r} was returned twice"
        by_place[sample.key, sample.index] = sample
    return by_place
