"""Compute lm-eval's results of one cell: run its evaluation loop on the stored answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from harness import Doc, Floats, MetricError, Scores, SourceMetric, Task, TaskError
from harness_plugins.sources.lm_eval.catalogue import library, quiet
from harness_plugins.sources.lm_eval.rebuilding import rebuilt
from harness_plugins.sources.lm_eval.requests import metric_name, repeats_of

RESAMPLES = 1000  # for bootstrapped standard errors (perplexities, F1, MCC, BLEU); lm-eval's default is 100,000
STDERR = "_stderr"
Texts = tuple[tuple[str | None, ...], ...]
Answers = Mapping[tuple[str, int], list[list[Any]]]  # by (task, document number): for each request, its answers


def metrics_of(task: Task, answers: Scores | Texts) -> list[SourceMetric]:
    """Return lm-eval's metrics of a cell with its standard errors; bootstrapped ones use 1,000 resamples."""
    results = results_of(task, answers, RESAMPLES)
    top = task.source["group"]["name"] if task.source["group"] else next(iter(results["results"]))
    return _metrics(top, results)


def metrics_of_group(group: Mapping[str, Any], parts: Sequence[tuple[Task, Scores | Texts]]) -> list[SourceMetric]:
    """Return lm-eval's metrics of a group whose tasks have several kinds; none if a task is missing.

    They have no values of documents, because the tasks are not measured alike. Raises TaskError if a task has several
    cells.
    """
    names = [name for task, _ in parts for name in task.source["leaves"]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TaskError(
            f"the group lm_eval:{group['name']} has several cells of {', '.join(twice)} (other prompts, documents or "
            "samples); evaluate them into separate stores"
        )
    if not leaves_of(group) <= set(names):
        return []
    results = results_together(parts, group, RESAMPLES)
    return [replace(metric, values=None) for metric in _metrics(group["name"], results)]


def leaves_of(tree: Mapping[str, Any]) -> set[str]:
    """Return the names of all tasks in a group."""
    names: set[str] = set()
    for child in tree["children"]:
        names |= {child} if isinstance(child, str) else leaves_of(child)
    return names


def _metrics(top: str, results: Mapping[str, Any]) -> list[SourceMetric]:
    """Return the metrics of a task or group."""
    values, better = results["results"][top], results["higher_is_better"]
    return [_metric(key, values, results, better.get(top, {})) for key in values if "," in key and STDERR not in key]


def _metric(key: str, values: Mapping[str, Any], results: Mapping[str, Any], better: Mapping[str, Any]) -> SourceMetric:
    metric, _, filter_name = key.partition(",")
    stderr = values.get(f"{metric}{STDERR},{filter_name}")
    per_doc = [row.get(metric) for rows in results["samples"].values() for row in rows if row["filter"] == filter_name]
    return SourceMetric(
        name=metric_name(metric, filter_name),
        value=float(values[key]),
        stderr=math.nan if stderr in {None, "N/A"} else float(stderr),
        n=int(values["sample_len"]),
        higher_is_better=better.get(metric) is not False,
        values=_numbers(per_doc),
    )


def _numbers(values: Sequence[Any]) -> Floats | None:
    """Return the values of all documents; None if the value of any document is not a number."""
    if not all(isinstance(value, (int, float, np.integer, np.floating, np.bool_)) for value in values):
        return None
    return np.array(values, dtype=np.float64)


def results_of(task: Task, answers: Scores | Texts, bootstrap_iters: int) -> dict[str, Any]:
    """Return the result of lm-eval's `evaluate` for stored answers, with one sample per document and filter."""
    return results_together([(task, answers)], task.source["group"], bootstrap_iters)


def results_together(
    parts: Sequence[tuple[Task, Scores | Texts]], group: Mapping[str, Any] | None, bootstrap_iters: int
) -> dict[str, Any]:
    """Return the results of several tasks, which may differ in kind, and of their group, from one call of lm-eval."""
    from lm_eval.evaluator import evaluate

    tasks, stored = dict[str, Any](), dict[tuple[str, int], list[list[Any]]]()
    for task, answers in parts:
        rebuilt_tasks = rebuilt(task)
        tasks |= rebuilt_tasks
        stored |= _stored(task, answers, rebuilt_tasks)
        for name, made in rebuilt_tasks.items():
            made.ask = _asks(name, made, task)
    with quiet():
        try:
            results: dict[str, Any] = evaluate(
                lm=_model(stored),
                task_dict={"tasks": tasks, "groups": _groups(group, tasks)},
                bootstrap_iters=bootstrap_iters,
                log_samples=True,
            )
        except Exception as error:  # process_results is third-party code
            names = ", ".join(task.name for task, _ in parts)
            raise TaskError(
                f"{names}: lm-eval {library().__version__} fails on the stored answers: {type(error).__name__}: {error}"
            ) from error
    leaves = {name: leaf for task, _ in parts for name, leaf in task.source["leaves"].items()}
    for name, counts in results["n-samples"].items():
        counts["original"] = leaves[name]["documents"]
    return results


# --- requests and their answers ----------------------------------------------------------------------------------


def _numbered(task: Task) -> Iterator[tuple[str, int, Doc]]:
    """Yield (task name, number within that task, document) for every document."""
    seen: dict[str, int] = {}
    for doc in task.docs:
        name = doc.source["task"]
        yield name, seen.setdefault(name, 0), doc
        seen[name] += 1


def _asks(name: str, made: Any, task: Task) -> Any:
    """Return a function that builds lm-eval's requests of one task from the stored contexts."""
    from lm_eval.api.instance import Instance

    docs = [(number, doc) for leaf, number, doc in _numbered(task) if leaf == name]
    repeats = repeats_of(made)

    def ask() -> list[Any]:
        return [
            Instance(kind, made.eval_docs[number], arguments, i, (name, number, repeats))
            for number, doc in docs
            for i, (kind, arguments) in enumerate(_arguments(task, doc, made))
        ]

    return ask


def _arguments(task: Task, doc: Doc, made: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """Return kind and arguments of each of lm-eval's requests for a document."""
    if task.kind == "generate":
        used = task.source["leaves"][doc.source["task"]].get("generation_kwargs")
        return [("generate_until", (doc.contexts[0], used or made.get_config("generation_kwargs")))]
    if task.kind == "text":
        return [("loglikelihood_rolling", (doc.continuations[0],))]
    pairs = [doc.prompt(k) for k in range(len(doc.choices))]
    return [("loglikelihood", pair) for pair in pairs + ([("", c) for _, c in pairs] if task.unconditional else [])]


def _stored(task: Task, answers: Scores | Texts, tasks: Mapping[str, Any]) -> Answers:
    """Return the answers of each document; raise MetricError if texts are missing."""
    if isinstance(answers, Scores):
        return {(name, i): _scored(answers, n, task.kind) for n, (name, i, _) in enumerate(_numbered(task))}
    stored: dict[tuple[str, int], list[list[Any]]] = {}
    for (name, i, doc), texts in zip(_numbered(task), answers, strict=True):
        wanted = repeats_of(tasks[name])
        is_greedy = len(texts) == 1 and "samples" in task.source  # a sampled cell has as many as that
        if (len(texts) < wanted and not is_greedy) or None in texts:
            texts_of = "no texts (--no-texts)" if None in texts else f"{len(texts)} texts"
            raise MetricError(
                f"{task.name}, document {doc.doc_id}: the store has {texts_of}; lm-eval needs {wanted}: pass --n"
            )
        stored[name, i] = [list(texts[:wanted] if len(texts) >= wanted else texts * wanted)]
    return stored


def _scored(scores: Scores, n: int, kind: str) -> list[list[Any]]:
    rows = range(scores.first[n], scores.first[n] + scores.n_choices[n])
    if kind == "text":
        return [[float(scores.logprob[row])] for row in rows]
    if scores.is_greedy is None:
        raise MetricError("lm-eval's results need to know which tokens are greedy, and the engine did not report it")
    answers: list[list[Any]] = [[(float(scores.logprob[row]), bool(scores.is_greedy[row]))] for row in rows]
    if scores.logprob_unconditional is not None:  # their greediness is not stored; no metric uses it
        answers += [[(float(scores.logprob_unconditional[row]), False)] for row in rows]
    return answers


def _model(stored: Answers) -> Any:
    """Return an lm-eval model that answers from the store."""
    return _stored_model()(stored)


@cache
def _stored_model() -> Any:
    from lm_eval.api.model import LM

    class Stored(LM):  # type: ignore[misc]  # lm-eval is untyped
        """Answer each request from the store; repeated requests get successive answers."""

        def __init__(self, stored: Answers) -> None:
            super().__init__()
            self.stored = stored

        def _answers(self, requests: Sequence[Any]) -> list[Any]:
            seen: dict[tuple[str, int, int], int] = {}
            results = []
            for request in requests:
                key = (request.task_name, request.doc_id, request.idx)
                number = seen[key] = seen.get(key, -1) + 1
                results.append(self.stored[key[:2]][request.idx][number])
            return results

        def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[Any]:
            return self._answers(requests)

        loglikelihood_rolling = generate_until = loglikelihood

    return Stored


def _groups(tree: Mapping[str, Any] | None, tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Return lm-eval's groups by name, outermost first, from a stored tree."""
    from lm_eval.api.group import AggMetricConfig, Group

    if tree is None:
        return {}
    metrics = [AggMetricConfig(**metric) for metric in tree["metrics"]] or None
    group, inner_groups = Group(tree["name"], tree["alias"], metrics, tree["metadata"]), dict[str, Any]()
    for child in tree["children"]:
        if isinstance(child, str):
            if child in tasks:
                group.add(tasks[child])
            continue
        inner = _groups(child, tasks)
        group.add(inner[child["name"]])
        inner_groups |= inner
    return {tree["name"]: group} | inner_groups
