"""Find tasks by name: registered ones, folders with task.yaml, wildcards, and prefix:NAME of a source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from harness.errors import HarnessError, TaskError, UsageError, choose, suggest
from harness.host.registries import Registries
from harness.tasks.conversations import as_chat
from harness.tasks.loading import fingerprinted, limited, load_task
from harness.tasks.prompt_options import PLAIN, Prompting, options_for
from harness.tasks.task_files import read_task_file
from harness.types import Task

WILDCARD = re.compile(r"[*?\[]")


def find_tasks(
    patterns: Sequence[str],
    registries: Registries,
    data: Path | None = None,
    limit: int | None = None,
    prompting: Prompting = PLAIN,
) -> list[Task]:
    """Return the tasks that names, wildcards, prefix:NAME or paths of task folders name, each once."""
    names = dict.fromkeys(name for pattern in patterns for name in _expand(pattern, registries))
    return [task for name in names for task in _tasks_of(name, registries, data, limit, prompting)]


def _expand(pattern: str, registries: Registries) -> list[str]:
    if (Path(pattern) / "task.yaml").is_file() or Path(pattern).name == "task.yaml":
        return [pattern]
    if ":" in pattern:
        return _of_source(pattern, registries) if WILDCARD.search(pattern) else [pattern]
    names = [name for name in registries.tasks if fnmatch(name, pattern)]
    if not names:
        raise _no_task(pattern, registries)
    return names


def _no_task(name: str, registries: Registries) -> UsageError:
    if name.endswith((".yaml", ".yml")):
        return UsageError(f"{name} is no folder with task.yaml; lm_eval:{name} if it is a task file of lm-eval")
    known = suggest(name, registries.tasks, "harness ls tasks")
    return UsageError(f"there is no task {name!r}, and no folder of that name with task.yaml; {known}")


def _of_source(pattern: str, registries: Registries) -> list[str]:
    """Return the names that a source lists and a pattern such as `prefix:*` matches; raise UsageError for none."""
    prefix, _, rest = pattern.partition(":")
    listed = registries.sources[prefix].names(prefix)
    names = [f"{prefix}:{name}" for name in listed if fnmatch(name, rest)]
    if not names:
        reason = f"its {len(listed)} names do not match" if listed else "it lists no names, so each must be spelled out"
        raise UsageError(f"{pattern!r} selects no task of the source {prefix!r}: {reason}")
    return names


def find_task(
    name: str,
    registries: Registries,
    data: Path | None = None,
    limit: int | None = None,
    prompting: Prompting = PLAIN,
) -> Task:
    """Return one task by its name, as prefix:NAME of a source, or by the path of its folder."""
    tasks = _tasks_of(name, registries, data, limit, prompting)
    if len(tasks) > 1:
        raise UsageError(f"{name} names {len(tasks)} tasks; choose one: {choose(task.name for task in tasks)}")
    return tasks[0]


def _tasks_of(
    name: str, registries: Registries, data: Path | None, limit: int | None, prompting: Prompting
) -> list[Task]:
    entry = registries.tasks[name] if name in registries.tasks else name  # noqa: SIM401  # a registry has no get
    if entry == name and ":" not in name and not Path(name).exists():
        raise _no_task(name, registries)
    if not isinstance(entry, Task) and (name in registries.tasks or ":" not in name):
        return [load_task(read_task_file(Path(entry)), data, limit, prompting)]
    if not isinstance(entry, Task):
        return [_limited_task(task, limit) for task in _from_source(name, registries, prompting, limit)]
    if {"num_fewshot", "fewshot_seed"} & set(prompting.changes):
        raise UsageError(
            f"the task {name} is made by a plugin, with its own few-shot examples; leave --num-fewshot out"
        )
    return [_limited_task(as_chat(entry, prompting), limit)]


def _from_source(name: str, registries: Registries, prompting: Prompting, limit: int | None) -> list[Task]:
    prefix, _, rest = name.partition(":")
    resolve = registries.sources[prefix].resolve
    options = options_for(resolve, prefix, prompting, limit)
    try:
        resolved = resolve(rest, **options)
    except HarnessError:
        raise
    except KeyError as error:
        known = suggest(rest, registries.sources[prefix].names(prefix), "harness ls tasks")
        raise UsageError(f"the source {prefix!r} has no task {rest!r}; {known}") from error
    tasks = [resolved] if isinstance(resolved, Task) else resolved
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, Task) for task in tasks):
        raise TaskError(f"the source {prefix!r} returned {resolved!r} for {rest!r}; expected a harness.Task, or a list")
    return tasks if "chat" in options else [as_chat(task, prompting) for task in tasks]


def _limited_task(task: Task, limit: int | None) -> Task:
    return fingerprinted(task if limit is None else replace(task, docs=tuple(limited(task.docs, limit))))
