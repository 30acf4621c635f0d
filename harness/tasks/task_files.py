"""Task files: task.yaml as read and checked, before any document is read.

tasks/README.md explains every key. It contains no Python and inherits nothing: one file describes the whole task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeVar

from harness.errors import TaskError, choose, suggest
from harness.files import parse_yaml, read_settings
from harness.tasks.documents import expect_inside, expect_own
from harness.tasks.hub import HubDataset
from harness.tasks.prompts import MAKERS, SAMPLERS, SEED, FewShot, PromptSpec
from harness.tasks.templates import is_texts
from harness.types import Generation, Json, JsonObject

V = TypeVar("V")
A = TypeVar("A", str, bool)
Setting = Json | Mapping[str, tuple[int, int]]  # of a task file, or read from one

PROMPT_KEYS = {f.name for f in fields(PromptSpec)} - {"examples", "shots", "prompting"}
FILE_KEYS = {
    "documents",
    "folder",
    "columns",
    "rows",
    "only",
}  # location and format of local documents
GENERATION_KEYS = {f.name for f in fields(Generation)}  # for kind: generate only
TASK_KEYS = FILE_KEYS | GENERATION_KEYS | {
    "about", "hub", "leave_out", "fewshot", "unconditional", "metric", "average", "groups",
}  # fmt: skip
HUB_KEYS = {"dataset", "revision", "name", "split", "fewshot"}
METRICS = {
    "choice": "acc",
    "cloze": "greedy_match",
    "text": "bits_per_byte",
    "generate": "pass_rate",
}  # default metric per kind


def _is_template(value: Json) -> bool:
    return isinstance(value, str) or (
        isinstance(value, dict) and list(value) == ["jinja"] and is_texts([value["jinja"]])
    )


EXPECTED: dict[str, tuple[str, Callable[[Json], bool]]] = {  # by the annotation of a field: what it takes
    "str": ("text: put it in quotes", lambda value: isinstance(value, str)),
    "str | None": ("text: put it in quotes", lambda value: value is None or isinstance(value, str)),
    "int": ("a whole number that is not negative", lambda value: type(value) is int and value >= 0),
    "int | None": ("a whole number", lambda value: value is None or type(value) is int),
    "float": ("a number", lambda value: type(value) in (int, float)),
    "tuple[str, ...]": ("a list of texts", is_texts),
    "frozenset[str]": ("a list of texts", is_texts),
    "Mapping[str, str | Mapping[str, str]]": (
        "a table of templates; one of jinja2 is {jinja: TEMPLATE}",
        lambda value: isinstance(value, dict) and is_texts(list(value)) and all(map(_is_template, value.values())),
    ),
}
REQUIRED = {
    "choice": "choices and gold; or correct and wrong; or contexts, continuation and gold",
    "cloze": "query and continuation",
    "text": "text",
    "generate": "query, answers, checker and max_tokens",
}


@dataclass(frozen=True)
class HubTask:
    """The same task on a dataset of the hub, which has other field names."""

    source: HubDataset
    split: str
    prompt: PromptSpec
    fewshot: FewShot | None = None
    unshown: FewShot | None = None  # examples of a task that shows none by default


@dataclass(frozen=True)
class TaskFile:
    """A task.yaml as read and checked: location of its documents, and how they become prompts."""

    path: Path
    documents: tuple[str, ...]
    prompt: PromptSpec
    folder: str = ""
    columns: tuple[str, ...] = ()
    rows: str = ""
    only: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    hub: HubTask | None = None
    leave_out: frozenset[str] = frozenset()
    fewshot: FewShot | None = None
    unconditional: bool = False
    metric: str = "acc"
    average: str = "macro"
    about: str = ""
    generation: Generation | None = None
    groups: str = "strata"
    unshown: FewShot | None = None  # as in HubTask
    suffix: str = ""  # of the name: another number of few-shot examples than the task's own
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.path.parent.name)


def read_task_file(path: Path) -> TaskFile:
    """Read a task.yaml, or that of a folder; raise TaskError, naming the file, if it is invalid."""
    path = path / "task.yaml" if path.is_dir() else path
    try:
        expect_own(path, path.parent)
        return _task_file(path.resolve(), parse_yaml(read_settings(path)))
    except (OSError, TypeError, ValueError) as error:  # a TaskError is a ValueError
        raise TaskError(f"{path}: {error}") from error


def _task_file(path: Path, table: Json) -> TaskFile:
    if not isinstance(table, dict):
        raise TaskError(
            f"expected keys and values, found {table!r}" if table else "expected keys and values, found nothing"
        )
    _known(table, PROMPT_KEYS | TASK_KEYS)
    _expect_types(TaskFile, {key: value for key, value in table.items() if key != "documents"})
    documents = _names(table.get("documents"), "documents", "a file, or a wildcard")
    for name in documents:
        expect_inside(name, "documents")
    expect_inside(str(table.get("folder", "")), "folder")
    prompt = _prompt(table)
    shots = _fewshot(table.get("fewshot"), "documents", documents)
    return TaskFile(
        path=path,
        documents=documents,
        prompt=prompt,
        folder=str(table.get("folder", "")),
        columns=_listed(table, "columns"),
        rows=str(table.get("rows", "")),
        only=_only(table.get("only", {})),
        hub=_hub(table, documents),
        leave_out=frozenset(_listed(table, "leave_out")),
        fewshot=shots if shots and shots.n else None,
        unshown=shots if shots and not shots.n else None,
        unconditional=_one_of(table.get("unconditional", False), "unconditional", (True, False)),
        metric=str(table.get("metric", METRICS[prompt.kind])),
        average=_one_of(table.get("average", "macro"), "average", ("macro", "micro")),
        about=str(table.get("about", "")),
        generation=_generation(table, prompt.kind),
        groups=_one_of(table.get("groups", "strata"), "groups", ("strata", "clusters")),
    )


def _generation(table: JsonObject, kind: str) -> Generation | None:
    """Read how text is generated and checked; raise TaskError for these keys in another kind of task."""
    settings: dict[str, Setting] = {key: table[key] for key in GENERATION_KEYS if key in table}
    if kind != "generate":
        if settings:
            raise TaskError(f"{choose(settings)}: only valid with kind: generate")
        return None
    if "checker" not in settings or not isinstance(settings.get("max_tokens"), int):
        raise TaskError(f"kind: generate needs {REQUIRED[kind]}")
    if "stop" in settings:
        settings["stop"] = _names(table["stop"], "stop", "a text that ends a sample")
    return _made(Generation, settings)


def _made(kind: type[V], settings: Mapping[str, Setting]) -> V:
    """Return a value of a dataclass with some fields, whose types are checked first."""
    _expect_types(kind, settings)
    make: Callable[..., V] = kind
    return make(**settings)


def _expect_types(kind: type, table: Mapping[str, Setting]) -> None:
    """Raise TaskError where a key has a value of another type than the field of that name."""
    for member in fields(kind):
        expected, is_right = EXPECTED.get(str(member.type), ("", lambda _: True))
        if member.name in table and not is_right(table[member.name]):
            raise TaskError(f"{member.name}: {table[member.name]!r}; expected {expected}")


def _known(table: JsonObject, keys: set[str], where: str = "") -> None:
    unknown = set(table) - keys
    if unknown:
        raise TaskError(f"{where}unknown key {choose(unknown)}; {suggest(min(unknown, key=str), keys)}")


def _listed(table: JsonObject, key: str) -> tuple[str, ...]:
    """Return a list of texts, which was checked before; none where the key is absent."""
    value = table.get(key, ())
    return tuple(value) if is_texts(value) else ()


def _names(value: Json, key: str, items: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not is_texts(names) or not names:
        raise TaskError(f"expected {key}: the name of {items}, or a list of them")
    return tuple(names)


def _prompt(table: JsonObject) -> PromptSpec:
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items() if key in PROMPT_KEYS}
    prompt = _made(PromptSpec, settings)
    _one_of(prompt.kind, "kind", tuple(MAKERS))
    _one_of(prompt.formulation, "formulation", ("cloze", "letter"))
    complete = {
        "choice": prompt.correct is not None
        or (prompt.gold is not None and bool(prompt.choices is not None or (prompt.contexts and prompt.continuation))),
        "cloze": bool(prompt.query and prompt.continuation),
        "text": bool(prompt.text),
        "generate": bool(prompt.query and prompt.answers is not None),
    }
    if not complete[prompt.kind]:
        raise TaskError(f"kind: {prompt.kind} needs {REQUIRED[prompt.kind]}")
    return prompt


def _hub(table: JsonObject, documents: tuple[str, ...]) -> HubTask | None:
    """Read the block hub: its keys replace those of the task, because a row of the hub has other fields."""
    hub = table.get("hub")
    if hub is None:
        return None
    if not isinstance(hub, dict) or not {"dataset", "revision", "split"} <= set(hub):
        raise TaskError("hub: expected dataset:, revision: and split:")
    _known(hub, HUB_KEYS | PROMPT_KEYS, "hub: ")
    if not is_texts([hub["dataset"], hub["split"]]) or not isinstance(hub.get("fewshot") or {}, dict):
        raise TaskError("hub: expected dataset: and split: with text, and fewshot: with a table")
    of_task, of_hub, split = table.get("fewshot") or {}, hub.get("fewshot") or {}, str(hub["split"])
    if not isinstance(of_task, dict):
        raise TaskError("fewshot: expected a table with documents: and n:")
    shots = {**of_task, **(of_hub if isinstance(of_hub, dict) else {})}
    examples = _fewshot(shots or None, "split", (split,))
    return HubTask(
        source=HubDataset(str(hub["dataset"]), str(hub["revision"]), _configurations(hub), documents),
        split=split,
        prompt=_prompt({**table, **hub}),
        fewshot=examples if examples and examples.n else None,
        unshown=examples if examples and not examples.n else None,
    )


def _configurations(hub: JsonObject) -> tuple[str | None, ...]:
    return _names(hub["name"], "hub: name", "a configuration") if "name" in hub else (None,)


def _fewshot(table: Json, place: str, scored: Sequence[str]) -> FewShot | None:
    """Read the block fewshot; `place` is the key of the examples' location, which must differ from the scored one."""
    if table is None:
        return None
    if not isinstance(table, dict) or not {place, "n"} <= set(table):
        raise TaskError(f"fewshot: expected {place}: and n:")
    if table["n"] and table[place] in scored and "only" not in table:
        raise TaskError("fewshot: the examples are scored documents; choose other documents")
    settings: dict[str, Setting] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
    _expect_types(FewShot, {key: value for key, value in settings.items() if key != "only"})
    settings["only"] = _only(table.get("only", {}))
    settings["sampler"] = _one_of(table.get("sampler", "once"), "fewshot: sampler", SAMPLERS)
    if settings["sampler"] == "per_doc" and settings.setdefault("seed", SEED) is None:
        raise TaskError("fewshot: sampler: per_doc draws with a seed; leave seed: out, or name a number")
    return _made(FewShot, settings)


def _only(table: Json) -> dict[str, tuple[int, int]]:
    """Read the ranges of documents to use: integer fields with first and last value, such as 11..510."""
    ranges = {}
    for name, text in (table if isinstance(table, dict) else {"": table}).items():
        first, dots, last = str(text).partition("..")
        if not (dots and first.isdigit() and last.isdigit()):
            raise TaskError(f"only: {table!r}; expected a field and a range, such as {{task_id: 11..510}}")
        ranges[str(name)] = (int(first), int(last))
    return ranges


def _one_of(value: Json, key: str, allowed: Sequence[A]) -> A:
    for option in allowed:
        if value == option:
            return option
    raise TaskError(f"{key}: {value!r}; expected one of {choose(allowed)}")
