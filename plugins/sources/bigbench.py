"""Multiple-choice tasks of BIG-bench (Srivastava et al. 2022), zero-shot, read from their unchanged task.json files.

`bigbench:PATH` names a task.json or its folder. A folder whose sub-folders each contain a task.json is one task with
one group per sub-folder. Its score is the mean over groups, as in BIG-bench (its pull request 173).

The prompt consists of task_prefix, example_input_prefix, input, the choices and example_output_prefix. The order of the
choices is drawn once per number of choices (append_choices_to_input; pull requests 82 and 220). A choice follows
without a delimiter.

BIG-bench's multiple_choice_grade is the mean target score of the most probable choice. It equals acc if all target
scores are 0 or 1; tasks with other scores are refused. The other metrics correspond by meaning:
expected_calibration_error to ece, multicategory_brier_score to brier, correct_prob_mass to p_choices, and
log_likelihood to logp_gold. BIG-bench normalises a grade so that guessing gives 0 (pull request 221):
(acc - chance) / (1 - chance); acc and chance are columns of points.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import harness
from harness import Doc, Task, TaskError, UsageError

SEED = 42  # of the order of choices, as in lm-eval's copy of BIG-bench's tasks
DEFAULTS = {"example_input_prefix": "\nQ: ", "example_output_prefix": "\nA: ", "choice_prefix": "\n  choice: "}
METRICS = {
    "expected_calibration_error": "ece",
    "multicategory_brier_score": "brier",
    "correct_prob_mass": "p_choices",
    "log_likelihood": "logp_gold",
}  # the metric that tables show, by preferred_score; otherwise acc


def resolve(name: str) -> Task:
    """Return the task of a task.json or a folder; raise UsageError if it is missing and TaskError if it is invalid."""
    from harness import fingerprint

    file = _file(Path(name))
    table = _read(file)
    docs = tuple(_docs(file, table) if "examples" in table else _groups(file))
    return Task(
        name=file.resolve().parent.name if file.name == "task.json" else file.stem,
        kind="choice",
        docs=docs,
        fingerprint=fingerprint("choice", False, docs),
        metric=METRICS.get(str(table.get("preferred_score")), "acc"),
        about=str(table.get("description", "")),
    )


def _file(path: Path) -> Path:
    file = path / "task.json" if path.is_dir() else path
    if file.is_file() and file.suffix == ".json":
        return file
    if file.with_name("task.py").is_file():
        raise TaskError(
            f"{file.parent} contains a programmatic task (task.py), which queries models itself; expected task.json"
        )
    raise UsageError(f"bigbench:{path}: {file} does not exist; expected a task.json or a folder that contains one")


def _read(file: Path) -> dict[str, Any]:
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"{file}: {error}; expected a task.json of BIG-bench") from error
    if not isinstance(table, dict):
        raise TaskError(f"{file}: expected a JSON object, found {type(table).__name__}")
    return table


def _groups(file: Path) -> Iterator[Doc]:
    """Yield the documents of all sub-folders, one group per sub-folder."""
    parts = sorted(file.parent.glob("*/task.json"))
    if not parts:
        raise TaskError(f"{file} has no examples, and no sub-folder of {file.parent} contains a task.json")
    for part in parts:
        yield from _docs(part, _read(part), part.parent.name)


def _docs(file: Path, table: Mapping[str, Any], group: str | None = None) -> Iterator[Doc]:
    examples = table.get("examples")
    if not isinstance(examples, list) or not examples:
        raise TaskError(f"{file}: expected a list of examples")
    for number, example in enumerate(examples):
        try:
            yield _doc(table, example, number, group)
        except TaskError as error:
            raise TaskError(f"{file}, example {number}: {error}") from error


def _doc(table: Mapping[str, Any], example: Any, number: int, group: str | None) -> Doc:
    scores = example.get("target_scores") if isinstance(example, dict) else None
    if not isinstance(scores, dict) or not isinstance(example.get("input"), str):
        raise TaskError(
            "expected input and target_scores; examples without choices need sampling and are not supported"
        )
    choices = tuple(scores)
    context = _context(table, example["input"], choices)
    doc_id = str(number) if group is None else f"{group}/{number}"
    return Doc(doc_id, (context,), choices, choices, _gold(scores), group)


def _gold(scores: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the choices whose score is 1."""
    if len(scores) < 2 or "" in scores:
        raise TaskError(f"the choices are {list(scores)}; expected at least two that are not empty")
    for choice, score in scores.items():
        if score not in (0, 1):
            raise TaskError(
                f"the target score of {choice!r} is {score!r}; expected 0 or 1, since the metric is accuracy"
            )
    gold = tuple(k for k, score in enumerate(scores.values()) if score == 1)
    if not 0 < len(gold) < len(scores):
        raise TaskError(
            f"{len(gold)} of {len(scores)} choices are correct; expected at least one correct and one wrong"
        )
    return gold


def _context(table: Mapping[str, Any], text: str, choices: Sequence[str]) -> str:
    before, after, bullet = (table.get(key, default) for key, default in DEFAULTS.items())
    if table.get("append_choices_to_input", True):
        ordered = sorted(choices)
        shuffled = np.random.RandomState(SEED).permutation(len(choices))  # the generator of BIG-bench
        text += "".join(bullet + ordered[k] for k in shuffled)
    return f"{table.get('task_prefix', '')}{before}{text}{after}"


@harness.hookimpl
def register_sources(register: harness.Register) -> None:
    """Register the prefix; paths are not listed."""
    register("bigbench", resolve, lambda: ())
