"""The plugin host: loading, refusals, and attribution of errors."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import harness
from harness import PluginError, UsageError
from harness.host import Candidate, PluginHost, distribution, load_plugins
from harness.host.candidates import BUILT_IN
from harness.host.hookspecs import HOOKS
from tests.conftest import REPOSITORY

SINK = REPOSITORY / "tests" / "kitchen_sink.py"


def plugin_file(folder: Path, text: str, name: str = "mine") -> str:
    path = folder / f"{name}.py"
    path.write_text("import harness\n" + textwrap.dedent(text))
    return str(path)


def test_everything_that_ships_goes_through_hooks(host: PluginHost):
    assert not host.errors
    assert len(host.plugins()) == len(BUILT_IN)
    assert {"aster", "birch", "cedar"} <= set(host.families)
    assert "transformers" in host.engines
    assert {"exact", "last_number", "letter", "regex"} <= set(host.checkers)
    assert {"power", "sigmoid", "two_step"} <= set(host.laws)
    assert set(host.reporters) == {"csv", "json", "md", "tex"}
    assert {(info.distribution, info.version) for info in host.plugins()} == {
        (distribution.name(), distribution.version())
    }


def test_a_plugin_that_implements_every_hook_loads():
    host = load_plugins([str(SINK)])
    host.check()
    info = next(info for info in host.plugins() if info.name == "kitchen_sink")
    assert set(info.hooks) == set(HOOKS)
    for registry, name in {
        "tasks": "sink_task",
        "sources": "sink",
        "families": "sink_family",
        "engines": "sink_engine",
        "metrics": "spread",
        "checkers": "sink_checker",
        "samplers": "sink_sampler",
        "laws": "sink_law",
        "executors": "sink_executor",
        "reporters": "sink",
    }.items():
        assert name in getattr(host, registry)
        assert getattr(host, registry).entries[name].plugin == "kitchen_sink"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@harness.hookimpl\ndef register_metric(register): pass", "mine defines register_metric, which is not a hook"),
        ("def register_metrics(register): pass", "register_metrics without @harness.hookimpl"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "ZeroDivisionError"),
        ("def register(", "SyntaxError"),
        ("@harness.hookimpl\ndef register_metrics(registrar): pass", "registrar"),
        ("@harness.hookimpl\ndef register_metrics(register): register(len, name='acc')", "'acc' in metrics, already"),
        ("@harness.hookimpl\ndef register_metrics(register): register(len, needs=['text', 'smell'])", "needs smell"),
        ("@harness.hookimpl\ndef register_metrics(register): register(len, aggregate='median')", "aggregate='median'"),
        ("@harness.hookimpl\ndef register_metrics(register): register(3, name='x')", "cannot be called"),
        ("@harness.hookimpl\ndef register_tasks(register): register('/no/such/task.yaml')", "does not exist"),
        ("@harness.hookimpl\ndef register_tasks(register): register(3)", "expected a path or a harness.Task"),
        ("class L:\n  name = 'l'\n@harness.hookimpl\ndef register_laws(register): register(L())", "lacks features"),
        (
            "class L:\n  name, features, parameters, guess, formula, value_rnage = 'l', (), {}, len, len, 1\n\
@harness.hookimpl\ndef register_laws(register): register(L())",
            "law 'l' has an attribute 'value_rnage', which is not in the contract; did you mean 'value_range'?",
        ),
        ("@harness.hookimpl\ndef register_engines(register): register('e', len)", "inspect"),
        (
            "@harness.hookimpl\ndef register_engines(register): register('e', len, len, module=())",
            "register() got an unexpected keyword argument 'module'",
        ),
        (
            "@harness.hookimpl\ndef register_metrics(register): register(len, higher_is_beter=False)",
            "register() got an unexpected keyword argument 'higher_is_beter'",
        ),
        ("@harness.hookimpl\ndef register_checkers(register): register('c', 3)", "cannot be called"),
        ("@harness.hookimpl\ndef register_checkers(register): register('c:d', len)", "expected text without a colon"),
        (
            "@harness.hookimpl\ndef register_checkers(register): register('c', len, version=2)",
            "version=2; expected text",
        ),
        (
            "@harness.hookimpl\ndef register_checkers(register): register('c', len, prepare=1)",
            "'c, prepare=' is regist",
        ),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said_with_its_name(tmp_path, text, message):
    host = load_plugins([plugin_file(tmp_path, text)])
    with pytest.raises(PluginError) as caught:
        host.check()
    assert "plugin 'mine' does not load" in str(caught.value)
    assert message in str(caught.value)
    assert next(info for info in host.plugins() if info.name == "mine").error


def test_a_clash_names_both_plugins(tmp_path):
    host = load_plugins(
        [plugin_file(tmp_path, "@harness.hookimpl\ndef register_metrics(register): register(len, name='acc')")]
    )
    with pytest.raises(PluginError, match="'mine' registers 'acc' in metrics, already registered by 'metrics.choice'"):
        host.check()


def test_two_plugins_of_one_name_are_refused(tmp_path):
    file = plugin_file(tmp_path, "")
    (tmp_path / "other").mkdir()
    host = load_plugins([file, plugin_file(tmp_path / "other", "")])
    with pytest.raises(PluginError, match="two plugins are named 'mine'"):
        host.check()


def test_a_plugin_can_be_switched_off(tmp_path):
    broken = plugin_file(tmp_path, "1 / 0")
    host = load_plugins([broken, "no:mine", "no:nano"])
    host.check()
    assert "aster" not in host.families


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(PluginError, match="there is no file"):
        load_plugins([str(tmp_path / "nothing.py")]).check()


def test_entry_points_load_unless_the_environment_says_otherwise(monkeypatch):
    class Entry:
        name, dist = "theirs", None

        def load(self):
            return object()

    def found() -> list[str]:
        return [info.name for info in load_plugins().plugins() if info.name == "theirs"]

    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [Entry()])
    monkeypatch.delenv("HARNESS_PLUGINS")
    assert found() == ["theirs"]
    monkeypatch.setenv("HARNESS_PLUGINS", "")
    assert found() == []
    monkeypatch.setenv("HARNESS_PLUGINS", "other,theirs")
    assert found() == ["theirs"]


def test_a_failing_command_hook_is_kept_under_its_name():
    class Broken:
        @staticmethod
        @harness.hookimpl
        def register_commands(cli):
            raise RuntimeError("no")

    host = PluginHost()
    host.load(Candidate("broken", lambda: Broken))
    host.add_commands(None)
    assert host.errors == {"broken": "RuntimeError: no"}


def test_a_mistyped_name_is_answered_with_the_nearest_ones(host: PluginHost):
    with pytest.raises(
        UsageError, match=r"no 'chinchila' in laws; did you mean 'chinchilla'\? \(`harness ls laws` lists"
    ):
        host.laws["chinchila"]
    with pytest.raises(UsageError, match="no 'vlm' in engines; did you mean 'vllm'"):
        host.engines["vlm"]
    with pytest.raises(UsageError, match="no 'pass-until' in samplers; did you mean 'pass_until'"):
        host.samplers["pass-until"]


def test_a_name_like_no_other_does_not_list_forty(host: PluginHost):
    with pytest.raises(UsageError) as caught:
        host.laws["zzz"]
    assert str(caught.value) == f"there is no 'zzz' in laws; `harness ls laws` lists all {len(host.laws.entries)}"
    with pytest.raises(UsageError, match="no 'zzz' in samplers; there are: n, pass_until"):
        host.samplers["zzz"]


def test_every_hook_has_its_four_parts():
    """When it is called, its argument, and a minimal implementation are in each docstring."""
    from harness.host import hookspecs

    for name in HOOKS:
        text = getattr(hookspecs, name).__doc__
        assert "Called once" in text
        assert ":param" in text
        assert "Minimal implementation::" in text
        assert f"def {name}" in text
