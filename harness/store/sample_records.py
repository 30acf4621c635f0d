"""The store with the samples of texts: parts on disk while they are drawn, and a seal when all are there.

    STORE/samples/CELL/0001.parquet ...    rows: doc (its number), sample, seed, text, n_tokens, finish, outcome, detail
    STORE/samples/CELL/seal.json           the cell is whole: provenance, the number of rows, the digest of each part

A part is written whole and never changed. Samples are numbered from 0 for every document, and sample i is the same
text whenever it is drawn, so a run that is killed goes on behind its last part and ends with the same numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.errors import DamagedFile
from harness.metrics.samples import Samples, counted
from harness.metrics.scores import Scores
from harness.store.identity import CellId
from harness.store.records import CELL_NAME, Store


@dataclass(frozen=True)
class Drawn:
    """One sample as it is kept: of document number `doc`, with what the checker said of it."""

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


def _folder(name: str) -> str:
    return f"samples/{name}"


def _seal(name: str) -> str:
    return f"samples/{name}/seal"


class SampleStore(Store):
    """A store whose cells hold scores or samples."""

    def cell_names(self) -> set[str]:
        """Return the names of all cells that are whole; opens no file."""
        sealed = (seal.parent.name for seal in (self.path / "samples").glob("*/seal.json"))
        return super().cell_names() | {name for name in sealed if CELL_NAME.fullmatch(name)}

    def has(self, cell: CellId) -> bool:
        """Say whether a cell is there and whole; two look-ups, opens no file."""
        return super().has(cell) or self._is_sealed(cell.name)

    def _is_sealed(self, name: str) -> bool:
        return self.files.json(_seal(name)).is_file()

    def parts(self, name: str) -> list[str]:
        """Return the names of the parts of a cell, in their order."""
        found = (self.path / _folder(name)).glob("*.parquet")
        return [f"{_folder(name)}/{file.stem}" for file in sorted(found) if PART_NAME.fullmatch(file.stem)]

    def add_samples(self, name: str, rows: Sequence[Drawn]) -> None:
        """Keep more samples of a cell, as a part; the caller holds its lock."""
        last = self.parts(name)[-1:]
        number = 1 + (int(Path(last[0]).name) if last else 0)
        columns = {column: [getattr(row, column) for row in rows] for column in COLUMNS}
        columns["text"] = pa.array(columns["text"], pa.string())
        self.files.write_table(f"{_folder(name)}/{number:04d}", columns, {})

    def seal_samples(self, name: str, provenance: Mapping[str, Any]) -> None:
        """Say that the samples of a cell are all there; the caller holds its lock."""
        parts = {Path(part).name: self.files.digest(part) for part in self.parts(name)}
        self.files.write_json(_seal(name), {**provenance, "parts": parts})

    def read_samples(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the samples of a cell as columns, in the order of their parts; empty where none is there.

        A damaged part is set aside, the seal is broken, and DamagedFile names it.
        """
        tables = list[pa.Table]()
        for part in self.parts(name):
            try:
                tables.append(self.files.read_table(part).table)
            except DamagedFile as error:
                raise self._unsealed(name, error) from error
        if not tables:
            return {}
        table = pa.concat_tables(tables)
        return {column: np.asarray(table[column].to_pandas()) for column in COLUMNS}

    def _unsealed(self, name: str, error: DamagedFile) -> DamagedFile:
        """Break the seal of a cell that lost a part, where damaged files are set aside; return the error."""
        seal = self.files.json(_seal(name))
        if self.files.sets_aside and seal.exists():
            self.files.damaged(seal, "a part is damaged")
        return error

    def provenance(self, name: str) -> dict[str, Any]:
        """Return how a cell came about: versions, device, counts."""
        return self._seal_of(name) if self._is_sealed(name) else super().provenance(name)

    def _seal_of(self, name: str) -> dict[str, Any]:
        return {key: value for key, value in self.files.read_json(_seal(name)).items() if key != "parts"}

    def check(self, name: str) -> None:
        """Read a cell whole; a damaged file is set aside and named by DamagedFile."""
        if self._is_sealed(name):
            self._sealed(name)
        else:
            super().check(name)

    def _sealed(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the samples of a whole cell, and what its seal says."""
        rows, sealed = self.read_samples(name), self.files.read_json(_seal(name))
        found = {Path(part).name: self.files.digest(part) for part in self.parts(name)} if "parts" in sealed else None
        if found != sealed.get("parts") or len(rows.get("doc", ())) != sealed.get("rows"):
            raise self.files.damaged(self.files.json(_seal(name)), "samples are missing, or are not those it sealed")
        return rows, sealed

    def is_sampled(self, cell: CellId) -> bool:
        """Say whether a cell holds texts that were drawn."""
        return bool(self.task_meta[cell.fingerprint]["kind"] == "generate")

    def load_samples(self, cell: CellId) -> Samples:
        """Return the samples of a whole cell, joined with its documents."""
        (rows, sealed), docs = self._sealed(cell.name), self.docs(cell.fingerprint)
        until = self.settings[cell.settings].sampling.get("successes")
        which, first = counted(rows, len(docs.doc_ids), until)
        truncated = np.zeros(len(docs.doc_ids), dtype=np.bool_)
        truncated[np.array(sealed.get("truncated", ()), dtype=np.int64)] = True
        return Samples(
            doc_ids=docs.doc_ids,
            first=first,
            outcome=rows["outcome"][which].astype(str),
            n_tokens=rows["n_tokens"][which].astype(np.int64),
            group=docs.group,
            clustered=self.task_meta[cell.fingerprint].get("groups") == "clusters",
            truncated=truncated,
            until=until,
        )

    def load_any(self, cell: CellId) -> Scores | Samples:
        """Return the scores of a cell, or its samples where texts were drawn."""
        return self.load_samples(cell) if self.is_sampled(cell) else self.load(cell)
