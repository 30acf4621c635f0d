"""Export a store in lm-eval's result format: results_DATE.json and samples_TASK_DATE.jsonl per checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import PointStore, StoreError, Task, UsageError
from harness.errors import choose
from harness_plugins.sources.lm_eval.catalogue import library, quiet
from harness_plugins.sources.lm_eval.results import leaves_of, results_together

SUMS = (
    "results",
    "groups",
    "group_subtasks",
    "configs",
    "versions",
    "n-shot",
    "higher_is_better",
    "n-samples",
    "samples",
)


def export_store(
    store: PointStore, folder: Path, task: str | None = None, bootstrap_iters: int = 100_000
) -> list[Path]:
    """Write the cells of lm-eval's tasks, one folder per checkpoint; return the results files.

    Cells of one checkpoint get separate results files if they have different settings (dtype, chat template) or were
    made with different options (number of examples, limit), as by several runs of lm-eval. Raises StoreError if the
    store has no such cells.
    """
    library()
    cells = [cell for cell in store.select(task) if store.task_meta[cell.id.fingerprint].get("source")]
    if not cells:
        raise StoreError(f"{store.path} has no cells of tasks lm_eval:NAME; evaluate some with --tasks lm_eval:NAME")
    order = partial(_order, store)
    cells.sort(key=order)
    return [_export(store, list(group), folder, bootstrap_iters) for _, group in groupby(cells, key=order)]


def _order(store: PointStore, cell: Any) -> tuple[str, ...]:
    """Return the settings and options that all cells of one results file share."""
    known = asdict(cell.settings)
    del known["sampling"], known["truncation"]
    asked = {**_source(store, cell)["asked"], "include_path": ()}
    return cell.checkpoint.label, cell.checkpoint.source, repr(sorted(known.items())), repr(sorted(asked.items()))


def _source(store: PointStore, cell: Any) -> Mapping[str, Any]:
    source: Mapping[str, Any] = store.task_meta[cell.id.fingerprint]["source"]
    return source


def _export(store: PointStore, cells: list[Any], folder: Path, bootstrap_iters: int) -> Path:
    results: dict[str, Any] = {}
    names = [name for cell in cells for name in _source(store, cell)["leaves"]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        tasks = sorted({cell.task for cell in cells if set(twice) & set(_source(store, cell)["leaves"])})
        instead = "export them one by one with --task" if len(tasks) > 1 else "evaluate them into separate stores"
        raise UsageError(
            f"{cells[0].checkpoint.label} has several cells of {choose(twice)} (other prompts, documents or samples), "
            f"in {choose(tasks)}; lm-eval's format has one result per task: {instead}"
        )
    for group, tasks in _units([store.task(cell.id.fingerprint) for cell in cells]):
        ids = {cell.id.fingerprint: cell.id for cell in cells}
        parts = [(task, store.answers(ids[task.fingerprint])) for task in tasks]
        _merge(results, results_together(parts, group, bootstrap_iters))
    return _write(results, cells, store, folder)


def _units(tasks: Sequence[Task]) -> Iterator[tuple[Mapping[str, Any] | None, list[Task]]]:
    """Yield the tasks that lm-eval evaluates at once, with their group.

    A group of tasks of several kinds is made of several tasks here. It is left out if one of them is missing.
    """
    together: dict[str, list[Task]] = {}
    for task in tasks:
        for group in _groups(task):
            together.setdefault(json.dumps(group, sort_keys=True), []).append(task)
    grouped = set[str]()
    for described, members in together.items():
        group = json.loads(described)
        if leaves_of(group) <= {name for task in members for name in task.source["leaves"]}:
            yield group, members
            grouped |= {task.fingerprint for task in members}
    yield from ((task.source["group"], [task]) for task in tasks if task.fingerprint not in grouped)


def _groups(task: Task) -> list[Mapping[str, Any]]:
    """Return the groups of tasks of several kinds that a task is part of; a store of earlier versions has one."""
    groups = task.source.get("part_of") or []
    return [groups] if isinstance(groups, Mapping) else list(groups)


def _merge(results: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key in SUMS:
        if key in more:
            results.setdefault(key, {}).update(more[key])


def _write(results: dict[str, Any], cells: list[Any], store: PointStore, folder: Path) -> Path:
    """Write results and samples with lm-eval's writer."""
    from lm_eval.loggers import EvaluationTracker

    checkpoint, settings = cells[0].checkpoint, cells[0].settings
    samples = results.pop("samples")
    name = checkpoint.label.replace(":", "__").replace("@", "-step")
    arguments = {"pretrained": name, "source": checkpoint.source, "dtype": settings.dtype}
    asked = _source(store, cells[0])["asked"]
    results |= {
        "config": {"model": settings.engine, "model_args": arguments, "limit": asked.get("limit")},
        "lm_eval_version": library().__version__,
        "harness": {cell.task: {"cell": cell.id.name, **store.provenance(cell.id.name)} for cell in cells},
        "max_length": settings.max_length,
    }
    with quiet():
        tracker = EvaluationTracker(output_path=str(folder))
        tracker.general_config_tracker.log_experiment_args(
            model_source=settings.engine,
            model_args=arguments,
            system_instruction=asked.get("system_prompt", ""),
            chat_template=settings.chat_template or None,  # the digest of the template
            fewshot_as_multiturn=bool(settings.chat_template) and asked.get("multiturn", False),
        )
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)
    return _written(folder / tracker.general_config_tracker.model_name_sanitized, tracker, samples)


def _written(folder: Path, tracker: Any, tasks: Iterable[str]) -> Path:
    """Return the results file; raise StoreError if a file is missing, since lm-eval only logs this."""
    date = getattr(tracker, "date_id", "")
    files = [folder / f"results_{date}.json", *(folder / f"samples_{task}_{date}.jsonl" for task in tasks)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise StoreError(f"{missing[0]} could not be written; choose a writable folder with -o")
    return files[0]
