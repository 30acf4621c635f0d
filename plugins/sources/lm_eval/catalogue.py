"""Find and build lm-eval's tasks by name with its TaskManager, without its output and with its seeds."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness import HarnessError, TaskError, UsageError
from harness.engines import how_to_install

PYTHON_SEED, NUMPY_SEED, FEWSHOT_SEED = 0, 1234, 1234  # lm-eval's defaults (simple_evaluate)


class Loaded(NamedTuple):
    """The objects that a name refers to: lm-eval's tasks by name, and its groups by name, outermost first."""

    tasks: dict[str, Any]
    groups: dict[str, Any]


def library() -> Any:
    """Return the module lm_eval; if it is missing, raise a TaskError that says how to install it."""
    try:
        import lm_eval
    except ImportError as error:
        raise TaskError(f"tasks of lm-eval need the package lm-eval ({error}): {how_to_install('lm-eval')}") from error
    return lm_eval


def root() -> Path:
    """Return the folder of lm-eval's own task files."""
    return Path(library().__file__).parent / "tasks"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress lm-eval's messages and progress bars, and compile each of its templates only once."""
    from lm_eval import utils

    if "from_string" in vars(utils.env):  # nested call
        yield
        return
    level = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        utils.env.from_string = lru_cache(maxsize=None)(type(utils.env).from_string.__get__(utils.env))
        try:
            yield
        finally:
            del utils.env.from_string
            logging.disable(level)


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Seed the global generators as lm-eval does before it loads tasks (some tasks shuffle); restore them after."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002  # lm-eval's tasks use this generator
    random.seed(PYTHON_SEED)
    np.random.seed(NUMPY_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


def load(name: str, include_path: Sequence[str] = ()) -> Loaded:
    """Build the tasks of a name, group, tag or YAML file; raise UsageError for a name that lm-eval does not know."""
    library()
    with quiet(), seeded():
        try:
            loaded = _manager_of(name, tuple(include_path)).load(_spec(name, tuple(include_path)))
        except HarnessError:
            raise
        except Exception as error:  # a task runs third-party code and reads data sets
            raise _explained(name, error) from error
    return Loaded(dict(loaded["tasks"]), dict(loaded.get("groups") or {}))


def _explained(name: str, error: Exception) -> HarnessError:
    if isinstance(error, KeyError) and "not a registered" in str(error):
        return UsageError(
            f"lm-eval {library().__version__} has no task, group or tag {name!r}; see lm-eval ls tasks, or give the "
            "folder of your task files with --include-path"
        )
    why = f"lm_eval:{name} cannot be built: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, OSError):  # also errors of the packages datasets and huggingface_hub
        return TaskError(
            f"{why}; expected its data set in the cache of the package datasets, on the network, or in a local file "
            "(dataset_path: json in a task file)"
        )
    return TaskError(f"{why}; correct its task file or the columns of its data set")


def _spec(name: str, include_path: tuple[str, ...]) -> str:
    if _is_file(name) or _is_own(name, include_path):
        return name
    file = _yaml_of(name)
    return str(file) if file else name


def _manager_of(name: str, include_path: tuple[str, ...]) -> Any:
    """Return a manager that knows a name; avoid indexing all 14,000 of lm-eval's files, which takes ten seconds."""
    by_file = _is_file(name) or (not _is_own(name, include_path) and _yaml_of(name))
    if by_file:
        return _manager((), defaults=False)
    return _manager(include_path, defaults=True) if not _stands_alone(name, include_path) else _manager(include_path)


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _is_own(name: str, include_path: tuple[str, ...]) -> bool:
    return bool(include_path) and name in _manager(include_path).task_index


def _stands_alone(name: str, include_path: tuple[str, ...]) -> bool:
    """Tell whether a name is a task of the user's folders, or a group of such tasks.

    A group may also refer to lm-eval's own tasks, and a tag may have some.
    """
    if not _is_own(name, include_path):
        return False
    manager = _manager(include_path)
    if name not in manager.all_groups:
        return name in manager.all_subtasks
    return all(_stands_alone(child, include_path) for child in _members(manager.task_index[name].cfg or {}))


def _members(group: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of tasks and groups that the definition of a group refers to."""
    listed = group.get("task")
    for child in listed if isinstance(listed, list) else [listed]:
        if isinstance(child, Mapping) and isinstance(child.get("task"), list):
            yield from _members(child)
        else:
            yield str(child.get("task") or child.get("group") if isinstance(child, Mapping) else child)


@lru_cache(maxsize=8)
def _manager(include_path: tuple[str, ...], *, defaults: bool = False) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(include_path) or None, include_defaults=defaults)


@lru_cache(maxsize=256)
def _yaml_of(name: str) -> Path | None:
    """Return the one file of lm-eval that defines a task; None for groups, tags and Python classes."""
    line = re.compile(rf"""^task: *["']?{re.escape(name)}["']? *(#.*)?$""", re.MULTILINE)
    files = (file for file in root().rglob("*.yaml") if "__pycache__" not in file.parts)
    texts = ((file, file.read_text("utf-8", errors="ignore")) for file in files)
    definitions = [(file, text) for file, text in texts if line.search(text)]
    if len(definitions) != 1 or re.search(r"^(class|group):", definitions[0][1], re.MULTILINE):
        return None
    return definitions[0][0]


def configure(task: Any, num_fewshot: int | None, seed: int | None) -> None:
    """Set the number of few-shot examples and their seed as simple_evaluate does; a task defined with 0 keeps 0."""
    default = task.get_config("num_fewshot")
    if num_fewshot is not None and default != 0:
        task.set_config(key="num_fewshot", value=num_fewshot)
    elif default is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED if seed is None else seed)
