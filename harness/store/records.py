"""The store: one file per cell, written whole or not at all, with a digest of all its bytes.

    STORE/
      store.json                   the schema version
      records/CELL.parquet         rows: doc_id, choice, logprob (nats), n_tokens, truncated, and if available
                                   is_greedy, logprob_unconditional
      samples/CELL/                generated texts in numbered parts, and a seal when all are complete
      tokens/CELL.parquet          reserved: log-probabilities of single tokens, if requested
      tasks/FINGERPRINT.parquet    doc_id, group, contexts, continuations, choices, n_chars, n_bytes, gold, attributes
      checkpoints/DIGEST-SOURCE.json   all attributes of a checkpoint, names included
      settings/DIGEST.json         engine, dtype, quantisation, bos, max_length, truncation, chat_template,
                                   system_prompt, adapter, sampling
      points/NAME.parquet          reserved: imported points, with their origin
      damaged/                     damaged files, under their original path

CELL is CHECKPOINT-FINGERPRINT-SETTINGS, which are three digests, so listing the store opens no file. Names are stored
in tasks/ and checkpoints/ only and are joined when records are read. Plain text is one row whose choice is 0. Every
file contains its name (the path above without suffix) and a digest of all its bytes; every read verifies both
(harness/store/files.py). Files with other names in these folders are not read; `harness check` lists them.

Files of schema 1 (version 0.1) contain neither names nor digests. Such stores can be read but not extended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from filelock import BaseFileLock

from harness.errors import DamagedFile, StoreError
from harness.files import digest_of
from harness.metrics.scores import Scores
from harness.store.files import AGAIN, OLD, StoreFiles
from harness.store.folders import read_schema, write_mark
from harness.store.identity import CellId, Settings
from harness.store.locks import lock_of
from harness.types import Bools, Checkpoint, Doc, Floats, Ints, Task

DIGEST = re.compile(r"[0-9a-f]{16}")
CHECKPOINT_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")
CELL_NAME = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{16}){2}")
V = TypeVar("V", Checkpoint, Settings)


@dataclass(frozen=True)
class Records:
    """The rows of one cell (m,), and its provenance: versions, device, counts."""

    doc_ids: tuple[str, ...]
    choices: Ints
    logprob: Floats
    n_tokens: Ints
    truncated: Bools
    logprob_unconditional: Floats | None = None
    is_greedy: Bools | None = None
    provenance: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Cell:
    """A cell that is in the store, with the names that belong to its digests."""

    id: CellId
    checkpoint: Checkpoint
    task: str
    settings: Settings


class Store:
    """A folder of records. Open one with `harness.open_store`."""

    def __init__(self, path: str | Path, *, create: bool = False, sets_aside: bool = True) -> None:
        """Open a store; `create` makes or mends its folders first, `sets_aside` lets readings move damaged files."""
        self.path = Path(path)
        schema = write_mark(self.path) if create else read_schema(self.path)
        self.files = StoreFiles(self.path, schema=schema, sets_aside=sets_aside)

    # --- cells ---------------------------------------------------------------------------------------------------

    def cell_names(self) -> set[str]:
        """Return the names of all cells that are there; opens no file."""
        stems = (file.stem for file in (self.path / "records").glob("*.parquet"))
        return {stem for stem in stems if CELL_NAME.fullmatch(stem)}

    def has(self, cell: CellId) -> bool:
        """Say whether a cell is there; one look-up, opens no file."""
        return self.files.table(_record(cell.name)).is_file()

    def lock(self, cell: CellId) -> BaseFileLock:
        """Return the lock of a cell; the kernel frees it when its process dies."""
        return lock_of(self.path, cell.name)

    def write(self, cell: CellId, records: Records) -> None:
        """Write the records of a cell; the caller holds its lock."""
        columns: dict[str, Any] = {
            "doc_id": pa.array(records.doc_ids, pa.string()),
            "choice": pa.array(records.choices, pa.int16()),
            "logprob": pa.array(records.logprob, pa.float64()),
            "n_tokens": pa.array(records.n_tokens, pa.int32()),
            "truncated": pa.array(records.truncated, pa.bool_()),
        }
        if records.logprob_unconditional is not None:
            columns["logprob_unconditional"] = pa.array(records.logprob_unconditional, pa.float64())
        if records.is_greedy is not None:
            columns["is_greedy"] = pa.array(records.is_greedy, pa.bool_())
        name, provenance = _record(cell.name), dict(records.provenance or {})
        self._provenance.pop(cell.name, None)
        self.files.write_table(name, columns, provenance, temporary=f".{cell.name}.tmp")

    def read(self, name: str) -> Records:
        """Return the records of a cell; a damaged file is set aside and named by DamagedFile."""
        table, provenance = self.files.read_table(_record(name))
        doc_ids = tuple(table["doc_id"].to_pylist())
        return Records(doc_ids=doc_ids, provenance=provenance, **_columns(table))

    def provenance(self, name: str) -> dict[str, Any]:
        """Return how a cell came about: versions, device, counts."""
        if name not in self._provenance:
            self._provenance[name] = self.files.read_table(_record(name)).meta
        return dict(self._provenance[name])

    @cached_property
    def _provenance(self) -> dict[str, dict[str, Any]]:
        """Provenance of cells that were loaded, so that none is read twice."""
        return {}

    def check(self, name: str) -> None:
        """Read a cell whole; a damaged file is set aside and named by DamagedFile."""
        self.read(name)

    def cells(self) -> list[Cell]:
        """Return all cells with their names joined; raise StoreError where a file that names one is missing."""
        found = []
        for name in sorted(self.cell_names()):
            cell = CellId.of(name)
            self._expect_names(cell)
            task, settings = self.task_meta[cell.fingerprint]["name"], self.settings[cell.settings]
            found += [Cell(cell, checkpoint, task, settings) for checkpoint in self.checkpoints[cell.checkpoint]]
        return found

    def _named(self, cell: CellId) -> dict[str, bool]:
        """Return, for each file that names a cell, whether it is known."""
        return {
            f"tasks/{cell.fingerprint}.parquet": cell.fingerprint in self.task_meta,
            f"settings/{cell.settings}.json": cell.settings in self.settings,
            f"checkpoints/{cell.checkpoint}-*.json": cell.checkpoint in self.checkpoints,
        }

    def _expect_names(self, cell: CellId) -> None:
        lost = [str(self.path / path) for path, is_there in self._named(cell).items() if not is_there]
        if lost:  # the cell may have come, with its names, after this store was opened
            for cached in ("task_meta", "settings", "checkpoints"):
                self.__dict__.pop(cached, None)
            lost = [str(self.path / path) for path, is_there in self._named(cell).items() if not is_there]
        if lost:
            raise StoreError(f"{lost[0]} is missing, which names the cell {cell.name}; {AGAIN}, or remove the cell")

    def lost(self) -> list[Path]:
        """Return the paths, within the store, of files that were set aside and have not been written again since."""
        aside = self.path / "damaged"
        found = (path.relative_to(aside) for path in aside.rglob("*") if path.is_file())
        return sorted(path for path in found if path.parent.name and not (self.path / path).exists())

    def load(self, cell: CellId) -> Scores:
        """Return the scores of a cell, joined with its documents."""
        table, self._provenance[cell.name] = self.files.read_table(_record(cell.name))
        docs, meta, columns = self.docs(cell.fingerprint), self.task_meta[cell.fingerprint], _columns(table)
        if not table["doc_id"].combine_chunks().equals(docs.row_doc_ids):
            raise self.files.damaged(self.files.table(_record(cell.name)), "its documents are not those of its task")
        return Scores(
            kind=meta["kind"],
            doc_ids=docs.doc_ids,
            first=docs.first,
            is_gold=docs.is_gold,
            n_chars=docs.n_chars,
            n_bytes=docs.n_bytes,
            group=docs.group,
            clustered=meta.get("groups") == "clusters",
            **{name: column for name, column in columns.items() if name != "choices"},
        )

    # --- names ---------------------------------------------------------------------------------------------------

    def put_checkpoint(self, digest: str, checkpoint: Checkpoint) -> None:
        """Keep the names and attributes of a checkpoint; those it had before under the same source are replaced."""
        self.files.write_json(f"checkpoints/{digest}-{digest_of(checkpoint.source)}", asdict(checkpoint))
        self.__dict__.pop("checkpoints", None)

    @cached_property
    def checkpoints(self) -> dict[str, list[Checkpoint]]:
        """Checkpoints by digest; more than one where equal weights lie in several places under different names."""
        found: dict[str, dict[str, Checkpoint]] = {}
        files = (file for file in (self.path / "checkpoints").glob("*.json") if CHECKPOINT_NAME.fullmatch(file.stem))
        for file in sorted(files, key=lambda f: f.stat().st_mtime_ns):
            checkpoint = self._value(Checkpoint, f"checkpoints/{file.stem}")
            found.setdefault(file.stem.split("-")[0], {})[checkpoint.label] = checkpoint
        return {digest: list(named.values()) for digest, named in found.items()}

    def put_settings(self, settings: Settings) -> None:
        """Keep what a settings digest stands for."""
        name, value = f"settings/{settings.digest}", asdict(settings)
        try:
            is_there = self.files.json(name).exists() and self.files.read_json(name) == json.loads(json.dumps(value))
        except DamagedFile:
            is_there = False
        if not is_there:
            self.files.write_json(name, value)
        self.__dict__.pop("settings", None)

    @cached_property
    def settings(self) -> dict[str, Settings]:
        """Settings by digest."""
        stems = (file.stem for file in (self.path / "settings").glob("*.json"))
        return {stem: self._value(Settings, f"settings/{stem}") for stem in stems if DIGEST.fullmatch(stem)}

    def _value(self, kind: type[V], name: str) -> V:
        """Return a JSON file as a Checkpoint or as Settings."""
        value = self.files.read_json(name)
        try:
            return kind(**value)
        except TypeError as error:
            path = self.files.json(name)
            if self.files.schema == OLD:
                raise self.files.damaged(path, str(error)) from error
            raise StoreError(f"{path}: {error}; update the harness, a later version wrote it") from error

    def put_task(self, task: Task) -> None:
        """Keep the documents of a task, with its name and how it is shown."""
        keys = ("name", "kind", "unconditional", "metric", "average", "about", "groups")
        meta = {key: getattr(task, key) for key in keys} | ({"source": dict(task.source)} if task.source else {})
        columns, name = _task_columns(task), f"tasks/{task.fingerprint}"
        if not self.files.table(name).exists() or self._task_differs(name, columns, meta):
            self.files.write_table(name, columns, meta)
        self.__dict__.pop("task_meta", None)

    def _task_differs(self, name: str, columns: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        try:
            table, old = self.files.read_table(name)
        except DamagedFile:
            return True
        names = [name for name in ("attributes", "source") if name in columns]
        return old != meta or any(
            name not in table.column_names or table[name].to_pylist() != columns[name].to_pylist() for name in names
        )

    @cached_property
    def task_meta(self) -> dict[str, dict[str, Any]]:
        """Name, kind, metric, average ... of tasks, by fingerprint."""
        stems = (file.stem for file in (self.path / "tasks").glob("*.parquet"))
        return {stem: self.files.read_table(f"tasks/{stem}").meta for stem in stems if DIGEST.fullmatch(stem)}

    def task(self, fingerprint: str) -> Task:
        """Return a task as it was scored; how its texts were drawn is in the settings of its cells."""
        table, meta = self.files.read_table(f"tasks/{fingerprint}")
        return Task(docs=tuple(map(_doc, table.to_pylist())), fingerprint=fingerprint, **meta)

    def docs(self, fingerprint: str) -> Docs:
        """Return the documents of a task."""
        if fingerprint not in self._docs:
            self._docs[fingerprint] = Docs(self.files.read_table(f"tasks/{fingerprint}").table)
        return self._docs[fingerprint]

    @cached_property
    def _docs(self) -> dict[str, Docs]:
        return {}


def _record(name: str) -> str:
    return f"records/{name}"


def _columns(table: pa.Table) -> dict[str, Any]:
    """Return the columns of records but doc_id as arrays (m,), by the names that Records and Scores give them."""
    optional = [name for name in ("logprob_unconditional", "is_greedy") if name in table.column_names]
    return {
        "choices": table["choice"].to_numpy().astype(np.int64),
        "n_tokens": table["n_tokens"].to_numpy().astype(np.int64),
        **{name: table[name].to_numpy() for name in ("logprob", "truncated", *optional)},
    }


class Docs:
    """The documents of a task as arrays: one row a document (n,) or one a choice (m,)."""

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

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """Attributes of each document, such as digits."""
        return [json.loads(text) for text in self.table["attributes"].to_pylist()]


def _doc(row: Mapping[str, Any]) -> Doc:
    """Return a document from its row in tasks/."""
    texts: dict[str, Any] = {name: tuple(row[name]) for name in ("contexts", "continuations", "choices", "gold")}
    kept = {name: json.loads(row.get(name) or "{}") for name in ("attributes", "source")}
    return Doc(doc_id=row["doc_id"], group=row["group"], **texts, **kept)


def _flat(column: pa.ChunkedArray) -> Ints:
    return np.array([value for values in column.to_pylist() for value in values], dtype=np.int64)


def _task_columns(task: Task) -> dict[str, Any]:
    """One row a document; texts are kept as they were scored."""
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
