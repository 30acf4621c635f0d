"""`harness doctor`, `harness docs` and `harness completion`; the pages of the documentation are correct."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.cli.help_commands import pages
from harness.host import PluginHost
from harness.host.candidates import BUILT_IN
from tests.conftest import REPOSITORY
from tests.test_architecture import sources

DOCS = REPOSITORY / "harness" / "docs"
LINK = re.compile(r"\]\(([^)#]+)\)")


def run(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_doctor_says_what_is_installed_and_what_would_run(tmp_path):
    result = run("doctor", tmp_path / "store", "--format", "json")
    rows = {row["item"]: row for row in json.loads(result.stdout)["doctor"]["rows"]}
    assert rows["engine transformers"]["found"] in {"installed", "default here"}
    assert "torch" in rows["extra transformers"]["found"]
    assert "GB free" in rows["disk"]["found"]
    assert (result.exit_code == 0) == ("Nothing needs attention" in result.stdout)


def test_doctor_works_while_a_plugin_is_broken_and_names_it(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    for off in ([], ["-p", "no:reporters"]):
        result = run("-p", tmp_path / "broken.py", *off, "doctor")
        assert result.exit_code == 1
        assert "plugin broken" in result.stdout
        assert "ZeroDivisionError" in result.stdout
        assert "disable it with -p no:broken" in result.stdout
    table = json.loads(run("-p", tmp_path / "broken.py", "doctor", "--format", "json").stdout)["doctor"]
    loaded = next(row["found"] for row in table["rows"] if row["item"] == "plugins")
    assert loaded.startswith(f"{len(BUILT_IN)} loaded, ")  # it was counted with those that did not load


def test_a_slow_plugin_is_named_by_doctor(tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.35)\n")
    result = run("-p", tmp_path / "slow.py", "doctor")
    assert result.exit_code == 1
    assert "import heavy libraries inside functions" in result.stdout


def test_every_page_can_be_listed_and_printed():
    listed = run("docs").stdout
    for name, path in pages().items():
        assert f"{name} " in listed
        printed = run("docs", name)
        assert printed.exit_code == 0
        assert printed.stdout.startswith(path.read_text().splitlines()[0])
        assert "[[[cog" not in printed.stdout
    assert set(pages()) == {
        "laws", "lm_eval", "numbers", "own", "quickstart", "troubleshooting", "reference", "plugins", "tasks"
    }  # fmt: skip
    assert run("docs", "law").exit_code == 2
    assert "did you mean 'laws'" in run("docs", "law").stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_harness(shell):
    assert f"_HARNESS_COMPLETE={shell}_complete" in run("completion", shell).stdout


def test_every_law_says_when_not_to_use_it(host: PluginHost):
    text = (DOCS / "laws.md").read_text()
    for name in host.laws:
        section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert "- Do not use it: " in section, name


def test_messages_of_the_troubleshooting_page_exist():
    code = "\n".join(path.read_text() for path in sources("harness", "plugins"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message over several lines
    rows = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(rows) > 12
    assert [row for row in rows if row not in code] == []


def test_links_of_the_pages_lead_somewhere():
    links = [(path, target) for path in DOCS.glob("*.md") for target in LINK.findall(path.read_text())]
    assert len(links) > 3
    assert [(path.name, target) for path, target in links if not (path.parent / target).exists()] == []


@pytest.mark.install
@pytest.mark.parametrize("page", ["quickstart", "own"])
def test_the_commands_of_a_page_run(page: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)
    assert blocks
    for line in "".join(blocks).splitlines():
        name, *arguments = shlex.split(line)
        assert name == "harness"
        result = run(*arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"
