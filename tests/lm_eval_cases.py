"""Tasks of lm-eval on local rows, both programs on them, and the comparison of what they write.

Rows are those of the published files, or made up in the schema of the data set. A task file includes lm-eval's own and
replaces only where the rows come from.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import harness
from harness.host import PluginHost
from tests.conftest import published

Rows = list[dict[str, Any]]
MAX_LENGTH = 2048
NATS, FLOAT32 = 1e-4, 3e-7  # the larger of both is what two programs may differ by: lm-eval sums tokens in float32


@dataclass(frozen=True)
class Local:
    """A task of lm-eval and the rows of each of its splits; `of` is its file in lm-eval's tasks, `more` changes it."""

    name: str
    of: str
    rows: Mapping[str, Rows]
    more: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the rows and a task file that includes lm-eval's own."""
        import lm_eval

        files = {}
        for split, rows in self.rows.items():
            file = folder / f"{self.name}-{split}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            files[split] = str(file)
        splits = {f"{kind}_split": None for kind in ("training", "validation", "test") if self._lacks(kind)}
        config = {
            "include": str(Path(lm_eval.__file__).parent / "tasks" / self.of),
            "task": self.name,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
            **splits,
            **self.more,
        }
        (folder / f"{self.name}.yaml").write_text(yaml.safe_dump(config))

    def _lacks(self, kind: str) -> bool:
        names = {"training": "train", "validation": "validation", "test": "test"}
        return names[kind] not in self.rows


@dataclass(frozen=True)
class Case:
    """A name to evaluate in both programs, with the tasks that it stands for."""

    name: str
    tasks: Sequence[Local]
    output_type: str
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # num_fewshot, fewshot_seed
    add_bos: bool = True
    group: Mapping[str, Any] | None = None  # a group file; None where lm-eval's own is meant
    full: bool = False  # needs lm-eval's own task files by name

    def write(self, folder: Path) -> None:
        """Write all task files of the case."""
        for task in self.tasks:
            task.write(folder)
        if self.group is not None:
            (folder / f"{self.name}.yaml").write_text(yaml.safe_dump(dict(self.group)))


# --- rows ----------------------------------------------------------------------------------------------------------


def read(*parts: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a published file of JSON lines."""
    path = published("tasks", *parts)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        yield from map(json.loads, stream)


def arc_easy(n: int) -> Case:
    rows = []
    for row in islice(read("arc_easy", "arc_easy.jsonl"), n):
        labels = list("ABCDE"[: len(row["choices"])])
        query = row["query"].removeprefix("Question: ")
        rows.append(
            {
                "question": query,
                "choices": {"text": row["choices"], "label": labels},
                "answerKey": labels[row["gold"]],
            }
        )
    return Case("arc_easy", [Local("arc_easy", "arc/arc_easy.yaml", {"test": rows})], "multiple_choice")


def lambada(n: int) -> Case:
    rows = [
        {"text": f"{row['context']} {row['continuation']}"}
        for row in islice(read("lambada_openai", "lambada_openai.jsonl"), n)
    ]
    return Case(
        "lambada_openai", [Local("lambada_openai", "lambada/lambada_openai.yaml", {"test": rows})], "loglikelihood"
    )


def mmlu_rows(subject: str, split: str, n: int | None = None) -> Rows:
    with published("tasks", "mmlu", f"{subject}_{split}.csv").open() as stream:
        return [
            {"question": row[0], "choices": row[1:5], "answer": "ABCD".index(row[5]), "subject": subject}
            for row in islice(csv.reader(stream), n)
        ]


def mmlu_task(subject: str, n: int) -> Local:
    rows = {"test": mmlu_rows(subject, "test", n), "dev": mmlu_rows(subject, "dev")}
    return Local(f"mmlu_{subject}", f"mmlu/default/mmlu_{subject}.yaml", rows)


def mmlu(n: int) -> Case:
    """The group of lm-eval itself: 57 subjects in four groups, five examples each."""
    subjects = sorted(path.name.removesuffix("_test.csv") for path in published("tasks", "mmlu").glob("*_test.csv"))
    tasks = [mmlu_task(subject, n) for subject in subjects]
    return Case("mmlu", tasks, "multiple_choice", options={"num_fewshot": 5}, full=True)


def small_mmlu(n: int) -> Case:
    """A group within a group, of three subjects."""
    one, two, three = "anatomy", "astronomy", "virology"
    leaves = [f"mmlu_{subject}" for subject in (one, two, three)]
    metrics = [{"metric": "acc", "weight_by_size": True}]
    inner = {"group": "inner", "task": leaves[1:], "aggregate_metric_list": metrics}
    group = {"group": "small_mmlu", "task": [leaves[0], inner], "aggregate_metric_list": metrics}
    tasks = [mmlu_task(one, n), mmlu_task(two, n + 2), mmlu_task(three, n)]
    return Case("small_mmlu", tasks, "multiple_choice", options={"num_fewshot": 2}, group=group)


def mixed(n: int) -> Case:
    """A group of two kinds of tasks: choices, and one continuation."""
    metrics = [{"metric": "acc", "weight_by_size": True}, {"metric": "perplexity", "weight_by_size": False}]
    group = {"group": "mixed", "task": ["boolq", "lambada_openai"], "aggregate_metric_list": metrics}
    tasks = [*boolq(n).tasks, *lambada(n + 3).tasks]
    return Case("mixed", tasks, "multiple_choice, loglikelihood", group=group)


def gsm8k(n: int, **options: Any) -> Case:
    rows = {"test": list(islice(read("gsm8k", "test.jsonl"), n)), "train": list(read("gsm8k", "train.jsonl.gz"))}
    return Case("gsm8k", [Local("gsm8k", "gsm8k/gsm8k.yaml", rows)], "generate_until", options=options)


def bbh(n: int) -> Case:
    """Two filters of one set of texts."""
    name = "bbh_zeroshot_boolean_expressions"
    with published("tasks", "bbh", "boolean_expressions.json").open() as stream:
        rows = json.load(stream)["examples"][:n]
    return Case(name, [Local(name, "bbh/zeroshot/boolean_expressions.yaml", {"test": rows})], "generate_until")


def hellaswag(n: int) -> Case:
    rng = np.random.default_rng(0)
    rows = [
        {
            "activity_label": "Making tea",
            "ctx_a": f"A woman fills {i} cups. [header] She",
            "ctx_b": "the water boils, and she",
            "endings": [f"pours it [title] over {k} leaves." for k in rng.permutation(9)[:4]],
            "label": str(i % 4),
        }
        for i in range(n)
    ]
    return Case("hellaswag", [Local("hellaswag", "hellaswag/hellaswag.yaml", {"validation": rows})], "multiple_choice")


def boolq(n: int) -> Case:
    rows = [
        {"passage": f"The sum of {i} and {i + 1} is {2 * i + 1}.", "question": f"is {i} odd", "label": i % 2}
        for i in range(n)
    ]
    return Case("boolq", [Local("boolq", "super_glue/boolq/default.yaml", {"validation": rows})], "multiple_choice")


def winogrande(n: int) -> Case:
    """Choices in the context, and a shared continuation."""
    rows = [
        {
            "sentence": f"Ada gave Bo {i} coins because _ had asked.",
            "option1": "Ada",
            "option2": "Bo",
            "answer": "12"[i % 2],
        }
        for i in range(n)
    ]
    return Case("winogrande", [Local("winogrande", "winogrande/default.yaml", {"validation": rows})], "multiple_choice")


def mutual(n: int) -> Case:
    """Choices with and without their context, and metrics that are aggregated over all documents: F1 and MCC."""
    metrics = [
        {"metric": name, "higher_is_better": True} for name in ("acc", "acc_mutual_info", "mcc", "f1", "brier_score")
    ]
    return Case(
        "boolq_mutual",
        [Local("boolq_mutual", "super_glue/boolq/default.yaml", boolq(n).tasks[0].rows, {"metric_list": metrics})],
        "multiple_choice",
    )


def wikitext(n: int) -> Case:
    queries = [row["query"] for row in islice(read("arc_easy", "arc_easy.jsonl"), 40)]
    rows = [{"page": f" = {i} = \n " + " ".join(queries[: 3 + 6 * i]).replace(",", " , ")} for i in range(n)]
    # lm-eval puts a token before every text, and a tokenizer that adds BOS by itself would add a second one
    return Case(
        "wikitext",
        [Local("wikitext", "wikitext/wikitext.yaml", {"test": rows})],
        "loglikelihood_rolling",
        add_bos=False,
    )


# --- both programs ---------------------------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the messages and warnings of lm-eval and its libraries from the tests, to which warnings are errors."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def theirs(case: Case, folder: Path, model: Callable[[], Any], out: Path, **settings: Any) -> float:
    """Evaluate with lm-eval and write its JSON; return the seconds."""
    os.environ["DISABLE_MULTIPROC"] = "1"
    begin = time.perf_counter()
    with quiet():
        from lm_eval import simple_evaluate
        from lm_eval.loggers import EvaluationTracker
        from lm_eval.tasks import TaskManager

        manager = TaskManager(include_path=str(folder), include_defaults=case.full)
        tracker = EvaluationTracker(output_path=str(out))
        seed = {"fewshot_random_seed": case.options["fewshot_seed"]} if "fewshot_seed" in case.options else {}
        found = simple_evaluate(
            model=model(),
            tasks=[case.name],
            task_manager=manager,
            num_fewshot=case.options.get("num_fewshot"),
            limit=case.limit,
            bootstrap_iters=settings.pop("bootstrap_iters", 200),
            evaluation_tracker=tracker,
            **seed,
            **settings,
        )
        samples = found.pop("samples")
        seconds = time.perf_counter() - begin
        tracker.save_results_aggregated(results=found, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)
    return seconds


def ours(case: Case, folder: Path, model: str, out: Path, *, host: PluginHost, **settings: Any) -> float:
    """Evaluate with the harness into OUT/store and export lm-eval's JSON; return the seconds."""
    begin = time.perf_counter()
    prompting = {"include_path": [str(folder)], **case.options, **settings.pop("prompting", {})}
    iterations = settings.pop("bootstrap_iters", 200)
    options = {"max_length": MAX_LENGTH}
    harness.evaluate(
        [model], [f"lm_eval:{case.name}"], out / "store", registries=host, limit=case.limit, prompting=prompting,
        options=options, **settings,
    ).check()  # fmt: skip
    with quiet():
        from harness_plugins.sources.lm_eval.export import export_store

        export_store(harness.open_store(out / "store", registries=host), out, bootstrap_iters=iterations)
    return time.perf_counter() - begin


# --- what they wrote -------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What differs between two folders of results."""

    documents: int = 0
    choices: int = 0
    largest: float = 0.0  # nats
    relative: float = 0.0
    beyond: int = 0  # log-probabilities that differ by more than the tolerance
    differences: list[str] = field(default_factory=list)

    def expect(self, what: str, a: object, b: object) -> None:
        """Note a difference."""
        if a != b:
            self.differences.append(f"{what}: lm-eval {str(a)[:200]}, harness {str(b)[:200]}")


OWN = {"harness", "lm_eval_version", "max_length"}  # of our results, beside those that both have


def compare(theirs: Path, ours: Path) -> Found:
    """Compare all metrics and samples of two folders in lm-eval's format."""
    found = Found()
    a, b = (json.loads(next(folder.rglob("results_*.json")).read_text()) for folder in (theirs, ours))
    for key in (
        "results",
        "groups",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
    ):
        _compare_values(found, key, a.get(key), b.get(key))
    names = [sorted(path.name.rpartition("_")[0] for path in folder.rglob("samples_*")) for folder in (theirs, ours)]
    found.expect("samples", *names)
    for name in names[0]:
        rows = [_samples(folder, name) for folder in (theirs, ours)]
        found.expect(f"{name}: documents", list(rows[0]), list(rows[1]))
        for key in rows[0]:
            _compare_samples(found, f"{name} {key}", rows[0][key], rows[1].get(key, {}))
        found.documents += len({doc for doc, _ in rows[0]})
    found.expect("task_hashes", a["task_hashes"], b["task_hashes"])
    return found


def _samples(folder: Path, name: str) -> dict[tuple[int, str], dict[str, Any]]:
    (file,) = folder.rglob(f"{name}_2*.jsonl")
    return {(row["doc_id"], row["filter"]): row for row in map(json.loads, file.read_text().strip().split("\n"))}


def _compare_values(found: Found, where: str, a: Any, b: Any) -> None:
    if isinstance(a, dict) and isinstance(b, dict):
        found.expect(where, sorted(a), sorted(b))
        for key in a.keys() & b.keys():
            _compare_values(found, f"{where} {key}", a[key], b[key])
    elif isinstance(a, float) and isinstance(b, float):
        if not np.isclose(a, b, rtol=1e-5, atol=1e-9):
            found.differences.append(f"{where}: lm-eval {a}, harness {b}")
    else:
        found.expect(where, a, b)


NUMBERS = {"resps", "filtered_resps"}


def _compare_samples(found: Found, where: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    found.expect(f"{where}: keys", sorted(a), sorted(b))
    for key in a.keys() & b.keys():
        if key in NUMBERS:
            _compare_answers(found, f"{where} {key}", a[key], b[key])
        else:
            _compare_values(found, f"{where} {key}", _plain(a[key]), _plain(b[key]))


def _plain(value: Any) -> Any:
    """Return lists, and arrays of numpy in their text form, as tables, so that numbers in them are compared as such."""
    if isinstance(value, str) and re.fullmatch(r"\[[-+0-9.e ]+\]", value):
        value = [float(number) for number in value[1:-1].split()]
    return {str(i): _plain(item) for i, item in enumerate(value)} if isinstance(value, list) else value


def _compare_answers(found: Found, where: str, a: Any, b: Any) -> None:
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for x, y in zip(a, b, strict=True):
            _compare_answers(found, where, x, y)
        return
    try:
        x, y = float(a), float(b)
    except (TypeError, ValueError):
        found.expect(where, a, b)
        return
    gap = abs(x - y)
    found.choices += where.endswith(" resps")
    found.largest = max(found.largest, gap)
    found.relative = max(found.relative, gap / max(abs(x), 1e-9))
    if gap > max(NATS, FLOAT32 * abs(x)):
        found.beyond += 1
        found.differences.append(f"{where}: lm-eval {x}, harness {y}")
