"""`harness new` writes plugins that load, pass their checks, and are what the documents show."""

from __future__ import annotations

import shutil
import sys
import tomllib

import pytest
from click.testing import CliRunner

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
    assert [failure for found in results for failure in found.failures] == []
    if kind != "command":
        assert {found.kind for found in results} == REGISTERED.get(kind, {kind}) - {"command"}
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
    assert {size: own["step"] for size, own in table["sizes"].items()} == {"w32l2": "400, 800", "w64l2": "800"}
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
