"""Tasks: a folder with task.yaml becomes documents with exact prompts, and a fingerprint of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.errors import TaskError, choose
from harness.files import digest_of, expect_characters
from harness.tasks.documents import expect_own, find_files, look_for, read_rows
from harness.tasks.hub import HubRows
from harness.tasks.prompt_options import PLAIN, Prompting
from harness.tasks.prompts import FewShot, PromptSpec, examples, make_docs
from harness.tasks.task_files import HubTask, TaskFile
from harness.tasks.templates import Row, look_up
from harness.types import Doc, Generation, Json, Task

TASK_KINDS = ("choice", "cloze", "text", "generate", "unjudged")
INTEGERS = (int, np.integer)
MOST_CHOICES = 2**15 - 1  # of a document; a store numbers them with 16 bits


NumberedRows = dict[tuple[Path, int], Row]  # rows by file and number


class Material(NamedTuple):
    """The rows of documents, and how their fields become prompts."""

    prompt: PromptSpec
    rows: Iterable[Row]

    @property
    def origin(self) -> dict[str, str]:
        """Return the dataset of the hub that the rows were read from, if they were."""
        return self.rows.origin if isinstance(self.rows, HubRows) else {}


def load_task(file: TaskFile, data: Path | None = None, limit: int | None = None, prompting: Prompting = PLAIN) -> Task:
    """Read the documents of a task and make their prompts.

    Documents are looked for in DATA/NAME, in DATA and beside task.yaml, in this order, and then on the hub, where the
    task names a dataset. `limit` keeps the first documents of each group. With another number of few-shot examples than
    its own, a task is another task: NAME_5shot. Raises TaskError, naming the task.
    """
    try:
        file = with_shots(file, prompting)
        material = _material(file, data)
        prompt = material.prompt
        docs = sorted(make_docs(prompt, material.rows, file.leave_out), key=lambda doc: doc.group or "")
        docs = list(limited(docs, limit))
        _check(docs)
    except TaskError as error:
        raise TaskError(f"task {file.name}: {error}") from error
    except RecursionError as error:
        raise TaskError(f"task {file.name}: a value is nested too deeply") from error
    return Task(
        name=f"{file.name}{file.suffix}",
        kind=prompt.kind,
        docs=tuple(docs),
        fingerprint=fingerprint(prompt.kind, file.unconditional, docs, file.generation),
        unconditional=file.unconditional,
        metric=file.metric,
        average=file.average,
        about=file.about,
        generation=file.generation,
        groups=file.groups,
        origin=material.origin,
    )


def with_shots(file: TaskFile, prompting: Prompting) -> TaskFile:
    """Return a task with the number and seed of few-shot examples that a suite asks for, as a conversation or not.

    Raises TaskError where examples are wanted and the task does not say which documents they are.
    """
    prompt = replace(file.prompt, prompting=prompting)
    hub = file.hub and replace(file.hub, prompt=replace(file.hub.prompt, prompting=prompting))
    file = replace(file, prompt=prompt, hub=hub)
    default_n = file.fewshot.n if file.fewshot else 0
    n = default_n if prompting.num_fewshot is None else prompting.num_fewshot
    if n and not file.fewshot and not file.unshown:
        raise TaskError(f"--num-fewshot {n}: the task names no documents for examples; add fewshot: to its task.yaml")
    pools = (file.fewshot or file.unshown, file.hub and (file.hub.fewshot or file.hub.unshown))
    shots, of_hub = (_shots(pool or None, n, prompting.fewshot_seed) for pool in pools)
    hub = file.hub and replace(file.hub, fewshot=of_hub)
    return replace(file, fewshot=shots, hub=hub, suffix=suffix_of_shots(n, default_n))


def _shots(pool: FewShot | None, n: int, seed: int | None) -> FewShot | None:
    if pool is None or not n:
        return None
    return replace(pool, n=n, seed=pool.seed if seed is None else seed)


def _material(file: TaskFile, data: Path | None) -> Material:
    given = [data / file.name, data / file.folder, data] if data else []
    folders = list(dict.fromkeys([*given, file.path.parent]))
    if file.hub and not look_for(file.documents, folders):
        return _from_hub(file.hub)
    is_given = file.path.parent in [folder.resolve() for folder in given]
    return _from_files(file, folders, None if is_given else file.path.parent)


def _from_files(file: TaskFile, folders: Sequence[Path], task_folder: Path | None) -> Material:
    """Return the documents of the first folder that has some.

    Links in `task_folder`, which nobody named, stay inside.
    """

    def rows(patterns: Sequence[str], columns: Sequence[str], only: Mapping[str, tuple[int, int]]) -> NumberedRows:
        kept_rows: NumberedRows = {}
        for path in find_files(patterns, folders):
            if task_folder and path.is_relative_to(task_folder):
                expect_own(path, task_folder)
            place = path.resolve()
            numbered = enumerate(read_rows(path, columns, file.rows))
            kept_rows |= {(place, i): row for i, row in numbered if _counts(row, only)}
        return kept_rows

    shots = file.fewshot
    solved = rows((shots.documents,), shots.columns or file.columns, shots.only) if shots else {}
    scored = rows(file.documents, file.columns, file.only)
    if (both := len(solved.keys() & scored.keys())) > len(file.leave_out):
        raise TaskError(
            f"fewshot: {both} documents are examples and are scored, too; choose another file, or separate ranges with "
            "only: in both places"
        )
    return Material(_shown(file.prompt, shots, list(solved.values())), list(scored.values()))


def _whole(value: Json) -> int:
    if not isinstance(value, (str, int, float)):
        raise TypeError(f"{value!r} is not a number")
    return int(value)


def _counts(row: Row, only: Mapping[str, tuple[int, int]]) -> bool:
    """Return whether the numbers in some fields of a row are within their ranges (first to last)."""
    try:
        return all(first <= _whole(look_up(name, row)) <= last for name, (first, last) in only.items())
    except (TypeError, ValueError) as error:
        raise TaskError(f"only: a document has no integer in {choose(only)}: {error}") from error


def _from_hub(hub: HubTask) -> Material:
    if hub.fewshot and hub.fewshot.split == hub.split:
        raise TaskError(f"fewshot: the examples are documents of the scored split {hub.split!r}; choose another split")
    solved = HubRows(hub.source, hub.fewshot.split) if hub.fewshot else ()
    return Material(_shown(hub.prompt, hub.fewshot, solved), HubRows(hub.source, hub.split))


def _shown(prompt: PromptSpec, shots: FewShot | None, solved: Iterable[Row]) -> PromptSpec:
    return replace(prompt, shots=shots, examples=examples(prompt, shots, solved)) if shots else prompt


def limited(docs: Iterable[Doc], limit: int | None) -> Iterator[Doc]:
    """Yield the first documents of each group; all of them without a limit."""
    seen: dict[str | None, int] = {}
    for doc in docs:
        seen[doc.group] = seen.get(doc.group, 0) + 1
        if limit is None or seen[doc.group] <= limit:
            yield doc


def _check(docs: Sequence[Doc]) -> None:
    if not docs:
        raise TaskError("it has no documents")
    seen: set[str] = set()
    for doc in docs:
        _expect_storable(doc)
        if doc.doc_id in seen:
            raise TaskError(f"two documents have the id {doc.doc_id!r}; correct id: or group: in task.yaml")
        seen.add(doc.doc_id)


def _expect_kind(task: Task) -> None:
    """Raise TaskError for a property that does not exist, and for documents that are not in a tuple or list."""
    for name, values in (("kind", TASK_KINDS), ("average", ("macro", "micro")), ("groups", ("strata", "clusters"))):
        if getattr(task, name) not in values:
            raise TaskError(f"{name} is {getattr(task, name)!r}; expected one of {', '.join(values)}")
    stop = task.generation.stop if task.generation else ()
    if task.kind == "generate" and not isinstance(task.generation, Generation):
        raise TaskError(f"generation is {task.generation!r}; expected a harness.Generation")
    if not isinstance(stop, (tuple, list)) or not all(isinstance(text, str) for text in stop):
        raise TaskError(f"stop is {stop!r}; expected a tuple of texts")
    if not isinstance(task.docs, (tuple, list)):
        raise TaskError(f"docs is {task.docs!r}; expected a tuple of harness.Doc")


def _expect_choices(doc: Doc, kind: str) -> None:
    """Raise TaskError where the parts of a document do not fit together."""
    if not isinstance(doc, Doc):
        raise TaskError(f"a document is {doc!r}; expected a harness.Doc")
    n = len(doc.choices)
    for name in ("contexts", "continuations"):
        if len(getattr(doc, name)) not in {1, n} and kind != "generate":
            raise TaskError(
                f"document {doc.doc_id}: {len(getattr(doc, name))} {name} of {n} choices; expected {n}, or 1"
            )
    if kind in {"choice", "cloze"} and not doc.gold:
        raise TaskError(f"document {doc.doc_id}: no choice is correct; name one in gold, or set kind to unjudged")
    if not all(isinstance(k, INTEGERS) and 0 <= k < n for k in doc.gold):
        raise TaskError(
            f"document {doc.doc_id}: gold {list(doc.gold)} of {n} choices; expected indices from 0 to {n - 1}"
        )


def _expect_storable(doc: Doc) -> None:
    """Raise TaskError where a document does not fit into the columns of a store."""
    if max(len(doc.choices), len(doc.continuations), len(doc.contexts)) > MOST_CHOICES:
        raise TaskError(f"document {doc.doc_id}: {len(doc.choices)} choices; expected {MOST_CHOICES} at most")
    try:
        texts = (doc.doc_id, doc.group or "", *doc.contexts, *doc.continuations, *doc.choices)
        expect_characters("".join((*texts, json.dumps(dict(doc.attributes), ensure_ascii=False))))
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskError(f"document {doc.doc_id!r}: {error}") from error


def fingerprint(kind: str, unconditional: bool, docs: Sequence[Doc], generation: Generation | None = None) -> str:
    """Return the digest of everything that determines scores: prompts, choices, gold, groups.

    Attributes are included for generated text only, because checkers read them.
    """
    rows = [(d.doc_id, d.contexts, d.continuations, d.choices, d.gold, d.group) for d in docs]
    if generation is None:
        return digest_of([kind, unconditional, rows])
    settings = (generation.checker, generation.max_tokens, generation.stop)
    return digest_of([kind, rows, [dict(d.attributes) for d in docs], settings])


def suffix_of_shots(n: int | None, default_n: int) -> str:
    """Return what tells a task with n few-shot examples from the task with its own number of them."""
    return "" if n is None or n == default_n else f"_{n}shot"


def fingerprinted(task: Task) -> Task:
    """Return a task with the fingerprint of its content, whatever its author gave it.

    Raises TaskError where its kind is unknown, or one of its documents is invalid or cannot be stored.
    """
    try:
        _expect_kind(task)
        for doc in task.docs:
            _expect_choices(doc, task.kind)
        _check(task.docs)
    except TaskError as error:
        raise TaskError(f"task {task.name}: {error}") from error
    digest = fingerprint(task.kind, task.unconditional, task.docs, task.generation)
    return task if task.fingerprint == digest else replace(task, fingerprint=digest)
