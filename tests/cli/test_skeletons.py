"""`harness new` writes plugins that load, pass their checks, and are what the documents show."""

from __future__ import annotations

import shutil
import sys
import tomllib

import pytest
from click.testing import CliRunner

import harness
from harness import UsageError
from harness.cli import main
from harness.cli.skeletons import KINDS, write_skeleton
from harness.host import load_plugins
from harness.testing.plugins import check_plugins
from tests.conftest import REPOSITORY

WEIGHTS = REPOSITORY / "plugins" / "nano" / "weights" / "aster"
REGISTERED = {"figure": {"panel"}, "plugin": {"law", "metric", "task", "engine", "command", "panel"}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_loads_and_passes_its_checks(tmp_path, monkeypatch, kind):
    name = f"new_{kind}"
    files = write_skeleton(kind, name, tmp_path)
    assert {path.name for path in files} >= {"pyproject.toml", "README.md"}
    monkeypatch.syspath_prepend(tmp_path / name)
    host = load_plugins([name])
    host.check()
    results = list(check_plugins(host, [name]))
    assert [failure for checked in results for failure in checked.failures] == []
    if kind != "command":
        assert {checked.kind for checked in results} == REGISTERED.get(kind, {kind}) - {"command"}
    tests = [path for path in files if path.name.startswith("test_")]
    assert all("import check_" in path.read_text() for path in tests)
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        del sys.modules[module]


def test_a_family_is_read_from_existing_folders(tmp_path, monkeypatch):
    for size, step in (("w32l2", 400), ("w32l2", 800), ("w64l2", 800)):
        shutil.copytree(WEIGHTS / size / f"step-{step}", tmp_path / "runs" / size / f"step-{step}")
    monkeypatch.chdir(tmp_path)
    arguments = ["new", "family", "ours", "--source", "runs/{size}/step-{step}", "--tokens-per-step", "65536"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    table = tomllib.loads((tmp_path / "ours" / "ours" / "ours.toml").read_text())
    assert {size: settings["step"] for size, settings in table["sizes"].items()} == {
        "w32l2": "400, 800",
        "w64l2": "800",
    }
    assert table["tokens_per_step"] == 65536
    from harness.testing import check_family

    family = check_family(tmp_path / "ours" / "ours" / "ours.toml")
    assert [c.label for c in family.checkpoints] == ["ours:w32l2@400", "ours:w32l2@800", "ours:w64l2@800"]


def test_a_family_without_flops_is_told_which_setting_is_missing(tmp_path, monkeypatch):
    shutil.copytree(WEIGHTS / "w32l2" / "step-400", tmp_path / "runs" / "a" / "step-400")
    monkeypatch.chdir(tmp_path)
    write_skeleton("family", "ours", source="runs/{size}/step-{step}")
    from harness.testing import check_family

    with pytest.raises(AssertionError, match="ours:a@400: no training FLOPs; set tokens_per_step"):
        check_family(tmp_path / "ours" / "ours" / "ours.toml")


@pytest.mark.parametrize(
    ("kind", "name", "source", "message"),
    [
        ("lwa", "mine", "", "there is no kind 'lwa' of plugin; did you mean 'law'"),
        ("law", "My-Law", "", "'My-Law' cannot name a package"),
        ("law", "json", "", "Python already has a module 'json'"),
        ("metric", "métrique", "", "lower-case letters, digits and _, such as metrique"),
        ("law", "lambda", "", "'lambda' is a keyword of Python; choose another name, such as my_lambda"),
        ("reporter", "lines", "", "the template of kind reporter uses the name 'lines' itself"),
        ("engine", "tokenizer", "", "the template of kind engine uses the name 'tokenizer' itself"),
        ("plugin", "register", "", "uses the name 'register' itself"),
        ("law", "mine", "x/{size}", "--source describes checkpoints of a family, not a law"),
        ("family", "mine", "x/{step}", "expected a pattern with {size}"),
        ("family", "mine", "nowhere/{size}", "matches no folder with config.json"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, kind, name, source, message):
    with pytest.raises(UsageError) as caught:
        write_skeleton(kind, name, tmp_path, source=source)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("law", "power", "there already is a law 'power', of plugin 'laws.loss'"),
        ("family", "aster", "there already is a family 'aster', of plugin 'nano'"),
        ("figure", "choices", "there already is a panel 'choices'"),
        ("command", "rank", "there already is a command 'rank', of plugin 'analyses.rank'"),
        ("plugin", "acc", "there already is a metric 'acc', of plugin 'metrics.choice'"),
        ("task", "nano", "there already is a plugin 'nano'"),
    ],
)
def test_a_name_that_is_registered_already_is_refused_before_anything_is_written(tmp_path, kind, name, message):
    result = CliRunner().invoke(main, ["new", kind, name, "-o", str(tmp_path)])
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert message.replace("panel", "figure") in result.output


def test_a_new_package_is_loaded_from_its_folder(tmp_path, monkeypatch):
    """`-p mine/mine/__init__.py` named the plugin __init__, and its modules were not found."""
    write_skeleton("plugin", "loaded_by_folder", tmp_path)
    folder = tmp_path / "loaded_by_folder" / "loaded_by_folder"
    for argument in (str(folder), str(folder / "__init__.py")):
        host = load_plugins([argument])
        host.check()
        assert "loaded_by_folder" in host.laws
        assert host.extra == (str(folder / "__init__.py"),)
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness" / "__init__.py").touch()
    with pytest.raises(harness.PluginError, match=r"Python already has a module 'harness' .*; rename the folder"):
        load_plugins([str(tmp_path / "harness")]).check()
    for module in [module for module in sys.modules if module.startswith("loaded_by_folder")]:
        monkeypatch.delitem(sys.modules, module)


def test_existing_files_are_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="mine exists; choose another name, or another folder with -o"):
        write_skeleton("law", "mine", tmp_path)


def test_the_example_is_what_harness_new_writes(tmp_path):
    """plugins/example is `harness new plugin example`, so that one text is kept."""
    example = REPOSITORY / "plugins" / "example"
    written = write_skeleton("plugin", "example", tmp_path)
    assert {path.relative_to(tmp_path / "example").as_posix() for path in written} == {
        path.relative_to(example).as_posix()
        for path in example.rglob("*")
        if path.is_file() and not {"__pycache__", ".pytest_cache", "build", "example.egg-info"} & set(path.parts)
    }
    for path in written:
        assert path.read_text() == (example / path.relative_to(tmp_path / "example")).read_text(), path.name
