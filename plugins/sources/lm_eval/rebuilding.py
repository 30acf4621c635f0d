"""Rebuild lm-eval's tasks without their data sets, from the stored settings and documents and the task file's code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import Doc, Task, TaskError
from harness_plugins.sources.lm_eval.catalogue import library, quiet, root

UNUSED = ("tag", "group", "task_list", "include")  # keys of task files that are not settings of a task
Answer = Callable[[Any], list[Any]]


def describe(task: Any, folder: Path) -> dict[str, Any]:
    """Return the stored description of a task: its file, its settings as lm-eval dumps them, names of plain ones."""
    from lm_eval.utils import handle_non_serializable

    dumped = json.loads(json.dumps(task.dump_config(), default=handle_non_serializable))
    file = Path((dumped.get("metadata") or {}).get("config_source") or "inline")
    inside = file.is_relative_to(folder)
    return {
        "file": file.relative_to(folder).as_posix() if inside else "" if file.name == "inline" else str(file),
        "settings": dumped,
        "plain": sorted(key for key in dumped if _is_plain(getattr(task.config, key, None))),
        "documents": len(task.eval_docs),
        "version": task.VERSION,
    }


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return value is not None


class Documents(list[Any]):
    """The documents of a task with the interface of a data set: a list with column names."""

    @property
    def features(self) -> dict[str, Any]:
        """Return the columns."""
        return dict.fromkeys(self[0]) if self and isinstance(self[0], Mapping) else {}


class _Remembered:
    """Cache a function of a document. lm-eval calls it several times per metric, and templates are slow."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.cached = function, dict[int, tuple[Any, Any]]()

    def __call__(self, doc: Any, *other: Any, **settings: Any) -> Any:
        if any(value is not None for value in (*other, *settings.values())):
            return self.function(doc, *other, **settings)
        if id(doc) not in self.cached:
            self.cached[id(doc)] = (doc, self.function(doc))  # the reference to the document keeps its id unique
        return self.cached[id(doc)][1]


class _Key:
    """A cache key: a task that is compared by its fingerprint and its task files."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __hash__(self) -> int:
        return hash(self.task.fingerprint)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Key) or other.task.fingerprint != self.task.fingerprint:
            return False
        return bool(other.task.source["leaves"] == self.task.source["leaves"])


def rebuilt(task: Task) -> dict[str, Any]:
    """Return lm-eval's tasks of a stored task by name; raise TaskError if one cannot be rebuilt."""
    tasks: dict[str, Any] = _rebuilt(_Key(task))
    return tasks


@lru_cache(maxsize=8)
def _rebuilt(key: _Key) -> dict[str, Any]:
    leaves = key.task.source["leaves"]
    docs: dict[str, list[Doc]] = {name: [] for name in leaves}
    for doc in key.task.docs:
        docs[doc.source["task"]].append(doc)
    library()
    with quiet():
        return {name: _leaf(name, leaf, docs[name]) for name, leaf in leaves.items() if docs[name]}


def _leaf(name: str, known: Mapping[str, Any], docs: Sequence[Doc]) -> Any:
    try:
        settings = _settings(name, known)
        made = _class(settings.pop("class", None), docs)(config=settings)
    except Exception as error:  # a task runs third-party code
        raise TaskError(
            f"lm_eval:{name} cannot be rebuilt from {known['file'] or 'its settings'}: {type(error).__name__}: "
            f"{error}; install the lm-eval version that evaluated it, or restore its task file (task version "
            f"{known.get('version')})"
        ) from error
    for function in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        setattr(made, function, _Remembered(getattr(made, function)))
    return made


def _settings(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a task: functions from its file, plain values as they were evaluated."""
    from lm_eval.tasks._yaml_loader import load_yaml

    file = root() / known["file"] if known["file"] else None  # an absolute path replaces the folder
    from_file = load_yaml(file, resolve_func=True) if file else {}
    plain = {key: known["settings"][key] for key in known["plain"]}
    return {key: value for key, value in (from_file | plain).items() if key not in UNUSED} | {"task": name}


def _class(base: Any, docs: Sequence[Doc]) -> Any:
    """Return a task class that takes its documents from the store and its requests from `ask`."""
    from lm_eval.api.task import ConfigurableTask

    stored = Documents(doc.source["doc"] for doc in docs)

    def build_all_requests(self: Any, **_: Any) -> None:
        self._instances = self.ask()

    return type(
        "StoredTask",
        (base or ConfigurableTask,),
        {
            "download": lambda self, *_, **__: setattr(self, "dataset", {}),
            "eval_docs": property(lambda _: stored),
            "fewshot_docs": lambda _: None,
            "build_all_requests": build_all_requests,
        },
    )
