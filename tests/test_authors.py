"""Plugins from `harness new`, built and installed into a new environment, as their authors do."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.cli.skeletons import KINDS
from tests.conftest import REPOSITORY
from tests.installation import run

pytestmark = pytest.mark.install
WEIGHTS = REPOSITORY / "plugins" / "nano" / "weights" / "aster"


@pytest.fixture(autouse=True, scope="module")
def _installed_plugins_load() -> Iterator[None]:
    """Undo what conftest.py sets: plugins that are installed are the subject here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HARNESS_PLUGINS", raising=False)
        yield


def install(python: Path, *folders: Path) -> None:
    """Build and install packages as pip does, with the libraries that are borrowed."""
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", *folders]
    subprocess.run([str(part) for part in command], check=True)


@pytest.fixture(scope="module")
def current(python: Path) -> Path:
    """Return the interpreter of the environment, with a current setuptools to build with."""
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "setuptools>=77"], check=True)
    return python


@pytest.fixture(scope="module")
def packages(current: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one new plugin of each kind, all of them installed."""
    folder = tmp_path_factory.mktemp("authors")
    for kind in KINDS:
        run(current, folder, "harness", "new", kind, f"new_{kind}")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(REPOSITORY / "plugins" / "example", folder / "example", ignore=ignored)
    install(current, *(path for path in folder.iterdir() if (path / "pyproject.toml").exists()))
    return folder


def test_new_plugins_of_all_kinds_are_listed_and_pass_their_checks(current: Path, packages: Path):
    listed = json.loads(run(current, packages, "harness", "plugins", "--json"))
    names = {f"new_{kind}" for kind in KINDS} | {"example"}
    assert names <= {info["name"] for info in listed}
    assert {info["distribution"] for info in listed if info["name"] in names} == {
        f"harness-{name.replace('_', '-')}" for name in names
    }
    results = json.loads(run(current, packages, "harness", "plugins", *sorted(names), "--check", "--json"))
    assert [result for result in results if result["failures"] or result["skipped"]] == []
    assert len(results) == len(KINDS) - 1 + 6 + 6  # `plugin` and example register six objects each


def test_the_tests_that_come_with_them_pass(current: Path, packages: Path):
    done = run(current, packages, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", ".")
    assert f"{len(KINDS) - 1 + 1 + 2 * 7} passed" in done


def test_the_story_of_a_newcomer(current: Path, tmp_path: Path):
    """Own checkpoints, task, law and engine, each from its template, without the repository; the times are printed."""

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        print(f"{step}: {time.perf_counter() - begun:.1f} s")

    def harness(*arguments: str) -> str:
        return run(current, tmp_path, "harness", *arguments)

    for size in ("w32l2", "w64l2", "w96l3"):
        for step in (400, 800, 1600):
            shutil.copytree(WEIGHTS / size / f"step-{step}", tmp_path / "runs" / size / f"step-{step}")
    pattern = ["--source", "runs/{size}/step-{step}", "--tokens-per-step", "65536"]
    with timed("four templates"):
        harness("new", "family", "my_ladder", *pattern)
        for kind in ("task", "law", "engine"):
            harness("new", kind, f"my_{kind}")
    names = ("my_ladder", "my_task", "my_law", "my_engine")
    with timed("install them"):
        install(current, *(tmp_path / name for name in names))
    with timed("check them"):
        assert "4 of 4 objects pass their checks" in harness("plugins", *names, "--check")
    with timed("evaluate 9 checkpoints with the own engine"):
        harness(
            "eval", "my_ladder", "--tasks", "my_task,nano_job", "--limit", "20", "--engine", "my_engine", "-o", "own"
        )
    with timed("evaluate 9 checkpoints with transformers"):
        harness("eval", "my_ladder", "--tasks", "my_task,nano_job", "--limit", "20", "-o", "store")
    with timed("fit the own law"):
        text = harness("fit", "store", "--law", "my_law", "--task", "nano_job", "--hold-out", "largest")
    assert "held out my_ladder:w96l3@" in text
