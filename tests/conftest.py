"""Fixtures: a real store of small checkpoints, a store without a model, and published data."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

os.environ["HARNESS_PLUGINS"] = ""  # the bare product, whatever is installed beside it
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import harness
from harness.host import PluginHost, load_plugins
from harness.store.points import PointStore
from harness.testing import inspect_fake, open_fake
from tests.installation import install_wheels

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the cache of digests out of the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def host() -> PluginHost:
    """Return the built-in plugins."""
    return load_plugins()


@pytest.fixture(scope="session")
def fake_host() -> PluginHost:
    """Return the built-in plugins and the engine without a model."""

    class Plugin:
        @staticmethod
        @harness.hookimpl
        def register_engines(register: harness.Register) -> None:
            register("fake", open_fake, inspect_fake)

    host = load_plugins()
    host.add(Plugin, "fake")
    return host


@pytest.fixture(scope="session")
def nano_store(tmp_path_factory: pytest.TempPathFactory, host: PluginHost) -> PointStore:
    """Return a store of real scores: all steps of two sizes of aster, the finals of birch, 60 documents a task."""
    path = tmp_path_factory.mktemp("nano") / "store"
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.getbasetemp() / "cache")
    families = ["aster:w32l2,w64l2", "birch:w32l2,w64l2,w96l3"]
    tasks = ["nano_addition", "nano_birthplace", "nano_saying", "nano_text"]
    harness.evaluate(families, tasks, path, limit=60, registries=host).check()
    return harness.open_store(path, registries=host)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment that holds the wheels of this repository."""
    return install_wheels(tmp_path_factory.mktemp("install"))


def run_together(commands: Sequence[Sequence[str]], **settings: Any) -> tuple[list[int], list[str]]:
    """Run processes at once, however long it takes; return statuses and standard errors. None outlives a failure."""
    running = []
    try:
        for command in commands:
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **settings)
            running.append(process)  # one that was started is known when the next one does not start
        with ThreadPoolExecutor(len(running)) as pool:  # all pipes are read, or one that is full would stop its process
            logs = list(pool.map(lambda process: process.communicate()[1], running))
        return [process.returncode for process in running], logs
    finally:
        for process in running:
            process.kill()
            process.wait()


def published(*parts: str) -> Path:
    """Return a file or folder of data that others published; skip where it is absent, unless it is required."""
    root = Path(os.environ.get("HARNESS_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    path = root.joinpath(*parts)
    if path.exists():
        return path
    message = f"{path} is absent; HARNESS_TEST_DATA names the folder of published data"
    if os.environ.get("HARNESS_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)
