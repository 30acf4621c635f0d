"""Errors in plugin code: one line that names plugin and object, and a non-zero status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import harness
from harness import SuiteError
from harness.cli import main
from harness.host import PluginHost, distribution, load_plugins
from harness.host.hookspecs import HOOKS
from harness.store.points import PointStore

PLUGIN = '''
import sys
import click
import harness
from harness.testing import FakeEngine, inspect_fake, open_fake
from contextlib import contextmanager

def quits(scores):
    sys.exit(0)

class Law:
    """A law that fails."""
    name, features, parameters = "bad_law", ("flops",), {"a": (0.0, 1.0)}
    def guess(self, y, flops):
        return {"a": 0.5}
    def formula(self, flops, a):
        return [][3]

class Quitting(FakeEngine):
    def score(self, requests):
        yield next(super().score(requests))
        sys.exit(0)

@contextmanager
def open_quitting(checkpoint, folder, **options):
    yield Quitting(checkpoint, 1024, "float32")

def fails(*arguments, **options):
    raise RuntimeError("no\\nmore")

@harness.hookimpl
def register_metrics(register):
    register(quits, needs=["choices"])
    register(lambda scores: 1 / 0, name="divides", needs=["choices"])
    register("".index, name="builtin", needs=["choices"])

@harness.hookimpl
def register_laws(register):
    register(Law())

@harness.hookimpl
def register_reporters(register):
    register("bad", lambda tables: {}["x"])

@harness.hookimpl
def register_sources(register):
    register("bad_source", fails, lambda: [])
    register("no_list", fails, lambda: None)

@harness.hookimpl
def register_engines(register):
    register("quitting", open_quitting, inspect_fake)
    register("bad_inspect", open_fake, fails)
    register("absent", open_fake, inspect_fake, modules=("no_such_module",), install=lambda: "pip install it")

@harness.hookimpl
def register_commands(cli):
    @cli.command()
    def boom():
        raise ValueError("no")
    @cli.command()
    def leave():
        sys.exit(0)
    @cli.command()
    def ends():
        raise click.exceptions.Exit(3)
'''


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "bad.py"
    path.write_text(PLUGIN)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("compare STORE --metric nano_saying=quits", "plugin 'bad', metric 'quits': called sys.exit(0)"),
        ("compare STORE --metric nano_saying=divides", "plugin 'bad', metric 'divides': ZeroDivisionError: division"),
        ("compare STORE --metric nano_saying=builtin", "plugin 'bad', metric 'builtin': TypeError"),
        ("fit STORE --task nano_saying --law bad_law", "plugin 'bad', law 'bad_law': IndexError: list index"),
        ("compare STORE --format bad", "plugin 'bad', reporter 'bad': KeyError: 'x'"),
        ("show bad_source:x", "plugin 'bad', source 'bad_source': RuntimeError: no"),
        ("ls sources", "source 'no_list': list_names() returned None; expected a list of texts"),
        ("boom", "plugin 'bad', command 'boom': ValueError: no"),
        ("leave", "plugin 'bad', command 'leave': called sys.exit(0)"),
    ],
)
def test_an_error_of_a_plugin_is_one_line_that_names_plugin_and_object(
    nano_store: PointStore, plugin, command, message
):
    words = command.replace("STORE", str(nano_store.path)).split()
    result = run("-p", plugin, *words)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith(f"harness: {message}")
    assert result.stderr.count("\n") == 1


def test_the_whole_traceback_is_shown_on_request(plugin):
    result = run("-p", plugin, "--traceback", "boom")
    assert isinstance(result.exception, harness.PluginError)
    assert isinstance(result.exception.__cause__, ValueError)


def test_a_command_may_end_with_a_status_of_its_own(plugin):
    assert run("-p", plugin, "ends").exit_code == 3


def test_sys_exit_of_an_engine_is_a_failure_and_the_other_checkpoints_go_on(plugin, tmp_path):
    """It once ended `harness eval` with status 0 and a part of the records."""
    asked = [
        "eval",
        "aster:w32l2@100,200",
        "-t",
        "nano_job",
        "--limit",
        "5",
        "-o",
        tmp_path / "s",
        "--engine",
        "quitting",
    ]
    result = run("-p", plugin, *asked)
    assert result.exit_code == 1
    for step in (100, 200):
        assert f"failed: aster:w32l2@{step}: plugin 'bad', engine 'quitting': called sys.exit(0)" in result.stderr


def test_an_engine_that_fails_at_inspection_is_named(plugin, tmp_path):
    asked = ["-t", "nano_job", "--limit", "5", "-o", tmp_path / "s", "--engine", "bad_inspect"]
    result = run("-p", plugin, "eval", "aster:w32l2@100", *asked)
    assert "failed: aster:w32l2@100: plugin 'bad', engine 'bad_inspect': RuntimeError: no" in result.stderr


def test_a_run_that_leaves_a_cell_out_without_an_error_fails(fake_host: PluginHost, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.evaluation.suite.Suite._pass", lambda *_: None)
    monkeypatch.setattr("harness.evaluation.suite.Suite._wait_for_others", lambda *_: None)
    summary = harness.evaluate(["aster:w32l2@100"], ["nano_job"], tmp_path / "s", engine="fake", registries=fake_host)
    with pytest.raises(SuiteError, match="aster:w32l2@100 nano_job: no record was written"):
        summary.check()


def test_a_missing_package_is_one_line_before_any_cell(plugin, tmp_path, monkeypatch):
    """It once was said once a checkpoint."""
    asked = ["eval", "aster", "-t", "nano_job", "-o", tmp_path / "s"]
    result = run("-p", plugin, *asked, "--engine", "absent")
    assert result.stderr == "harness: engine 'absent' needs no_such_module, not installed here: pip install it\n"
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run(*asked, "--engine", "transformers")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"needs torch, not installed here: {distribution.how_to_install('transformers')}" in result.stderr
    assert not (tmp_path / "s").exists()


def test_sys_exit_at_import_does_not_load(plugin, tmp_path):
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    with pytest.raises(harness.PluginError, match=r"plugin 'leaves' does not load: called sys.exit\(0\)"):
        load_plugins([str(tmp_path / "leaves.py")]).check()


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("harness.reports.compare.compare", "compare s"),
        ("harness.evaluation.preparation.make_plan", "eval aster:w32l2 -t nano_job -o s"),
        ("harness.evaluation.evaluate.prepare", "eval aster:w32l2 -t nano_job -o s --dry-run"),
        ("harness.cli.commands.load_plugins", "ls laws"),
    ],
)
def test_ctrl_c_ends_any_command_with_130(tmp_path, monkeypatch, place, command):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if command.startswith("compare"):
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "store.json").write_text('{"schema": 1}')
    monkeypatch.setattr(place, interrupted)
    monkeypatch.setattr("harness.evaluation.preparation.make_plan", interrupted)
    monkeypatch.chdir(tmp_path)
    result = run(*command.split())
    assert (result.exit_code, result.stdout) == (130, "")
    assert "interrupted" in result.stderr
    assert "Aborted" not in result.stderr


def test_version_names_the_distribution():
    result = subprocess.run([sys.executable, "-m", "harness", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"harness, version {distribution.version()} ({distribution.name()})\n"


MISBEHAVING = """
import sys, time
import harness

@harness.hookimpl
def {hook}({argument}):
    {body}
"""
BODIES = {
    "raises": ("raise RuntimeError('no')", "RuntimeError: no"),
    "exits": ("sys.exit(0)", "called sys.exit(0)"),
    "prints": ("print('noise')", None),
    "is slow": ("time.sleep(0.02)", None),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("body", BODIES)
def test_a_hook_that_raises_exits_prints_or_is_slow_is_seen(tmp_path, capsys, hook, body):
    code, error = BODIES[body]
    argument = "cli" if hook == "register_commands" else "register"
    (tmp_path / "odd.py").write_text(MISBEHAVING.format(hook=hook, argument=argument, body=code))
    host = load_plugins([str(tmp_path / "odd.py")])
    host.add_commands(click.Group())
    assert set(host.errors) == ({"odd"} if error else set())
    assert host.errors.get("odd", "").startswith(error or "")
    assert host.seconds["odd"] >= (0.02 if body == "is slow" else 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("noise\n" if body == "prints" else "")


def test_what_a_plugin_prints_does_not_mix_with_json(tmp_path):
    (tmp_path / "loud.py").write_text("print('I am here')\n")
    result = run("-p", tmp_path / "loud.py", "ls", "laws", "--json")
    assert json.loads(result.stdout)
    assert "I am here" in result.stderr


def test_commands_of_a_plugin_are_gone_after_the_run_that_loaded_it(plugin):
    assert run("-p", plugin, "boom").exit_code == 1
    assert "boom" not in main.commands
    assert "No such command 'boom'" in run("boom").output
