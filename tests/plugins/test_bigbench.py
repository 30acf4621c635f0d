"""BIG-bench's task.json files: the prompts of BIG-bench, groups from sub-folders, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import harness
from harness import PluginHost, Task, TaskError, UsageError
from harness.cli import main
from harness.reports.listings import prompts
from harness.tasks.finding import find_task, find_tasks

EXAMPLES = [
    {"input": "Is snow white?", "target_scores": {"yes": 1, "no": 0}},
    {"input": "Which is a fruit?", "target_scores": {"stone": 0, "pear": 1, "chair": 0, "plum": 1}},
]
TABLE = {
    "canary": "MADE UP, NO BENCHMARK DATA",
    "name": "Made-up questions",
    "description": "Three made-up questions",
    "keywords": ["common sense"],
    "metrics": ["multiple_choice_grade"],
    "preferred_score": "multiple_choice_grade",
    "examples": EXAMPLES,
}


def write(folder: Path, table: object = TABLE, **changes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {**table, **changes} if isinstance(table, dict) else table
    (folder / "task.json").write_text(json.dumps(content))
    return folder


def find(path: Path, host: PluginHost) -> Task:
    return find_task(f"bigbench:{path}", host)


def test_the_prompt_is_that_of_big_bench(tmp_path, host: PluginHost):
    task = find(write(tmp_path / "made_up"), host)
    assert (task.name, task.kind, task.metric, task.about) == ("made_up", "choice", "acc", "Three made-up questions")
    yes, fruit = task.docs
    assert yes.prompt(0) == ("\nQ: Is snow white?\n  choice: yes\n  choice: no\nA: ", "yes")
    assert fruit.contexts == (
        "\nQ: Which is a fruit?\n  choice: pear\n  choice: stone\n  choice: chair\n  choice: plum\nA: ",
    )
    assert fruit.choices == ("stone", "pear", "chair", "plum")
    assert (yes.gold, fruit.gold) == ((0,), (1, 3))


def test_choices_are_ordered_as_in_lm_evals_copy(tmp_path, host: PluginHost):
    """In that copy, numpy's RandomState(42), reset for each document, permutes the sorted choices."""
    choices = [f"choice {k}" for k in (3, 0, 4, 1, 2)]
    example = {"input": "x", "target_scores": {name: int(name == "choice 4") for name in choices}}
    task = find(write(tmp_path / "t", examples=[example, example]), host)
    expected = np.random.RandomState(42).permutation(sorted(choices))
    assert {doc.contexts[0] for doc in task.docs} == {
        "\nQ: x" + "".join(f"\n  choice: {c}" for c in expected) + "\nA: "
    }


def test_prefixes_are_those_of_the_file(tmp_path, host: PluginHost):
    prefixes = {
        "task_prefix": "Answer.\n\n",
        "example_input_prefix": "Question: ",
        "example_output_prefix": "\nAnswer:",
        "choice_prefix": "\n- ",
    }
    context = find(write(tmp_path / "t", **prefixes), host).docs[0].contexts[0]
    assert context == "Answer.\n\nQuestion: Is snow white?\n- yes\n- no\nAnswer:"
    bare = find(write(tmp_path / "t", **prefixes, append_choices_to_input=False), host).docs[0].contexts[0]
    assert bare == "Answer.\n\nQuestion: Is snow white?\nAnswer:"


def test_a_file_is_named_as_well_as_its_folder(tmp_path, monkeypatch, host: PluginHost):
    folder = write(tmp_path / "made_up")
    by_folder, by_file = find(folder, host), find(folder / "task.json", host)
    assert (by_folder.name, by_folder.fingerprint) == (by_file.name, by_file.fingerprint)
    (folder / "task.json").rename(folder / "other.json")
    assert find(folder / "other.json", host).name == "other"
    monkeypatch.chdir(write(tmp_path / "here"))
    assert find(Path(), host).name == "here"


def test_sub_folders_are_groups(tmp_path, host: PluginHost):
    folder = write(tmp_path / "several", {"name": "several", "description": "two of them"})
    write(folder / "hard", examples=EXAMPLES[1:])
    write(folder / "easy", examples=EXAMPLES[:1])
    (folder / "results").mkdir()
    task = find(folder, host)
    assert [(doc.doc_id, doc.group) for doc in task.docs] == [("easy/0", "easy"), ("hard/0", "hard")]
    assert (task.name, task.average, task.about) == ("several", "macro", "two of them")


def test_a_limit_and_the_preferred_score_are_kept(tmp_path, host: PluginHost):
    path = write(tmp_path / "t", preferred_score="expected_calibration_error")
    (task,) = find_tasks([f"bigbench:{path}"], host, limit=1)
    assert (len(task.docs), task.metric) == (1, "ece")
    assert task.fingerprint != find(path, host).fingerprint
    assert "two" in find(write(tmp_path / "t", description="two", preferred_score="bleu"), host).about
    assert find(tmp_path / "t", host).metric == "acc"


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"input": "2 + 2", "target": "4"}, "example 1: expected input and target_scores; .* not supported"),
        ({"input": "x", "target_scores": {"a": 0.5, "b": 1}}, "example 1: the target score of 'a' is 0.5"),
        ({"input": "x", "target_scores": {"a": -1, "b": 1}}, "the target score of 'a' is -1"),
        ({"input": "x", "target_scores": {"a": "1", "b": 0}}, "the target score of 'a' is '1'"),
        ({"input": "x", "target_scores": {"a": 0, "b": 0}}, "0 of 2 choices are correct"),
        ({"input": "x", "target_scores": {"a": 1, "b": 1}}, "2 of 2 choices are correct"),
        ({"input": "x", "target_scores": {"a": 1}}, "expected at least two"),
        ({"input": "x", "target_scores": {"a": 1, "": 0}}, "expected at least two that are not empty"),
        ({"target_scores": {"a": 1, "b": 0}}, "expected input"),
        ("x", "example 1: expected input"),
    ],
)
def test_an_example_that_cannot_be_scored_is_named(tmp_path, host: PluginHost, example, message):
    path = write(tmp_path / "t", examples=[EXAMPLES[0], example])
    with pytest.raises(TaskError, match=message) as caught:
        find(path, host)
    assert str(path / "task.json") in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "empty"}, "has no examples, and no sub-folder of .* contains a task.json"),
        ({"examples": []}, "expected a list of examples"),
        ({"examples": {}}, "expected a list of examples"),
        ([], "expected a JSON object, found list"),
    ],
)
def test_a_file_without_examples_is_refused(tmp_path, host: PluginHost, table, message):
    with pytest.raises(TaskError, match=message):
        find(write(tmp_path / "t", table), host)


def test_programmatic_tasks_and_missing_files_are_told_apart(tmp_path, host: PluginHost):
    (tmp_path / "task.py").write_text("")
    with pytest.raises(TaskError, match="programmatic task"):
        find(tmp_path, host)
    with pytest.raises(TaskError, match="programmatic task"):
        find(tmp_path / "task.py", host)
    with pytest.raises(UsageError, match=r"nowhere does not exist; expected a task.json"):
        find(tmp_path / "sub" / "nowhere", host)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(TaskError, match=r"broken.json: .*expected a task.json of BIG-bench"):
        find(tmp_path / "broken.json", host)


def test_it_is_evaluated_by_an_engine(tmp_path, host: PluginHost):
    """The space before the choice goes from the context to the choice; both right answers count."""
    path = write(tmp_path / "made_up")
    shown = CliRunner().invoke(main, ["show", f"bigbench:{path}"])
    assert shown.exit_code == 0
    assert shown.stdout == prompts(find(path, host), 3) + "\n"
    store = tmp_path / "store"
    harness.evaluate(["aster:w32l2@100"], [f"bigbench:{path}"], store, registries=host).check()
    points = harness.open_store(store, registries=host).points("made_up", metrics=["acc", "p_choices"])
    assert points["n"].tolist() == [2, 2]
    assert points["chance"].tolist() == [0.5, 0.5]
