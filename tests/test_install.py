"""The wheel: built from the repository, it works elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.install


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment that holds the wheel; libraries are borrowed, the harness is not."""
    folder = tmp_path_factory.mktemp("install")
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "results", "__pycache__")
    source = shutil.copytree(REPOSITORY, folder / "source", ignore=ignored)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    interpreter = folder / "venv" / "bin" / "python"
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    site = subprocess.run(
        [str(interpreter), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (Path(site) / "borrowed.pth").write_text("\n".join(libraries) + "\n")  # .pth files there are not read
    return interpreter


def run(python: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [str(python.parent / arguments[0]), *arguments[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheel_that_runs(python: Path, tmp_path: Path):
    where = run(
        python, tmp_path, "python", "-c", "import harness, harness_plugins, harness_tasks; print(harness.__file__)"
    )
    assert where.startswith(str(python.parent.parent))


def test_plugins_tasks_and_families_are_in_it(python: Path, tmp_path: Path):
    assert "error" in run(python, tmp_path, "harness", "plugins")
    assert run(python, tmp_path, "harness", "ls", "tasks").count("| nano_") == 10
    assert "| aster  | w32l2, w64l2, w96l3, w128l4, w192l5 | 17 " in run(python, tmp_path, "harness", "ls", "families")


def test_it_evaluates_and_compares(python: Path, tmp_path: Path):
    run(python, tmp_path, "harness", "eval", "aster:w32l2", "-t", "nano_job,nano_text", "--limit", "10", "-o", "s")
    assert "| nano_job  | acc           | 0." in run(python, tmp_path, "harness", "compare", "s")
