"""The store: one Parquet file a cell, written whole or not at all.

    STORE/
      store.json                   the schema version
      records/CELL.parquet         rows: doc_id, choice, logprob (nats), n_tokens, truncated, and where there are any
                                   is_greedy, logprob_unconditional
      tasks/FINGERPRINT.parquet    doc_id, group, contexts, continuations, choices, n_chars, n_bytes, gold, attributes
      checkpoints/DIGEST-SOURCE.json   all attributes of a checkpoint, names included
      samples/CELL/                texts that were drawn, in parts, and a seal when all are there (samplestore.py)
      settings/DIGEST.json         engine, dtype, quantisation, bos, max_length, truncation, sampling
      damaged/                     files that failed their checksum

CELL is CHECKPOINT-FINGERPRINT-SETTINGS, digests all three: listing the store opens no file, and names live only in
tasks/ and checkpoints/, from where they are joined on reading. A text is one row whose choice is 0. Parquet's own page
checksums are written, and verified at every reading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import BaseFileLock, FileLock

from harness.errors import DamagedFile, StoreError
from harness.files import write_whole
from harness.identity import CellId, Settings, digest_of
from harness.scores import Scores
from harness.types import Bools, Checkpoint, Floats, Ints, Task

SCHEMA = 1
FOLDERS = ("records", "samples", "tasks", "checkpoints", "settings", "damaged", ".locks")


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

    def __init__(self, path: str | Path, *, create: bool = False) -> None:
        self.path = Path(path)
        mark = self.path / "store.json"
        if create and not mark.exists():
            self._create(mark)
        schema = _read_json(mark).get("schema") if mark.exists() else None
        if schema is None:
            raise StoreError(f"{self.path} is not a store; harness eval ... -o {self.path} makes one")
        if schema != SCHEMA:
            raise StoreError(
                f"{self.path} has schema {schema}, this harness reads {SCHEMA}; use the version that wrote it"
            )

    def _create(self, mark: Path) -> None:
        try:
            if self.path.is_dir() and any(_is_strange(file.name) for file in self.path.iterdir()):
                raise StoreError(f"{self.path} is neither empty nor a store; name another folder")
            for folder in FOLDERS:
                (self.path / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"no store can be made at {self.path}: {error.strerror}; name another folder") from error
        write_whole(mark, json.dumps({"schema": SCHEMA}).encode())

    # --- cells ---------------------------------------------------------------------------------------------------

    def cell_names(self) -> set[str]:
        """Return the names of all cells that are there; opens no file."""
        return {file.stem for file in (self.path / "records").glob("*.parquet")}

    def lock(self, cell: CellId) -> BaseFileLock:
        """Return the lock of a cell; the kernel frees it when its process dies."""
        return FileLock(self.path / ".locks" / f"{cell.name}.lock", timeout=0)

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
        path = self._record(cell.name)
        write_table(path, columns, dict(records.provenance or {}), temporary=path.with_name(f".{cell.name}.tmp"))

    def read(self, name: str) -> Records:
        """Return the records of a cell; a damaged file is set aside and named by DamagedFile."""
        path = self._record(name)
        if not path.exists():
            raise StoreError(f"{path} is not there; run harness eval again")
        table, provenance = self._read_table(path)
        optional = {
            name: table[name].to_numpy()
            for name in ("logprob_unconditional", "is_greedy")
            if name in table.column_names
        }
        return Records(
            doc_ids=tuple(table["doc_id"].to_pylist()),
            choices=table["choice"].to_numpy().astype(np.int64),
            logprob=table["logprob"].to_numpy(),
            n_tokens=table["n_tokens"].to_numpy().astype(np.int64),
            truncated=table["truncated"].to_numpy(),
            provenance=provenance,
            **optional,
        )

    def provenance(self, name: str) -> dict[str, Any]:
        """Return how a cell came about: versions, device, counts."""
        return dict(self.read(name).provenance or {})

    def check(self, name: str) -> None:
        """Read a cell whole; a damaged file is set aside and named by DamagedFile."""
        self.read(name)

    def cells(self) -> list[Cell]:
        """Return all cells with their names joined; cells whose names were deleted are left out."""
        found = []
        for name in sorted(self.cell_names()):
            cell = CellId.of(name)
            task, settings = self.task_meta.get(cell.fingerprint), self.settings.get(cell.settings)
            if task and settings:
                found += [Cell(cell, c, task["name"], settings) for c in self.checkpoints.get(cell.checkpoint, ())]
        return found

    def load(self, cell: CellId) -> Scores:
        """Return the scores of a cell, joined with its documents."""
        records, docs = self.read(cell.name), self.docs(cell.fingerprint)
        meta = self.task_meta[cell.fingerprint]
        if records.doc_ids != docs.row_doc_ids:
            raise self._set_aside(self._record(cell.name), "its documents are not those of its task")
        return Scores(
            kind=meta["kind"],
            doc_ids=docs.doc_ids,
            first=docs.first,
            logprob=records.logprob,
            is_gold=docs.is_gold,
            n_tokens=records.n_tokens,
            n_chars=docs.n_chars,
            n_bytes=docs.n_bytes,
            truncated=records.truncated,
            group=docs.group,
            clustered=meta.get("groups") == "clusters",
            logprob_unconditional=records.logprob_unconditional,
            is_greedy=records.is_greedy,
        )

    # --- names ---------------------------------------------------------------------------------------------------

    def put_checkpoint(self, digest: str, checkpoint: Checkpoint) -> None:
        """Keep the names and attributes of a checkpoint; those it had before under the same source are replaced."""
        path = self.path / "checkpoints" / f"{digest}-{digest_of(checkpoint.source)}.json"
        write_whole(path, json.dumps(asdict(checkpoint), indent=1).encode())
        self.__dict__.pop("checkpoints", None)

    @cached_property
    def checkpoints(self) -> dict[str, list[Checkpoint]]:
        """Checkpoints by digest; more than one where equal weights lie in several places under different names."""
        found: dict[str, dict[str, Checkpoint]] = {}
        for file in sorted((self.path / "checkpoints").glob("*.json"), key=lambda f: f.stat().st_mtime_ns):
            checkpoint = Checkpoint(**_read_json(file))
            found.setdefault(file.stem.split("-")[0], {})[checkpoint.label] = checkpoint
        return {digest: list(named.values()) for digest, named in found.items()}

    def put_settings(self, settings: Settings) -> None:
        """Keep what a settings digest stands for."""
        path = self.path / "settings" / f"{settings.digest}.json"
        if not path.exists():
            write_whole(path, json.dumps(asdict(settings), indent=1).encode())
            self.__dict__.pop("settings", None)

    @cached_property
    def settings(self) -> dict[str, Settings]:
        """Settings by digest."""
        return {f.stem: Settings(**_read_json(f)) for f in (self.path / "settings").glob("*.json")}

    def put_task(self, task: Task) -> None:
        """Keep the documents of a task, with its name and how it is shown."""
        path = self.path / "tasks" / f"{task.fingerprint}.parquet"
        keys = ("name", "kind", "unconditional", "metric", "average", "about", "groups")
        meta = {key: getattr(task, key) for key in keys}
        columns = _task_columns(task)
        if not path.exists() or self._task_differs(path, columns, meta):
            write_table(path, columns, meta)
        self.__dict__.pop("task_meta", None)

    def _task_differs(self, path: Path, columns: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        try:
            table, old = self._read_table(path)
        except DamagedFile:
            return True
        return old != meta or table["attributes"].to_pylist() != columns["attributes"].to_pylist()

    @cached_property
    def task_meta(self) -> dict[str, dict[str, Any]]:
        """Name, kind, metric, average ... of tasks, by fingerprint."""
        return {f.stem: self._schema(f) for f in (self.path / "tasks").glob("*.parquet")}

    def docs(self, fingerprint: str) -> Docs:
        """Return the documents of a task."""
        if fingerprint not in self._docs:
            table, _ = self._read_table(self.path / "tasks" / f"{fingerprint}.parquet")
            self._docs[fingerprint] = Docs(table)
        return self._docs[fingerprint]

    @cached_property
    def _docs(self) -> dict[str, Docs]:
        return {}

    # --- files ---------------------------------------------------------------------------------------------------

    def _record(self, name: str) -> Path:
        return self.path / "records" / f"{name}.parquet"

    def _read_table(self, path: Path) -> tuple[pa.Table, dict[str, Any]]:
        try:
            table = pq.ParquetFile(path, page_checksum_verification=True).read()
            meta = _metadata(table.schema)
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise self._set_aside(path, str(error).splitlines()[0]) from error
        return table, meta

    def _schema(self, path: Path) -> dict[str, Any]:
        try:
            return _metadata(pq.read_schema(path))
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise self._set_aside(path, str(error).splitlines()[0]) from error

    def _set_aside(self, path: Path, why: str) -> DamagedFile:
        aside = self.path / "damaged" / path.name
        path.replace(aside)
        return DamagedFile(f"{path} is damaged ({why}); it was moved to {aside}: run harness eval again")


def _is_strange(name: str) -> bool:
    """Say whether a name is none that making a store leaves, finished, killed or under way in another process."""
    return name not in FOLDERS and not name.lstrip(".").startswith("store.json")


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
            self.is_gold[first + np.array(gold)] = True
        self.row_doc_ids = tuple(np.repeat(self.doc_ids, counts).tolist())

    @property
    def attributes(self) -> list[dict[str, Any]]:
        """Attributes of each document, such as digits."""
        return [json.loads(text) for text in self.table["attributes"].to_pylist()]


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
    }


def write_table(path: Path, columns: Mapping[str, Any], meta: Mapping[str, Any], temporary: Path | None = None) -> None:
    """Write columns as a Parquet file with checksums, whole or not at all."""
    table = pa.table(dict(columns))
    table = table.replace_schema_metadata({"harness": json.dumps({"schema": SCHEMA, **meta})})
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    write_whole(path, buffer.getvalue(), temporary=temporary)


def _metadata(schema: pa.Schema) -> dict[str, Any]:
    meta = json.loads((schema.metadata or {})[b"harness"])
    if meta.pop("schema") != SCHEMA:
        raise ValueError("another schema version")
    return dict(meta)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}; remove it and run harness eval again") from error
