"""Models and data sets of the hub, from a server on this machine: pinned, cached, and recorded with their licence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.checkpoints.families import locate, select
from harness.files import licence_of_card
from harness.host import PluginHost
from tests.hub_server import Hub, hub

TASK = """
documents: local.jsonl
query: "{q}"
choices: c
gold: g
hub: {dataset: org/sums, revision: REVISION, split: test}
"""
FAMILY = """
hub = "org/tiny"
revision = "REVISION"
step = 1600
[sizes.small]
"""
KEYS = (("models", "org/tiny"), ("datasets", "org/sums"))
CARD = "---\nlicense: LICENCE\nlanguage: en\n---\n# A card\n"


@pytest.fixture
def served(tmp_path: Path, host: PluginHost) -> Iterator[tuple[Hub, Path, dict[str, str]]]:
    """Return a hub with a model and a data set of two commits each, a folder to work in, and environment variables."""
    folder = locate(select("aster:w32l2@1600", host)[0])[1]
    with hub() as server:
        for number, licence in enumerate(("mit", "apache-2.0")):
            model, data = tmp_path / f"model{number}", tmp_path / f"data{number}"
            shutil.copytree(folder, model)
            data.mkdir()
            rows = [{"q": f"{i} + 1 =", "c": ["1", str(i + 1 + number)], "g": 1} for i in range(1, 6)]
            (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            for repository in (model, data):
                (repository / "README.md").write_text(CARD.replace("LICENCE", licence))
            server.add("models", "org/tiny", model)
            server.add("datasets", "org/sums", data)
        (tmp_path / "work" / "sums").mkdir(parents=True)
        environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        yield server, tmp_path / "work", environment


def write(server: Hub, work: Path, number: int) -> None:
    """Write a task and a family that pin a commit."""
    model, data = (list(server.repositories[key].commits) for key in KEYS)
    (work / "sums" / "task.yaml").write_text(TASK.replace("REVISION", data[number]))
    (work / "tiny.toml").write_text(FAMILY.replace("REVISION", model[number]))


READ = """
import json
from harness.checkpoints.families import load_family, locate
from harness.errors import HarnessError
from harness.tasks.loading import load_task
from harness.tasks.task_files import read_task_file
from pathlib import Path
found = {}
try:
    task = load_task(read_task_file(Path("sums")))
    found |= {"task": dict(task.origin), "choices": task.docs[0].choices}
except HarnessError as error:
    found["task"] = str(error)
try:
    found["model"] = locate(load_family(Path("tiny.toml")).checkpoints[0])[0].source
except HarnessError as error:
    found["model"] = str(error)
print(json.dumps(found))
"""


def read(work: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Return what a process reads of the task and of the checkpoint, or the errors."""
    return json.loads(run(work, environment, "-c", READ))


def evaluate(work: Path, environment: dict[str, str]) -> None:
    """Run harness eval in a process of its own, because clients read their settings when they are imported."""
    arguments = ("eval", "tiny.toml", "--tasks", "sums", "-o", "store", "--engine", "transformers")
    run(work, environment, "-m", "harness", *arguments)


def run(work: Path, environment: dict[str, str], *arguments: str) -> str:
    """Run Python and return what it prints."""
    clean = {"HF_HUB_DISABLE_TELEMETRY": "1", "XDG_CACHE_HOME": str(work / "cache"), "HF_HUB_ETAG_TIMEOUT": "2"}
    settings = {**os.environ, **clean, **environment}
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=work, env=settings, text=True, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.soak
def test_a_pinned_revision_is_read_once_recorded_with_its_licence_and_served_offline(served, host):
    server, work, environment = served
    write(server, work, 0)
    evaluate(work, environment)
    store = harness.open_store(work / "store", registries=host)
    (cell,) = store.cells()
    model, data = (next(iter(server.repositories[key].commits)) for key in KEYS)
    assert cell.checkpoint.source == f"hub:org/tiny@{model}"
    provenance = store.provenance(cell.id.name)
    assert (provenance["hub"], provenance["licence"]) == (f"org/tiny@{model}", "mit")
    task = store.task(cell.id.fingerprint)
    assert task.origin == {"dataset": "org/sums", "revision": data, "licence": "mit"}
    assert task.docs[0].choices == ("1", "2")

    asked = len(server.asked)
    answer = read(work, environment | {"HF_HUB_OFFLINE": "1"})
    assert len(server.asked) == asked
    assert answer == {"task": dict(task.origin), "choices": ["1", "2"], "model": f"hub:org/tiny@{model}"}

    write(server, work, 1)
    answer = read(work, environment | {"HF_HUB_OFFLINE": "1"})
    assert len(server.asked) == asked
    assert (
        f"the cache has another revision, {data}; pass the folder of local.jsonl with --data, or run once"
        in answer["task"]
    )
    assert "cannot be downloaded" in answer["model"]
    answer = read(work, environment)
    assert (answer["task"]["licence"], answer["choices"]) == ("apache-2.0", ["1", "3"])
    write(server, work, 0)
    again = read(work, environment | {"HF_HUB_OFFLINE": "1"})
    assert (again["task"], again["choices"]) == (dict(task.origin), ["1", "2"])
    assert answer["model"] == f"hub:org/tiny@{list(server.repositories[KEYS[0]].commits)[1]}"


@pytest.mark.soak
def test_a_revision_that_the_hub_lacks_is_said(served):
    _, work, environment = served
    (work / "tiny.toml").write_text(FAMILY.replace("REVISION", "f" * 40))
    (work / "sums" / "task.yaml").write_text(TASK.replace("REVISION", "e" * 40))
    answer = read(work, environment)
    assert f"org/tiny at {'f' * 40} cannot be downloaded" in answer["model"]
    assert f"cannot read the dataset org/sums at revision {'e' * 40}" in answer["task"]


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\ntext", "mit"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit, cc-by-4.0"),
        ("---\nlanguage: en\n---\n", "unknown"),
        ("no card", "unknown"),
        ("---\n[]\n---\n", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_is_that_of_the_card(tmp_path, card, licence):
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_of_card(tmp_path / "README.md") == licence
