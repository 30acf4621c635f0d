"""An engine that breaks its contract fails at once; the error shows the value and the expected one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import harness
from harness import Checkpoint, Family
from harness.testing import FakeEngine, inspect_fake, open_fake
from tests.evaluation import test_sampling
from tests.evaluation.test_suite import host_with, make_task, run


@pytest.fixture
def family(tmp_path):
    """One checkpoint; the engine without a model does not read it."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(len(b"{}").to_bytes(8, "little") + b"{}")
    return Family("fam", (Checkpoint("fam", "s", 1, 0, str(tmp_path), params=10, tokens=5.0),))


class Letters:
    """A tokenizer that returns texts instead of token ids."""

    bos_id = eos_id = None
    prefix_ids = ()

    def encode_batch(self, texts):
        return list(texts)


class Broken(FakeEngine):
    """An engine that breaks one promise of `harness.Engine`: an attribute `breaks` names it."""

    breaks = ""

    def score(self, requests):
        if self.breaks == "reads nothing":
            return
        for score in super().score(requests):
            yield from BREACHES[self.breaks](score)

    def describe(self):
        return None if self.breaks == "describes nothing" else super().describe()


class Fails(Letters):
    def encode_batch(self, texts):
        raise RuntimeError("no vocabulary")


class Omits(Letters):
    def encode_batch(self, texts):
        return [[1, 2]] if texts == ["a b"] else []


class Arrays(Letters):
    def encode_batch(self, texts):
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]


BREACHES = {
    "describes nothing": lambda score: [score],
    "positive": lambda score: [replace(score, logprobs=-score.logprobs)],
    "twice": lambda score: [score, score],
    "tuple": lambda score: [(score.key, score.logprobs)],
    "list": lambda score: [replace(score, logprobs=score.logprobs.tolist())],
    "short": lambda score: [replace(score, logprobs=score.logprobs[:1])],
    "greedy": lambda score: [replace(score, is_greedy=score.is_greedy[:1])],
    "key": lambda score: [replace(score, key=(0, 99))],
    "numbers": lambda score: [replace(score, is_greedy=np.arange(2))],
    "complex": lambda score: [replace(score, logprobs=score.logprobs + 1j)],
}


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ("reads nothing", "the engine stopped before it read all requests; expected one result per request"),
        ("positive", "document 0, choice 0: the log-probability is"),
        ("twice", "the engine returned two scores with the key (0, 0); expected one per request"),
        ("tuple", "the engine returned ((0, 0), array("),
        ("list", "expected a numpy array (2,) of float, one value per continuation"),
        ("short", "the engine returned an array (1,) of float64 as logprobs of a request"),
        ("greedy", "the engine returned an array (1,) of bool as is_greedy of a request"),
        (
            "numbers",
            "the engine returned an array (2,) of int64 as is_greedy of a request; expected a numpy array (2,) of",
        ),
        ("complex", "the engine returned an array (2,) of complex128 as logprobs of a request"),
        ("key", "the engine returned a score with the key (0, 99), which was not requested"),
        ("describes nothing", "describe() of engine 'broken' returned None; expected a mapping of JSON values"),
    ],
)
def test_an_engine_that_breaks_its_contract_fails_with_what_was_expected(tmp_path, family, breaks, message):
    """An engine that read no request made a run wait for ever, and log-probabilities above 0 were stored."""

    @contextmanager
    def open_broken(checkpoint, folder, **options):
        engine = Broken(checkpoint.label)
        engine.breaks = breaks
        yield engine

    host = host_with("broken", open_broken)
    summary, progress = run([family], [make_task("a")], tmp_path / "s", host, engine="broken")
    assert summary.written == 0
    assert message in progress.failures[0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_length": None}, "inspect of engine 'odd' gives max_length None; expected 2 or more"),
        ({"dtype": np.float32}, "gives dtype <class 'numpy.float32'>; expected text"),
        ({"load_tokenizer": Letters}, "encode_batch(['a b']) returned ['a b']; expected one list of token"),
        ({"load_tokenizer": Fails}, "test_engine_contract.Fails: encode_batch fails: RuntimeError: no vocabulary"),
        ({"load_tokenizer": Omits}, "Omits: encode_batch returned 0 lists for"),
        ({"load_tokenizer": object}, "the tokenizer builtins.object: encode_batch fails: AttributeError"),
    ],
)
def test_properties_and_tokens_that_an_engine_cannot_have_are_named(tmp_path, family, changed, message):
    host = host_with("odd", open_fake, lambda *given, **options: replace(inspect_fake(*given, **options), **changed))
    _, progress = run([family], [make_task("a")], tmp_path / "s", host, engine="odd")
    assert message in progress.failures[0]


def test_token_ids_may_be_arrays(tmp_path, family):
    """A run failed with "the truth value of an array is ambiguous", without the name of the tokenizer."""
    host = host_with("odd", open_fake, lambda *given, **_: replace(inspect_fake(*given), load_tokenizer=Arrays))
    summary, _ = run([family], [make_task("a")], tmp_path / "s", host, engine="odd")
    assert summary.written == 1


@pytest.mark.parametrize("breaks", ["twice", "index", "tuple"])
def test_samples_that_were_not_asked_for_are_refused(tmp_path, family, breaks):
    """A sample that came twice was stored twice."""
    wrong = {
        "twice": lambda sample: [sample, sample],
        "index": lambda sample: [replace(sample, index=7)],
        "tuple": lambda sample: [(sample.key, sample.text)],
    }[breaks]

    class Doubling(FakeEngine):
        def generate(self, requests):
            for sample in super().generate(requests):
                yield from wrong(sample)

    @contextmanager
    def open_doubling(checkpoint, folder, **options):
        yield Doubling(checkpoint.label)

    host = test_sampling.host_with(open_doubling)
    drawn = {"sampler": "n", "options": {"n": 2}}
    task = test_sampling.make_task()
    summary = harness.evaluate([family], [task], tmp_path / "s", engine="fake", registries=host, sampling=drawn)
    message = {"twice": "twice", "index": "index 7, which was not asked for", "tuple": "expected a harness.Sample"}
    assert message[breaks] in str(summary.failures[0])
