"""Cells of choices: one file records/CELL.parquet per cell, with one row per choice."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from harness.store.files import OLD, Content, StoreFiles, names_in
from harness.types import Bools, Floats, Ints
from harness.types.json import Json, JsonObject

CELL_NAME = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{16}){2}")


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
    provenance: JsonObject | None = None


@dataclass(frozen=True)
class ChoiceCells:
    """The cells of choices in a store, by name. Provenance is cached, so that no file is read twice for it."""

    files: StoreFiles
    known: dict[str, dict[str, Json]] = field(default_factory=dict, repr=False)

    def names(self) -> set[str]:
        """Return the names of all cells; opens no file."""
        return {name for name in names_in(self.files.path / "records", ".parquet") if CELL_NAME.fullmatch(name)}

    def has(self, name: str) -> bool:
        """Return whether a cell is in the store; one look-up, opens no file."""
        return self.files.table(file_of(name)).is_file()

    def write(self, name: str, records: Records) -> None:
        """Write the records of a cell; the caller holds its lock."""
        columns: dict[str, pa.Array] = {
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
        self.known.pop(name, None)
        self.files.write_table(file_of(name), columns, dict(records.provenance or {}), temporary=f".{name}.tmp")

    def read(self, name: str) -> Records:
        """Return the records of a cell; raise DamagedFile, after setting it aside, for a damaged file."""
        table, provenance = self.content(name)
        doc_ids = tuple(table["doc_id"].to_pylist())
        return Records(doc_ids=doc_ids, provenance=provenance, **columns_of(table))

    def check(self, name: str) -> None:
        """Verify all bytes and the name of a cell without decoding it; raises as `read` does."""
        if self.files.schema == OLD:
            self.content(name)
        else:
            self.files.check_table(file_of(name))

    def content(self, name: str) -> Content:
        """Return the table of a cell with its provenance; raises as `read` does."""
        content = self.files.read_table(file_of(name))
        self.known[name] = content.meta
        return content

    def provenance(self, name: str) -> dict[str, Json]:
        """Return the provenance of a cell: versions, device, counts."""
        if name not in self.known:
            self.content(name)
        return dict(self.known[name])


def file_of(name: str) -> str:
    """Return the name of the file of a cell."""
    return f"records/{name}"


class RecordColumns(TypedDict):
    """The columns of records except doc_id (m,), with the names that Records and Scores use."""

    choices: Ints
    n_tokens: Ints
    logprob: Floats
    truncated: Bools
    logprob_unconditional: NotRequired[Floats]
    is_greedy: NotRequired[Bools]


def columns_of(table: pa.Table) -> RecordColumns:
    """Return the columns of records except doc_id as arrays (m,)."""
    columns: RecordColumns = {
        "choices": table["choice"].to_numpy().astype(np.int64),
        "n_tokens": table["n_tokens"].to_numpy().astype(np.int64),
        "logprob": table["logprob"].to_numpy(),
        "truncated": table["truncated"].to_numpy(),
    }
    if "logprob_unconditional" in table.column_names:
        columns["logprob_unconditional"] = table["logprob_unconditional"].to_numpy()
    if "is_greedy" in table.column_names:
        columns["is_greedy"] = table["is_greedy"].to_numpy()
    return columns
