"""`harness plugins --check` runs the checks on everything installed; checks report all failures at once."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from harness import Checkpoint, EngineError, Panel, PluginError, UsageError
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
    results = [result for result in check_plugins(host, sorted(owners)) if result.kind != "law"]
    assert [result for result in results if result.failures] == []
    assert any(result.result == "passed" for result in results)


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


LAW = """
class Law:
    "y = a - b ln C."
    name, features, parameters, example = "l", ("flops",), {"a": (0.0, 2.0), "b": (0.0, 1.0)}, {"a": 1.0, "b": 0.1}
    def guess(self, y, flops):
        return self.example
    def formula(self, flops, a, b):
        BODY
"""
DOC = "harness.Doc('0', ('q',), (' a', ' b'), ('a', 'b'), (0,))"
THREE = "harness.Doc('0', ('q',), (' a', ' b', ' c'), ('a', 'b'), (0,))"
REPLACES = """
import harness
@harness.hookimpl
def register_commands(cli):
    @cli.command("fit")
    def fit():
        1 / 0
"""


def failures_of(path, *lines: str) -> str:
    """Return why a plugin of these lines does not load, or the failures of its checks."""
    (path / "mine.py").write_text("\n".join(["import numpy as np", "import harness", *lines]))
    host = load_plugins([str(path / "mine.py")])
    if "mine" in host.errors:
        return host.errors["mine"]
    return "; ".join(failure for result in check_plugins(host, ["mine"]) for failure in result.failures)


def hook(name: str, body: str) -> str:
    return f"@harness.hookimpl\ndef register_{name}(register):\n    {body}"


@pytest.mark.parametrize(
    ("body", "keywords", "message"),
    [
        ("return None", "", "metric 'm' returned None; expected one number per document, (n,)"),
        ("yield 1.0", "", "metric 'm' returned <generator"),
        ("return np.zeros(3)", "", "metric 'm' returned arrays of shape (3,); expected 1 of shape (12,)"),
        ("scores.logprob[:] = 0.0", "", "assignment destination is read-only"),
        ("return scores.gold(scores.logprob)", "bounds=(0, 1)", "for document 0, outside its bounds 0 to 1"),
        ("return 1", "bounds=1", "metric 'm': bounds=1; expected (lowest, highest) possible value"),
        ("return 1", "needs=3", "metric 'm': needs=3; expected a list of: answers"),
    ],
)
def test_a_metric_that_breaks_its_contract_is_told_what_was_expected(tmp_path, body, keywords, message):
    metric = f"def m(scores):\n    {body}"
    named = keywords if "needs" in keywords else f"needs=['choices', 'one_gold'], {keywords}"
    assert message in failures_of(tmp_path, metric, hook("metrics", f"register(m, {named})"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("BODY", "return None", "law 'l': the formula returned None; expected values (12,)"),
        ("BODY", "import math; return a - b * math.log(flops)", "use numpy functions"),
        ('{"a": (0.0, 2.0)', '{"a": (2.0, 0.0)', "the bounds of 'a' are (2.0, 0.0); expected a dict from names to"),
        ('{"a": (0.0, 2.0), "b": (0.0, 1.0)}', '["a", "b"]', "law 'l': parameters = ['a', 'b']; expected a dict"),
    ],
)
def test_a_law_that_breaks_its_contract_is_told_what_was_expected(tmp_path, before, after, message):
    law = LAW.replace(before, after).replace("BODY", "return a - b * np.log(flops) / 10")
    assert message in failures_of(tmp_path, law, hook("laws", "register(Law())"))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (f"'quiz', ({DOC},)", "task t: kind is 'quiz'; expected one of choice, cloze, text, generate, unjudged"),
        ("'choice', ('a', 'b')", "task t: a document is 'a'; expected a harness.Doc"),
        (f"'choice', (doc for doc in [{DOC}])", "expected a tuple of harness.Doc"),
        (f"'choice', ({DOC.replace('(0,)', '(5,)')},)", "document 0: gold [5] of 2 choices"),
        (f"'choice', ({DOC.replace('(0,)', '()')},)", "document 0: no choice is correct; name one in gold"),
        (f"'choice', ({DOC},), groups='cluster'", "groups is 'cluster'; expected one of strata, clusters"),
        (f"'choice', ({DOC},), average='median'", "average is 'median'; expected one of macro, micro"),
        (f"'generate', ({DOC},)", "generation is None; expected a harness.Generation"),
        (f"'choice', ({THREE},)", "document 0: 3 continuations of 2 choices; expected 2, or 1"),
    ],
)
def test_a_task_of_a_plugin_is_refused_when_its_documents_do_not_fit_together(tmp_path, task, message):
    """`gold` of a choice that does not exist was accepted, and such documents counted as wrong."""
    registered = hook("tasks", f"register(harness.Task('t', {task}, fingerprint=''))")
    assert message in failures_of(tmp_path, registered)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (hook("metrics", "yield register(len)"), "register_metrics contains yield or is async, so that nothing is"),
        (hook("metrics", "return [len]"), "register_metrics returned [<built-in function len>], which is ignored"),
        ("def register(): pass", "it has no function that is marked with @harness.hookimpl"),
        ("input('name? ')", "EOFError"),
        (hook("sources", "register('s', dict.pop, lambda: 'abc')"), "list_names() returned 'abc'; expected a list"),
        (hook("checkers", "register('c', lambda doc, text: harness.Outcome(next(SEEN)))"), "repeated calls gave"),
        (hook("samplers", "register('s', Never)"), "for documents without samples; expected 1 or more"),
    ],
)
def test_what_a_plugin_does_wrong_is_said(tmp_path, lines, message):
    seen = "import itertools\nSEEN = itertools.cycle(['passed', 'failed', 'crashed'])"
    never = "class Never:\n    at_most = 3\n    def more(self, drawn, passed):\n        return 0 * drawn"
    assert message in failures_of(tmp_path, seen, never, lines)


def test_a_command_cannot_replace_another(tmp_path):
    """A plugin with a command `fit` replaced that of the harness."""
    (tmp_path / "mine.py").write_text(REPLACES)
    result = run("-p", tmp_path / "mine.py", "fit", "points.csv")
    reason = "it registers the command 'fit', already registered by the harness"
    assert f"plugin 'mine' does not load: {reason}" in result.output
    assert "Fit a law to points" in run("fit", "--help").output


def test_a_format_that_returns_no_text_is_an_error_that_names_it(tmp_path):
    """`--format bad` printed 3."""
    (tmp_path / "bad.py").write_text(BAD)
    result = run("-p", tmp_path / "bad.py", "laws", "--format", "bad")
    assert result.exit_code == 1
    assert "plugin 'bad', reporter 'bad' returned 3; expected text" in result.output


@pytest.mark.parametrize(
    ("chart", "rows", "message"),
    [
        (5, pd.DataFrame(), "panel 'T' has the chart 5; expected a dict or an Altair chart"),
        ({"mark": "point"}, [1, 2], "panel 'T' has rows of type list; expected a DataFrame"),
    ],
)
def test_a_figure_of_other_types_is_refused_before_it_is_drawn(chart, rows, message):
    """harness report ended with the traceback of an AttributeError."""
    with pytest.raises(PluginError, match=message):
        Panel("T", "About", chart, rows)
