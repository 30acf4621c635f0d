"""`harness plugins --check` runs the checks on everything installed; checks report all failures at once."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from harness import Checkpoint, EngineError, UsageError
from harness.cli import main
from harness.host import PluginHost, load_plugins
from harness.testing import ConformanceError, FakeEngine, check_engine, check_law, check_metric, check_panel
from harness.testing.plugins import check_plugins

SINK = Path(__file__).parents[1] / "kitchen_sink.py"
CHECKPOINT = Checkpoint("fam", "s", 1, 0, "")

BAD = """
import harness

def leaky(scores):
    return scores.gold(scores.logprob) - scores.logprob.mean()

class Law:
    name, features, parameters = "crooked", ("flops",), {"a": (0.0, 1.0), "b": (0.0, 1.0)}
    example = {"a": 2.0, "b": 0.5}
    def guess(self, y, flops):
        return {"a": 0.5}
    def formula(self, flops, a, b):
        return a + 0 * flops

@harness.hookimpl
def register_metrics(register):
    register(leaky, needs=["choices"])

@harness.hookimpl
def register_laws(register):
    register(Law())

@harness.hookimpl
def register_reporters(register):
    register("bad", lambda tables: 3)
"""


def run(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_every_object_of_the_kitchen_sink_passes_its_check():
    result = run("-p", SINK, "plugins", "kitchen_sink", "--check", "--json")
    assert result.exit_code == 0, result.output
    checked = json.loads(result.stdout)
    assert {found["kind"] for found in checked} == {
        "task", "source", "family", "engine", "metric", "checker", "sampler", "law", "forecaster", "executor",
        "reporter", "panel", "command",
    }  # fmt: skip
    assert {found["plugin"] for found in checked} == {"kitchen_sink"}


def test_all_failures_of_a_plugin_are_listed_at_once(tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    result = run("-p", tmp_path / "bad.py", "plugins", "bad", "--check")
    assert result.exit_code == 1
    assert "| bad    | law      | crooked | 3 failed |" in result.stdout
    for message in (
        "bad, law crooked: law 'crooked': the example [2.  0.5] lies outside the bounds",
        "bad, law crooked: law 'crooked': the parameter 'b' has no effect",
        "bad, law crooked: law 'crooked': guess() gives no value for b",
        "bad, metric leaky: leaky: a document's value depends on the other documents",
        "bad, reporter bad: it returned 3; expected text",
    ):
        assert message in result.stdout


@pytest.mark.parametrize("kind", ["metrics", "checkers", "samplers", "reporters", "panels", "engines", "families"])
def test_what_ships_passes_the_same_checks(host: PluginHost, kind):
    """Laws and forecasters have tests of their own, and tasks are read by others."""
    owners = {entry.plugin for entry in getattr(host, kind).entries.values()}
    results = [found for found in check_plugins(host, sorted(owners)) if found.kind != "law"]
    assert [found for found in results if found.failures] == []
    assert any(found.result == "passed" for found in results)


def test_a_plugin_that_is_not_loaded_is_refused_by_name(host: PluginHost):
    with pytest.raises(UsageError, match="no plugin 'sampler'; did you mean 'samplers'"):
        list(check_plugins(host, ["sampler"]))
    assert run("plugins", "sampler").exit_code == 2


class ScoresOnly(FakeEngine):
    def generate(self, requests):
        raise EngineError("this engine does not generate")


class Careless(FakeEngine):
    """Adds up probabilities above 1, generates nothing, and describes itself with a set."""

    def score(self, requests):
        for score in super().score(requests):
            yield type(score)(score.key, score.logprobs + 3.0, score.is_greedy)

    def describe(self):
        return {1, 2}


def opener(kind):
    @contextmanager
    def open_engine(checkpoint, folder):
        yield kind(checkpoint.label)

    return open_engine


def test_an_engine_that_only_scores_is_checked_as_one():
    check_engine(opener(ScoresOnly), CHECKPOINT, Path(), generates=False)
    with pytest.raises(AssertionError, match="this engine does not generate"):
        check_engine(opener(ScoresOnly), CHECKPOINT, Path())
    with pytest.raises(AssertionError, match="raise EngineError, or check the engine with generates=True"):
        check_engine(opener(FakeEngine), CHECKPOINT, Path(), generates=False)


def test_an_engine_is_told_everything_that_is_wrong_with_it():
    with pytest.raises(ConformanceError) as caught:
        check_engine(opener(Careless), CHECKPOINT, Path(), inspect=lambda checkpoint: None)
    text = str(caught.value)
    assert len(caught.value.failures) >= 4
    for message in ("cannot be called as", "log p(a b) is not", "sum to more than 1", "expected a mapping"):
        assert message in text


def test_the_signature_of_a_formula_is_compared_with_its_names():
    class Law:
        name, features, parameters, example = "short", ("flops",), {"a": (0, 1), "b": (0, 1)}, {"a": 0.1, "b": 0.2}

        def guess(self, y, flops):
            return {"a": 0.5, "b": 0.5}

        def formula(self, flops, a):
            return a + 0 * flops

    with pytest.raises(AssertionError, match=r"formula\(flops, a\) cannot be called as formula\(flops=, a=, b=\)"):
        check_law(Law())


def test_a_metric_without_the_right_argument_is_told_so():
    with pytest.raises(AssertionError, match="cannot be called"):
        check_metric(lambda: np.zeros(3))


def test_a_panel_that_draws_a_column_it_lacks_is_told_so():
    def panel(data):
        import harness

        chart = {"mark": "point", "encoding": {"x": {"field": "perplexity"}}}
        return harness.Panel("Figure", "", chart, data.runs)

    with pytest.raises(AssertionError) as caught:
        check_panel(panel)
    assert "draws perplexity, but the rows have no such column" in str(caught.value)
    assert "about is empty" in str(caught.value)


def test_the_time_to_load_a_plugin_is_listed(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.4)\n")
    (info,) = [i for i in load_plugins([str(tmp_path / "slow.py")]).plugins() if i.name == "slow"]
    assert info.seconds >= 0.4
    assert "slow takes " in run("-p", tmp_path / "slow.py", "plugins").stdout
