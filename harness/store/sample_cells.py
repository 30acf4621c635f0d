"""Cells of generated text: numbered parts while samples are drawn, and a seal when all are stored.

    STORE/samples/CELL/0001.parquet ...    rows: doc (its number), sample, seed, text, n_tokens, finish, outcome, detail
    STORE/samples/CELL/seal.json           the cell is complete: provenance, number of rows, digest of each part

A part is written whole and never changed. Samples of a document are numbered from 0, and sample i has the same text
whenever it is drawn. A run that was killed therefore continues after its last part and gives the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from harness.errors import DamagedFile
from harness.metrics.samples import SampleColumns
from harness.store.choice_cells import CELL_NAME
from harness.store.files import StoreFiles, names_in
from harness.types.json import Json, JsonObject


@dataclass(frozen=True)
class Drawn:
    """One stored sample of document number `doc`, with the outcome and detail of its checker."""

    doc: int
    sample: int
    seed: int
    text: str | None
    n_tokens: int
    finish: str
    outcome: str
    detail: str = ""


COLUMNS = tuple(f.name for f in fields(Drawn))
PART_NAME = re.compile(r"\d{4,}")


class Sealed(NamedTuple):
    """The samples of a complete cell as columns, and the content of its seal."""

    rows: SampleColumns
    seal: dict[str, Json]


@dataclass(frozen=True)
class SampleCells:
    """The cells of generated text in a store, by name."""

    files: StoreFiles

    def names(self) -> set[str]:
        """Return the names of all complete cells; opens no file."""
        named = filter(CELL_NAME.fullmatch, names_in(self.files.path / "samples"))
        return {name for name in named if self.has(name)}

    def has(self, name: str) -> bool:
        """Return whether a cell is complete; one look-up, opens no file."""
        return self.files.json(_seal(name)).is_file()

    def parts(self, name: str) -> list[str]:
        """Return the names of the parts of a cell, in order."""
        names = names_in(self.files.path / _folder(name), ".parquet")
        return [f"{_folder(name)}/{part}" for part in sorted(names) if PART_NAME.fullmatch(part)]

    def add(self, name: str, rows: Sequence[Drawn]) -> None:
        """Write more samples of a cell as a part; the caller holds its lock."""
        last = self.parts(name)[-1:]
        number = 1 + (int(Path(last[0]).name) if last else 0)
        values = {column: [getattr(row, column) for row in rows] for column in COLUMNS}
        columns = {
            column: pa.array(entries, pa.string() if column == "text" else None) for column, entries in values.items()
        }
        self.files.write_table(f"{_folder(name)}/{number:04d}", columns, {})

    def seal(self, name: str, provenance: JsonObject) -> None:
        """Mark a cell as complete; the caller holds its lock."""
        self.files.write_json(_seal(name), {**provenance, "parts": self._digests(name)})

    def read(self, name: str) -> SampleColumns:
        """Return the samples of a cell as columns, in the order of their parts; empty if there are none.

        A damaged part is set aside, the cell is no longer complete, and DamagedFile names the part.
        """
        tables = list[pa.Table]()
        for part in self.parts(name):
            try:
                tables.append(self.files.read_table(part).table)
            except DamagedFile:
                self._break_seal(name)
                raise
        if not tables:
            return {}
        return _columns(pa.concat_tables(tables))

    def _break_seal(self, name: str) -> None:
        """Set the seal of a cell with a damaged part aside, if damaged files are set aside."""
        seal = self.files.json(_seal(name))
        if self.files.sets_aside and seal.exists():
            self.files.damaged(seal, "a part is damaged")

    def provenance(self, name: str) -> dict[str, Json]:
        """Return the provenance of a complete cell: versions, device, counts."""
        return {key: value for key, value in self.files.read_json(_seal(name)).items() if key != "parts"}

    def read_sealed(self, name: str) -> Sealed:
        """Return the samples of a complete cell with its seal; raise DamagedFile unless they agree."""
        rows, seal = self.read(name), self.files.read_json(_seal(name))
        digests = self._digests(name) if "parts" in seal else None
        if digests != seal.get("parts") or len(rows.get("doc", ())) != seal.get("rows"):
            raise self.files.damaged(
                self.files.json(_seal(name)), "its samples are missing or differ from the sealed ones"
            )
        return Sealed(rows, seal)

    def _digests(self, name: str) -> dict[str, str]:
        return {Path(part).name: self.files.digest(part) for part in self.parts(name)}


def _columns(table: pa.Table) -> SampleColumns:
    doc, sample, seed, n_tokens = (table[name].to_pandas() for name in ("doc", "sample", "seed", "n_tokens"))
    text, finish, outcome, detail = (table[name].to_pandas() for name in ("text", "finish", "outcome", "detail"))
    return {
        "doc": np.asarray(doc),
        "sample": np.asarray(sample),
        "seed": np.asarray(seed),
        "text": np.asarray(text),
        "n_tokens": np.asarray(n_tokens),
        "finish": np.asarray(finish),
        "outcome": np.asarray(outcome),
        "detail": np.asarray(detail),
    }


def _folder(name: str) -> str:
    return f"samples/{name}"


def _seal(name: str) -> str:
    return f"samples/{name}/seal"
