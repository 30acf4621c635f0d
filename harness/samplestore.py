"""The store with the samples of texts: parts on disk while they are drawn, and a seal when all are there.

    STORE/samples/CELL/0001.parquet ...    rows: doc (its number), sample, seed, text, n_tokens, finish, outcome, detail
    STORE/samples/CELL/seal.json           the cell is whole: provenance, and the number of rows

A part is written whole and never changed. Samples are numbered from 0 for every document, and sample i is the same
text whenever it is drawn, so a run that is killed goes on behind its last part and ends with the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.errors import DamagedFile
from harness.files import write_whole
from harness.identity import CellId
from harness.records import Store, write_table
from harness.samples import Samples, counted
from harness.scores import Scores


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


class SampleStore(Store):
    """A store whose cells hold scores or samples."""

    def cell_names(self) -> set[str]:
        """Return the names of all cells that are whole; opens no file."""
        return super().cell_names() | {seal.parent.name for seal in (self.path / "samples").glob("*/seal.json")}

    def _folder(self, name: str) -> Path:
        return self.path / "samples" / name

    def _seal(self, name: str) -> Path:
        return self._folder(name) / "seal.json"

    def _parts(self, name: str) -> list[Path]:
        return sorted(self._folder(name).glob("[0-9]*.parquet"))

    def add_samples(self, name: str, rows: Sequence[Drawn]) -> None:
        """Keep more samples of a cell, as a part; the caller holds its lock."""
        self._folder(name).mkdir(parents=True, exist_ok=True)
        last = self._parts(name)[-1:]
        number = 1 + (int(last[0].stem) if last else 0)
        columns = {column: [getattr(row, column) for row in rows] for column in COLUMNS}
        columns["text"] = pa.array(columns["text"], pa.string())
        write_table(self._folder(name) / f"{number:04d}.parquet", columns, {})

    def seal_samples(self, name: str, provenance: Mapping[str, Any]) -> None:
        """Say that the samples of a cell are all there; the caller holds its lock."""
        write_whole(self._seal(name), json.dumps(provenance, indent=1).encode())

    def read_samples(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the samples of a cell as columns, in the order of their parts; empty where none is there.

        A damaged part is set aside, the seal is broken, and DamagedFile names it.
        """
        tables = list[pa.Table]()
        for path in self._parts(name):
            try:
                tables.append(self._read_table(path)[0])
            except DamagedFile:
                self._seal(name).unlink(missing_ok=True)
                raise
        if not tables:
            return {}
        table = pa.concat_tables(tables)
        return {column: np.asarray(table[column].to_pandas()) for column in COLUMNS}

    def provenance(self, name: str) -> dict[str, Any]:
        """Return how a cell came about: versions, device, counts."""
        seal = self._seal(name)
        if not seal.exists():
            return super().provenance(name)
        try:
            return dict(json.loads(seal.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise self._set_aside(seal, str(error)) from error

    def check(self, name: str) -> None:
        """Read a cell whole; a damaged file is set aside and named by DamagedFile."""
        if self._seal(name).exists():
            self._sealed(name)
        else:
            super().check(name)

    def _sealed(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the samples of a whole cell, and what its seal says."""
        rows, sealed = self.read_samples(name), self.provenance(name)
        if len(rows.get("doc", ())) != sealed.get("rows"):
            raise self._set_aside(self._seal(name), "samples are missing")
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
