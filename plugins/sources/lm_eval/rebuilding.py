"""Rebuild lm-eval's tasks without their data sets, from the stored settings and documents and the task file's code."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from harness import Doc, Task, TaskError
from harness_plugins.sources.lm_eval.catalogue import library, quiet, root

UNUSED = ("tag", "group", "task_list", "include", "class")  # keys of task files that are not settings of a task
NOT_NEEDED = {"task", "fewshot_config"}  # settings that the results of stored answers do not depend on
Answer = Callable[[Any], list[Any]]


def describe(name: str, task: Any) -> dict[str, Any]:
    """Return the stored description of a task: its file, its settings as lm-eval dumps them, names of plain ones.

    A class of its own, and functions that its file does not name (a group can replace any setting), are stored as
    references. Raises TaskError if one of them cannot be imported from a file.
    """
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.utils import handle_non_serializable

    dumped = json.loads(json.dumps(task.dump_config(), default=handle_non_serializable))
    known = {
        "file": _portable(Path((dumped.get("metadata") or {}).get("config_source") or "inline")),
        "settings": dumped,
        "plain": sorted(key for key in dumped if _is_plain(getattr(task.config, key, None))),
        "documents": len(task.eval_docs),
        "version": task.VERSION,
    }
    if type(task) is not ConfigurableTask:
        known["class"] = _reference(name, type(task))
    elif replaced := _replaced(task.config, known):
        known["replaced"] = {key: _referring(name, value) for key, value in replaced.items()}
    if task.instances[0].request_type == "generate_until" and (used := task.instances[0].args[1]) != dumped.get(
        "generation_kwargs"
    ):
        known["generation_kwargs"] = used
    return known


def _portable(file: Path) -> str:
    """Return the path of a file, relative to lm-eval's tasks if it is one of them; "" for settings without a file."""
    return file.relative_to(root()).as_posix() if file.is_relative_to(root()) else str(file) if file.suffix else ""


def _replaced(config: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are neither plain nor those of the task's file."""
    from_file = _from_file(known)
    keys = {*known["settings"], *from_file} - {*known["plain"], *NOT_NEEDED}
    return {key: getattr(config, key) for key in sorted(keys) if not _same(getattr(config, key), from_file.get(key))}


def _same(a: Any, b: Any) -> bool:
    """Compare two settings; lm-eval copies those of a file, so that equal partial functions are different objects."""
    if isinstance(a, (Mapping, list)) and type(a) is type(b) and len(a) == len(b):
        keys = a if isinstance(a, Mapping) else range(len(a))
        return all((not isinstance(b, Mapping) or key in b) and _same(a[key], b[key]) for key in keys)
    if isinstance(a, partial) and isinstance(b, partial):
        return (a.func, a.args, a.keywords) == (b.func, b.args, b.keywords)
    return bool(a == b)


def _from_file(known: Mapping[str, Any]) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    settings = load_yaml(root() / known["file"], resolve_func=True) if known["file"] else {}
    return {key: value for key, value in settings.items() if key not in UNUSED}


def _referring(name: str, value: Any) -> Any:
    """Return a setting as JSON, with a reference in place of each function."""
    if isinstance(value, Mapping):
        return {key: _referring(name, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_referring(name, item) for item in value]
    return _reference(name, value) if callable(value) else value


def _reference(name: str, value: Any) -> dict[str, str]:
    """Return the file and name of a function or class; raise TaskError if they do not lead to it."""
    try:
        reference = {"!function": value.__qualname__, "file": _portable(Path(inspect.getfile(value)))}
        if _referred(reference) is value:
            return reference
    except (AttributeError, ImportError, OSError, TypeError):
        pass
    raise TaskError(
        f"lm_eval:{name}: {value} is not a function or class that a Python file defines by name, so its metrics could "
        "not be recomputed; define it with def or class in a file, or name it in the task's own file"
    )


def _referred(value: Any) -> Any:
    """Return a setting with functions in place of references."""
    from lm_eval.tasks._yaml_loader import _load_module_with_cache

    if isinstance(value, Mapping) and "!function" in value:
        return attrgetter(value["!function"])(_load_module_with_cache(root() / value["file"]))
    if isinstance(value, Mapping):
        return {key: _referred(item) for key, item in value.items()}
    return [_referred(item) for item in value] if isinstance(value, list) else value


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
        plain = {key: known["settings"][key] for key in known["plain"]}
        settings = _from_file(known) | plain | _referred(known.get("replaced", {})) | {"task": name}
        base = _class(_referred(known.get("class")), docs)
        made = base(config=settings) if "config" in inspect.signature(base.__init__).parameters else base()
        for key, value in (plain | {"task": name}).items():  # a class can ignore the settings that it is given
            setattr(made.config, key, value)
    except Exception as error:  # a task runs third-party code
        raise TaskError(
            f"lm_eval:{name} cannot be rebuilt from {known['file'] or 'its settings'}: {type(error).__name__}: "
            f"{error}; install the lm-eval version that evaluated it, or restore its task file (task version "
            f"{known.get('version')})"
        ) from error
    for function in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        if hasattr(made, function):
            setattr(made, function, _Remembered(getattr(made, function)))
    return made


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
