"""The documents of a task in the store: tasks/FINGERPRINT.parquet, and its content as arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.types import Doc, Ints, Json, JsonObject, Task


class Docs:
    """The documents of a task as arrays: one row per document (n,) or one per choice (m,)."""

    def __init__(self, table: pa.Table) -> None:
        counts = np.array([len(choices) for choices in table["choices"].to_pylist()], dtype=np.int64)
        self.table = table
        self.doc_ids = np.array(table["doc_id"].to_pylist())
        self.first = np.cumsum(np.append(0, counts[:-1]))
        self.group = np.array(table["group"].to_pylist(), dtype=object)
        self.n_chars = _flat(table["n_chars"])
        self.n_bytes = _flat(table["n_bytes"])
        self.is_gold = np.zeros(counts.sum(), dtype=np.bool_)
        for first, gold in zip(self.first, table["gold"].to_pylist(), strict=True):
            self.is_gold[first + np.array(gold, dtype=np.int64)] = True
        self.row_doc_ids = table["doc_id"].combine_chunks().take(pa.array(np.repeat(np.arange(len(counts)), counts)))

    @cached_property
    def n_words(self) -> Ints:
        """Return the number of words of each choice (m,): pieces between white space, as lm-eval counts them."""
        choices = (text for texts in self.table["choices"].to_pylist() for text in texts)
        return np.array([len(re.split(r"\s+", text)) for text in choices], dtype=np.int64)

    @cached_property
    def references(self) -> NDArray[np.object_] | None:
        """Return the accepted answers of each document (n,), as tuples; None where one has none, or an empty one."""
        columns = (self.table[name].to_pylist() for name in ("choices", "gold"))
        accepted = [tuple(choices[k] for k in gold) for choices, gold in zip(*columns, strict=True)]
        if not all(answers and all(answers) for answers in accepted):
            return None
        references = np.empty(len(accepted), dtype=object)
        references[:] = accepted
        return references

    @property
    def attributes(self) -> list[dict[str, Json]]:
        """Return the attributes of each document, such as digits."""
        return [json.loads(text) for text in self.table["attributes"].to_pylist()]

    @property
    def prompts(self) -> dict[str, list[str]]:
        """Return context, continuation and answer of each choice (m,), as they were scored: not escaped."""
        columns = (self.table[name].to_pylist() for name in ("contexts", "continuations", "choices"))
        rows = [
            (contexts[i if len(contexts) > 1 else 0], continuations[i if len(continuations) > 1 else 0], choice)
            for contexts, continuations, choices in zip(*columns, strict=True)
            for i, choice in enumerate(choices)
        ]
        return dict(zip(("context", "continuation", "answer"), map(list, zip(*rows, strict=True)), strict=True))


def _flat(column: pa.ChunkedArray) -> Ints:
    return np.array([value for values in column.to_pylist() for value in values], dtype=np.int64)


def task_columns(task: Task) -> dict[str, pa.Array]:
    """Return one row per document, with texts as scored."""
    docs = task.docs
    return {
        "doc_id": pa.array([d.doc_id for d in docs], pa.string()),
        "group": pa.array([d.group for d in docs], pa.string()),
        "contexts": pa.array([list(d.contexts) for d in docs], pa.list_(pa.string())),
        "continuations": pa.array([list(d.continuations) for d in docs], pa.list_(pa.string())),
        "choices": pa.array([list(d.choices) for d in docs], pa.list_(pa.string())),
        "n_chars": pa.array([[len(c) for c in d.choices] for d in docs], pa.list_(pa.int32())),
        "n_bytes": pa.array([[len(c.encode()) for c in d.choices] for d in docs], pa.list_(pa.int32())),
        "gold": pa.array([list(d.gold) for d in docs], pa.list_(pa.int16())),
        "attributes": pa.array([json.dumps(dict(d.attributes)) for d in docs], pa.string()),
        **({"source": pa.array([json.dumps(dict(d.source)) for d in docs], pa.string())} if task.source else {}),
    }


class DocRow(TypedDict):
    """The row of a document in tasks/; attributes and source are JSON."""

    doc_id: str
    group: str | None
    contexts: list[str]
    continuations: list[str]
    choices: list[str]
    gold: list[int]
    attributes: NotRequired[str | None]
    source: NotRequired[str | None]


def doc_of(row: DocRow) -> Doc:
    """Return a document from its row in tasks/."""
    return Doc(
        doc_id=row["doc_id"],
        group=row["group"],
        contexts=tuple(row["contexts"]),
        continuations=tuple(row["continuations"]),
        choices=tuple(row["choices"]),
        gold=tuple(row["gold"]),
        attributes=json.loads(row.get("attributes") or "{}"),
        source=json.loads(row.get("source") or "{}"),
    )


class TaskMeta(TypedDict):
    """What the store keeps of a task besides its documents."""

    name: str
    kind: str
    metric: str
    average: str
    unconditional: NotRequired[bool]
    about: NotRequired[str]
    groups: NotRequired[str]
    source: NotRequired[Mapping[str, Any]]
    origin: NotRequired[Mapping[str, str]]


def parts_of(source: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the groups that a task is part of, from what its source keeps."""
    groups = (source or {}).get("part_of") or []
    return [groups] if isinstance(groups, Mapping) else list(groups)


def with_earlier_groups(source: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a source keeps of a task, with the groups that the task was evaluated for earlier.

    Without them, evaluating the task by its own name would remove the points of its group. A group that is defined
    anew replaces the earlier one of its name and options.
    """
    new = parts_of(source)
    names = [(part["name"], part.get("asked")) for part in new]
    old = [part for part in parts_of(earlier) if (part["name"], part.get("asked")) not in names]
    every = sorted(old + new, key=lambda part: json.dumps(part, sort_keys=True))
    return {**source, **({"part_of": every} if every else {})}


def task_meta_of(stored: JsonObject) -> TaskMeta:
    """Return the attributes of a task as the store keeps them; those that an old store lacks stay absent."""
    meta = TaskMeta(
        name=str(stored["name"]), kind=str(stored["kind"]), metric=str(stored["metric"]), average=str(stored["average"])
    )
    if "unconditional" in stored:
        meta["unconditional"] = bool(stored["unconditional"])
    if "about" in stored:
        meta["about"] = str(stored["about"])
    if "groups" in stored:
        meta["groups"] = str(stored["groups"])
    source = stored.get("source")
    if isinstance(source, Mapping):
        meta["source"] = source
    origin = stored.get("origin")
    if isinstance(origin, Mapping):
        meta["origin"] = {name: str(value) for name, value in origin.items()}
    return meta
