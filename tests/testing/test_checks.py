"""The conformance checks find violations and describe them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness import Checkpoint
from harness.registries import expect_law
from harness.testing import FakeEngine, check_engine, check_law, check_metric, check_task, open_fake


def gain(scores):
    return scores.gold(scores.logprob - scores.logprob_unconditional)


@pytest.mark.parametrize(
    ("metric", "registered", "message"),
    [
        (gain, {}, "if scores do not provide logprob_unconditional and is_greedy; list what it needs in needs="),
        (gain, {"needs": ["unconditionally"]}, "needs unconditionally; scores may offer"),
        (gain, {"needs": "unconditional", "aggregate": "median"}, "aggregate='median'; expected one of"),
        (3, {}, "cannot be called"),
    ],
)
def test_what_is_wrong_with_a_metric_is_said(metric, registered, message):
    with pytest.raises(AssertionError, match=message):
        check_metric(metric, **registered)


def test_one_need_may_be_a_text():
    check_metric(gain, needs="unconditional")


class Line:
    """A law that is right."""

    name = "line"
    features: tuple[str, ...] = ("x",)
    parameters = {"a": (-9.0, 9.0), "b": (-9.0, 9.0)}
    example = {"a": 1.0, "b": 2.0}

    def guess(self, y, x):
        b, a = np.polyfit(x, y, 1)
        return {"a": a, "b": b}

    def formula(self, x, a, b):
        return a + b * x


def with_(**changed) -> object:
    return type("Changed", (Line,), changed)()


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (Line, "the law Line is a class; register an instance"),
        (with_(features="x"), "features = 'x'; expected a tuple of names"),
        (with_(value_rnage=(0, 1)), "'value_rnage', which is not in the contract; did you mean 'value_range'"),
        (with_(anchor=()), r"did you mean 'anchors'\? Otherwise rename it to _anchor"),
        (with_(name=""), "has the name ''; expected text"),
        (with_(guess=lambda self, y, x: None), r"guess\(\) returned None; expected a value for each parameter"),
        (with_(formula=lambda self, x, a, b: a + 2 * x + 0 * b), "the parameter 'b' has no effect"),
        (object(), "lacks features, formula, guess, name, parameters"),
    ],
)
def test_what_is_wrong_with_a_law_is_said(law, message):
    with pytest.raises(AssertionError, match=message):
        check_law(law)


def test_a_law_that_is_right_passes():
    check_law(Line())


def test_a_law_may_have_attributes_of_its_own():
    expect_law(with_(_value_rnage=(0, 1), slope=lambda self: 2.0))
    expect_law(with_(anchors=(), anchor=5))  # both names: not a misspelling


class Bounded(Line):
    """A law whose bounds know the unit of its feature."""

    name = "bounded"
    features = ("tokens",)
    parameters = {"a": (-9.0, 9.0), "b": (0.5, 9.0)}

    def guess(self, y, tokens):
        return {"a": 1.0, "b": 2.0}

    def formula(self, tokens, a, b):
        return a + b * tokens / 1e10


def test_bounds_that_know_a_unit_are_noticed():
    with pytest.raises(AssertionError, match=r"with tokens 100 times as large, .* set own_units = \('tokens',\)"):
        check_law(Bounded())
    check_law(type("Scaled", (Bounded,), {"own_units": ("tokens",)})())


def test_a_task_whose_metric_is_unknown_is_noticed(tmp_path):
    (tmp_path / "docs.jsonl").write_text('{"q": "a", "c": ["b", "d"], "g": 0}\n')
    (tmp_path / "task.yaml").write_text("documents: docs.jsonl\nquery: '{q}'\nchoices: c\ngold: g\nmetric: accc\n")
    with pytest.raises(AssertionError, match="'accc' is not registered; did you mean 'acc'"):
        check_task(tmp_path)


class Forgets(FakeEngine):
    def generate(self, requests):
        yield from list(super().generate(requests))[1:]


class Overruns(FakeEngine):
    def generate(self, requests):
        return super().generate([replace(request, max_tokens=50) for request in requests])


class Sloppy(FakeEngine):
    """Draws with a seed that depends on what was drawn before."""

    drawn = 0

    def generate(self, requests):
        for request in requests:
            self.drawn += 1
            for sample in super().generate([replace(request, seed=request.seed + 100 * self.drawn)]):
                yield replace(sample, seed=sample.seed - 100 * self.drawn)


class Cool(FakeEngine):
    """Draws at another temperature than it is asked for."""

    def generate(self, requests):
        return super().generate([replace(request, temperature=request.temperature / 3) for request in requests])


class Talkative(FakeEngine):
    def generate(self, requests):
        return super().generate([replace(request, stop=()) for request in requests])


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Forgets, "returned the samples"),
        (Overruns, "50 tokens; at most 5"),
        (Sloppy, "a sample depends on the other requests, not on its seed alone"),
        (Cool, "differs from its probability"),
        (Talkative, "stop='"),
    ],
)
def test_what_is_wrong_with_samples_is_said(engine, message):
    @contextmanager
    def open_engine(checkpoint, folder):
        yield engine(checkpoint.label)

    with pytest.raises(AssertionError, match=message):
        check_engine(open_engine, Checkpoint("fam", "s", 1, 0, ""), Path())


def test_the_engine_without_a_model_passes():
    check_engine(open_fake, Checkpoint("fam", "s", 1, 0, ""), Path())
