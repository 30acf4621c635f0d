"""The names in a store: checkpoints, settings, and tasks with their documents, each under its digest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from harness.errors import DamagedFile, StoreError
from harness.files import digest_of
from harness.metrics.standard_errors import Groups
from harness.store.documents import Docs, TaskMeta, doc_of, task_columns, task_meta_of, with_earlier_groups
from harness.store.files import OLD, Columns, StoreFiles, names_in
from harness.store.folders import read_schema, write_mark
from harness.store.identity import Settings
from harness.types import Checkpoint, Task
from harness.types.json import JsonObject

DIGEST = re.compile(r"[0-9a-f]{16}")
CHECKPOINT_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")
V = TypeVar("V", Checkpoint, Settings)


class NamedStore:
    """A folder with the names that its cells need: those of checkpoints, settings and tasks."""

    def __init__(self, path: str | Path, *, create: bool = False, sets_aside: bool = True) -> None:
        """Open a store. `create` makes or repairs its folders first; `sets_aside` moves damaged files when read."""
        self.path = Path(path)
        schema = write_mark(self.path) if create else read_schema(self.path)
        self.files = StoreFiles(self.path, schema=schema, sets_aside=sets_aside)

    def put_checkpoint(self, digest: str, checkpoint: Checkpoint) -> None:
        """Store the names and attributes of a checkpoint, replacing earlier ones with the same source or label.

        A copy of the store need not keep the times of files, so nothing may depend on which of them is the latest.
        """
        name = f"{digest}-{digest_of(checkpoint.source)}"
        names = self._checkpoint_names.setdefault(digest, set())
        names.add(name)
        for file in sorted(file for file in names if file == name or self._label(file) == checkpoint.label):
            self.files.keep_json(f"checkpoints/{file}", asdict(checkpoint))
        self.__dict__.pop("checkpoints", None)

    @cached_property
    def _checkpoint_names(self) -> dict[str, set[str]]:
        """Return the names of the files of checkpoints, by digest."""
        names: dict[str, set[str]] = {}
        for name in names_in(self.path / "checkpoints", ".json"):
            if CHECKPOINT_NAME.fullmatch(name):
                names.setdefault(name.split("-")[0], set()).add(name)
        return names

    def labels_at(self, checkpoints: Iterable[Checkpoint], digests: set[str]) -> dict[str, str]:
        """Return the label of each of the digests that was stored with the source and label of one of `checkpoints`."""
        places = {(digest_of(checkpoint.source), checkpoint.label) for checkpoint in checkpoints}
        sources = {source for source, _ in places}
        labels = dict[str, str]()
        for digest in digests & self._checkpoint_names.keys():
            for name in self._checkpoint_names[digest]:
                source = name.split("-")[1]
                if source in sources and (source, label := self._label(name)) in places:
                    labels[digest] = label
        return labels

    def _label(self, name: str) -> str:
        """Return the label in a file of a checkpoint, "" if it cannot be read."""
        try:
            return self._value(Checkpoint, f"checkpoints/{name}").label
        except StoreError:
            return ""

    @cached_property
    def checkpoints(self) -> dict[str, list[Checkpoint]]:
        """Return checkpoints by digest; several if equal weights are in several places under different names."""
        by_digest: dict[str, dict[str, Checkpoint]] = {}
        folder = self.path / "checkpoints"
        files = [folder / f"{name}.json" for name in names_in(folder, ".json") if CHECKPOINT_NAME.fullmatch(name)]
        for file in sorted(files, key=lambda f: f.stat().st_mtime_ns):
            checkpoint = self._value(Checkpoint, f"checkpoints/{file.stem}")
            by_digest.setdefault(file.stem.split("-")[0], {})[checkpoint.label] = checkpoint
        return {digest: list(named.values()) for digest, named in by_digest.items()}

    def put_settings(self, settings: Settings) -> None:
        """Store settings under their digest."""
        self.files.keep_json(f"settings/{settings.digest}", asdict(settings))
        self.__dict__.pop("settings", None)

    @cached_property
    def settings(self) -> dict[str, Settings]:
        """Return settings by digest."""
        stems = names_in(self.path / "settings", ".json")
        return {stem: self._value(Settings, f"settings/{stem}") for stem in stems if DIGEST.fullmatch(stem)}

    def _value(self, kind: type[V], name: str) -> V:
        """Return a JSON file as a Checkpoint or as Settings."""
        value, make = self.files.read_json(name), _maker(kind)
        try:
            return make(**value)
        except TypeError as error:
            path = self.files.json(name)
            if self.files.schema == OLD:
                raise self.files.damaged(path, str(error)) from error
            raise StoreError(f"{path}: {error}; written by a later version; update the harness") from error

    def put_task(self, task: Task) -> None:
        """Store the documents of a task, with its name and how it is shown."""
        keys = ("name", "kind", "unconditional", "metric", "average", "about", "groups")
        meta = {key: getattr(task, key) for key in keys}
        meta |= {key: dict(value) for key in ("source", "origin") if (value := getattr(task, key))}
        columns, name = task_columns(task), f"tasks/{task.fingerprint}"
        earlier = self.task_meta.get(task.fingerprint) if task.source else None
        if earlier:
            meta["source"] = with_earlier_groups(task.source, earlier.get("source"))
        if not self.files.table(name).exists() or self._task_differs(name, columns, meta):
            self.files.write_table(name, columns, meta)
        self.__dict__.pop("task_meta", None)

    def _task_differs(self, name: str, columns: Columns, meta: JsonObject) -> bool:
        try:
            table, old = self.files.read_table(name)
        except DamagedFile:
            return True
        names = [name for name in ("attributes", "source") if name in columns]
        return old != meta or any(
            name not in table.column_names or table[name].to_pylist() != columns[name].to_pylist() for name in names
        )

    @cached_property
    def task_meta(self) -> dict[str, TaskMeta]:
        """Return name, kind, metric, average ... of tasks, by fingerprint."""
        names = [name for name in names_in(self.path / "tasks", ".parquet") if DIGEST.fullmatch(name)]
        return {name: task_meta_of(self.files.read_table(f"tasks/{name}").meta) for name in names}

    def task(self, fingerprint: str) -> Task:
        """Return a task as it was scored; how its texts were drawn is in the settings of its cells."""
        table, meta = self.files.read_table(f"tasks/{fingerprint}")
        return Task(docs=tuple(map(doc_of, table.to_pylist())), fingerprint=fingerprint, **task_meta_of(meta))

    def docs(self, fingerprint: str) -> Docs:
        """Return the documents of a task."""
        if fingerprint not in self._docs:
            self._docs[fingerprint] = Docs(self.files.read_table(f"tasks/{fingerprint}").table)
        return self._docs[fingerprint]

    @cached_property
    def _docs(self) -> dict[str, Docs]:
        return {}

    def groups(self, fingerprint: str) -> Groups:
        """Return the groups of the documents of a task."""
        if fingerprint not in self._groups:
            clustered = self.task_meta[fingerprint].get("groups") == "clusters"
            self._groups[fingerprint] = Groups.named(self.docs(fingerprint).group, clustered=clustered)
        return self._groups[fingerprint]

    @cached_property
    def _groups(self) -> dict[str, Groups]:
        return {}


def _maker(kind: type[V]) -> Callable[..., V]:
    """Return a class as a function of keywords that are only known from a file."""
    return kind
