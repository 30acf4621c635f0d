"""The stories of authors outside the repository, as the README tells them: the files below are cut out of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.readme import write_files


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the README's files and checkpoints of one's own."""
    folder = tmp_path_factory.mktemp("theirs")
    written = write_files(REPOSITORY / "README.md", folder)
    assert {path.name for path in written} == {"mine.toml", "task.yaml", "docs.jsonl", "mine.py", "test_mine.py"}
    weights = REPOSITORY / "plugins" / "nano" / "weights" / "aster"
    for size in ("w32l2", "w64l2"):
        for step in (400, 800, 1600):
            shutil.copytree(weights / size / f"step-{step}", folder / "checkpoints" / size / f"step-{step}")
    return folder


def harness(workplace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(workplace / "cache")}
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.soak
def test_own_checkpoints_task_metric_and_law_from_end_to_end(workplace: Path):
    done = harness(workplace, "eval", "mine.toml", "-t", "nano_job,capitals", "--limit", "30", "-o", "store")
    assert done.returncode == 0, done.stderr
    assert "12/12 mine:w64l2@1600 capitals" in done.stderr
    fitted = harness(
        workplace, "-p", "mine.py", "fit", "store", "--law", "saturating", "--task", "nano_job",
        "--hold-out", "step == 1600 and size == 'w64l2'", "-o", "fit.json",
    )  # fmt: skip
    assert fitted.returncode == 0, fitted.stderr
    assert "held out mine:w64l2@1600: measured" in fitted.stdout
    assert (
        "did you mean 'learning_rate'?"
        in harness(
            workplace, "fit", "store", "--law", "sigmoid", "--task", "nano_job", "--value", "learning_rat"
        ).stderr
    )
    predicted = harness(workplace, "-p", "mine.py", "predict", "fit.json", "--params", "1e6", "--tokens", "1e9")
    assert "| mine   | nano_job | saturating |" in predicted.stdout


@pytest.mark.soak
def test_own_metric_is_listed_computed_and_comparable(workplace: Path):
    assert "| surprise " in harness(workplace, "-p", "mine.py", "ls", "metrics").stdout
    done = harness(workplace, "eval", "mine.toml:w32l2@1600", "-t", "nano_job", "--limit", "20", "-o", "small")
    assert done.returncode == 0, done.stderr
    compared = harness(
        workplace, "-p", "mine.py", "compare", "small", "--metric", "nano_job=surprise", "--law", "sigmoid"
    )
    assert "| nano_job | surprise |" in compared.stdout


def test_the_one_line_checks_of_the_readme_pass(workplace: Path):
    environment = {**os.environ, "PYTHONPATH": str(workplace)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


@pytest.mark.soak
def test_the_python_of_the_readme_runs(workplace: Path):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (program,) = [
        block.split("```")[0] for block in text.split("```python\n") if block.startswith("import harness\n\nharness.")
    ]
    program = program.replace('["aster"]', '["aster:w32l2,w64l2,w96l3"]').replace("limit=100", "limit=20")
    environment = {**os.environ, "XDG_CACHE_HOME": str(workplace / "cache")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("two_step: acc from flops via -logp_gold  (family aster, task nano_ordering)")
