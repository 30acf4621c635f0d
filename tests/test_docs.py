"""The documents agree with the code (`cog --check` verifies their generated parts)."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys

import pytest

from harness.checkpoints import family_files
from harness.checkpoints.family_files import SETTINGS
from harness.tasks.documents import find_files
from harness.tasks.task_files import PROMPT_KEYS, TASK_KEYS, _task_file
from tests.conftest import REPOSITORY
from tests.test_architecture import sources

READMES = ["README.md", "CONTRIBUTING.md", "harness/README.md", "tasks/README.md", "plugins/README.md"]


@pytest.mark.parametrize("name", READMES)
def test_links_lead_somewhere(name):
    path = REPOSITORY / name
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_every_key_of_task_yaml_is_explained_and_no_other():
    text = (REPOSITORY / "tasks" / "README.md").read_text(encoding="utf-8")
    table = text.split("## Keys")[1].split("## Examples")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == PROMPT_KEYS | TASK_KEYS


def test_the_examples_of_the_task_guide_are_valid(tmp_path):
    import yaml

    text = (REPOSITORY / "tasks" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 10
    for block in blocks:
        _task_file(tmp_path / "task" / "task.yaml", yaml.safe_load(block))


def test_the_reference_covers_every_command():
    text = (REPOSITORY / "harness" / "README.md").read_text(encoding="utf-8")
    command = [sys.executable, "-m", "harness", "--help"]  # a process of its own: other tests add commands of plugins
    environment = {**os.environ, "HARNESS_PLUGINS": ""}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  (\w+)  ", shown.split("Commands:")[1], re.MULTILINE)
    assert set(re.findall(r"^### harness (\w+)$", text, re.MULTILINE)) == set(commands)


def test_every_setting_of_a_family_file_is_in_its_documentation():

    for setting in SETTINGS:
        assert setting in (family_files.__doc__ or ""), setting


@pytest.mark.parametrize("path", sources("harness", "plugins"), ids=lambda path: path.stem)
def test_examples_in_docstrings_run(path):
    package = {"harness": "harness", "plugins": "harness_plugins"}[path.relative_to(REPOSITORY).parts[0]]
    parts = path.relative_to(REPOSITORY).with_suffix("").parts[1:]
    if parts[-1] in {"__main__"}:
        return
    module = importlib.import_module(".".join([package, *(p for p in parts if p != "__init__")]))
    assert doctest.testmod(module).failed == 0


def test_results_do_not_hold_records():
    assert not [p for p in (REPOSITORY / "results").rglob("*.parquet") if "store" not in p.parts]
    assert find_files("*.md", [REPOSITORY / "results" / "demo"])
