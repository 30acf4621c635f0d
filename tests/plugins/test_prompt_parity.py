"""Parity with lm-evaluation-harness: the prompts of benchmarks, as lm-eval 0.4.13's own task objects make them."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from harness import Doc, Task
from harness.tasks.loading import load_task
from harness.tasks.task_files import read_task_file
from tests.benchmark_rows import EXAMPLES
from tests.conftest import REPOSITORY, published
from tests.test_benchmarks import shipped, write_files

pytestmark = pytest.mark.parity

Asked = list[tuple[list[tuple[str, str]], int]]  # of each document: context and continuation of each choice; gold
Rows = list[dict[str, Any]]
YAML = {
    "arc_challenge": "arc/arc_challenge.yaml",
    "arc_easy": "arc/arc_easy.yaml",
    "blimp": "blimp/adjunct_island.yaml",
    "boolq": "super_glue/boolq/default.yaml",
    "commonsense_qa": "commonsense_qa/default.yaml",
    "copa": "super_glue/copa/default.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "lambada_openai": "lambada/lambada_openai.yaml",
    "logiqa": "logiqa/logiqa.yaml",
    "mmlu": "mmlu/default/mmlu_us_foreign_policy.yaml",
    "mmlu_0shot": "mmlu/default/mmlu_us_foreign_policy.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "piqa": "piqa/piqa.yaml",
    "sciq": "sciq/sciq.yaml",
    "social_iqa": "siqa/siqa.yaml",
    "triviaqa": "triviaqa/default.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "winogrande": "winogrande/default.yaml",
    "wsc273": "wsc273/default.yaml",
}
GENERATED = {"triviaqa"}  # lm-eval generates an answer; only the contexts are compared


@pytest.fixture(scope="module")
def theirs() -> Iterator[Callable[..., Asked]]:
    """Return what makes lm-eval's prompts: its task of a YAML file on given rows; its warnings are not the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        import datasets
        import lm_eval
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.tasks._yaml_loader import load_yaml

        datasets.disable_progress_bars()

        class OnRows(ConfigurableTask):
            """lm-eval's task without its download."""

            def __init__(self, config: dict[str, Any], splits: dict[str, Rows]) -> None:
                self.splits = splits
                super().__init__(config=config)

            def download(self, *_: Any, **__: Any) -> None:
                self.dataset = datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in self.splits.items()})

        def make(name: str, rows: Rows, solved: Sequence[dict[str, Any]] = (), n: int = 0) -> Asked:
            config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / name)
            split = config.get("test_split") or config["validation_split"]
            splits = {split: rows} | ({config["fewshot_split"]: list(solved)} if solved else {})
            unused = {"tag", "task_alias", "group"} | {
                key for key in ("training_split", "validation_split", "test_split") if config.get(key) not in splits
            }
            task = OnRows({key: value for key, value in config.items() if key not in unused}, splits)
            return [(requests_of(task, doc, n), gold_of(task, doc)) for doc in task.eval_docs]

        yield make
        logging.disable(logging.NOTSET)


def requests_of(task: Any, doc: dict[str, Any], n: int) -> list[tuple[str, str]]:
    requests = task.construct_requests(doc, task.fewshot_context(doc, n))
    return [request.args for request in (requests if isinstance(requests, list) else [requests])]


def gold_of(task: Any, doc: dict[str, Any]) -> int:
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(target, int):
        return target
    return task.doc_to_choice(doc).index(target) if task.config.doc_to_choice else 0


def asked(doc: Doc) -> tuple[list[tuple[str, str]], int]:
    return [doc.prompt(k) for k in range(len(doc.choices))], doc.gold[0]


def ours(task: Task, n: int | None = None) -> Asked:
    return [asked(doc) for doc in task.docs[:n]]


@pytest.mark.parametrize("name", sorted(YAML))
def test_made_up_documents_have_lm_evals_prompts(theirs, tmp_path, name):
    example = EXAMPLES[name]
    prompts = ours(load_task(shipped(name), write_files(name, tmp_path)))
    expected = theirs(YAML[name], example.hub, example.solved, 5 if name == "mmlu" else 0)
    if name in GENERATED:
        prompts, expected = ([pairs[0][0] for pairs, _ in which] for which in (prompts, expected))
    assert prompts == expected


def read(*parts: str) -> Iterator[dict[str, Any]]:
    path = published("tasks", *parts)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        yield from map(json.loads, stream)


def labelled(row: dict[str, Any]) -> dict[str, Any]:
    labels = "ABCDE"[: len(row["choices"])]
    return {"choices": {"text": row["choices"], "label": list(labels)}, "answerKey": labels[row["gold"]]}


def arc(row: dict[str, Any]) -> dict[str, Any]:
    return {"question": row["query"].removeprefix("Question: "), **labelled(row)}


def openbookqa(row: dict[str, Any]) -> dict[str, Any]:
    return {"question_stem": row["query"], **labelled(row)}


def piqa(row: dict[str, Any]) -> dict[str, Any]:
    goal = row["query"].removeprefix("Question: ").removesuffix("\n")
    return {"goal": goal, "sol1": row["choices"][0], "sol2": row["choices"][1], "label": row["gold"]}


def lambada(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": f"{row['context']} {row['continuation']}"}


FILES = {
    "arc_challenge": ("arc_challenge.jsonl", arc),
    "arc_easy": ("arc_easy.jsonl", arc),
    "blimp": ("adjunct_island.jsonl.gz", dict),
    "lambada_openai": ("lambada_openai.jsonl", lambada),
    "openbookqa": ("openbook_qa.jsonl", openbookqa),
    "piqa": ("piqa.jsonl", piqa),
}


@pytest.mark.parametrize("name", sorted(FILES))
def test_published_documents_have_lm_evals_prompts(theirs, name):
    file, convert = FILES[name]
    rows = [convert(row) for row in islice(read(name, file), 500)]
    task = load_task(read_task_file(REPOSITORY / "tasks" / name), published("tasks"))
    assert ours(task, 500) == theirs(YAML[name], rows)


def test_truthfulqa_has_lm_evals_prompts(theirs):
    tasks = [
        load_task(read_task_file(REPOSITORY / "tasks" / f"truthfulqa_{name}"), published("tasks"))
        for name in ("mc1", "mc2")
    ]
    with published("tasks", "truthfulqa", "TruthfulQA.csv").open() as stream:
        questions = [row["Question"] for row in csv.DictReader(stream)]
    targets = [[{"choices": list(doc.choices), "labels": [1]} for doc in task.docs] for task in tasks]
    rows = [
        {"question": question, "mc1_targets": single, "mc2_targets": several}
        for question, single, several in zip(questions, *targets, strict=True)
    ]
    for task, name in zip(tasks, ("mc1", "mc2"), strict=True):
        assert ours(task) == theirs(YAML[f"truthfulqa_{name}"], rows)


def rows_of(subject: str, split: str) -> Rows:
    with published("tasks", "mmlu", f"{subject}_{split}.csv").open() as stream:
        return [
            {"question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5]), "subject": subject}
            for row in csv.reader(stream)
        ]


def test_mmlu_has_lm_evals_prompts_in_every_subject(theirs):
    task = load_task(read_task_file(REPOSITORY / "tasks" / "mmlu"), published("tasks"), limit=5)
    subjects = sorted({str(doc.group) for doc in task.docs})
    assert len(subjects) == 57
    for subject in subjects:
        prompts = [asked(doc) for doc in task.docs if doc.group == subject]
        rows, solved = rows_of(subject, "test")[:5], rows_of(subject, "dev")
        assert prompts == theirs(f"mmlu/default/mmlu_{subject}.yaml", rows, solved, 5), subject
