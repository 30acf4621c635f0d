"""The store: its cells, of choices and of generated text, with the names of checkpoints, settings and tasks (names.py).

    STORE/
      store.json                   the schema version
      records/CELL.parquet         rows: doc_id, choice, logprob (nats), n_tokens, truncated, and if available
                                   is_greedy, logprob_unconditional
      samples/CELL/                generated texts in numbered parts, and a seal when all are complete
      tokens/CELL.parquet          ids and log-probabilities of the tokens of each choice, if requested
      tasks/FINGERPRINT.parquet    doc_id, group, contexts, continuations, choices, n_chars, n_bytes, gold, attributes
      checkpoints/DIGEST-SOURCE.json   all attributes of a checkpoint, names included
      settings/DIGEST.json         engine, dtype, quantisation, bos, max_length, truncation, chat_template,
                                   system_prompt, adapter, sampling
      points/NAME.parquet, .json   imported points, with their origin (harness/store/imported.py)
      damaged/                     damaged files, under their original path

CELL is CHECKPOINT-FINGERPRINT-SETTINGS, which are three digests, so listing the store opens no file. Names are stored
in tasks/ and checkpoints/ only and are joined when records are read. Plain text is one row whose choice is 0. Every
file contains its name (the path above without suffix) and a digest of all its bytes; every read verifies both
(harness/store/files.py). Files with other names in these folders are not read; `harness check` lists them.

Files of schema 1 (version 0.1) contain neither names nor digests. Such stores can be read but not extended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import BaseFileLock

from harness.errors import StoreError
from harness.metrics.samples import SampleColumns, Samples, counted
from harness.metrics.scores import Scores
from harness.metrics.stacks import Stack
from harness.store.choice_cells import ChoiceCells, Records, file_of
from harness.store.files import AGAIN
from harness.store.identity import CellId, Settings
from harness.store.locks import lock_of
from harness.store.names import NamedStore
from harness.store.sample_cells import SampleCells
from harness.store.stacks import stacked
from harness.store.token_cells import TokenCells, Tokens
from harness.types import Checkpoint
from harness.types.json import Json


@dataclass(frozen=True)
class Cell:
    """A cell in the store, with the names of its checkpoint, task and settings."""

    id: CellId
    checkpoint: Checkpoint
    task: str
    settings: Settings


class Store(NamedStore):
    """A folder with cells of choices and cells of generated text. Open one with `harness.open_store`."""

    def __init__(self, path: str | Path, *, create: bool = False, sets_aside: bool = True) -> None:
        """Open a store. `create` makes or repairs its folders first; `sets_aside` moves damaged files when read."""
        super().__init__(path, create=create, sets_aside=sets_aside)
        self.choice_cells, self.sample_cells = ChoiceCells(self.files), SampleCells(self.files)
        self.token_cells = TokenCells(self.files)

    def cell_names(self) -> set[str]:
        """Return the names of all complete cells; opens no file."""
        return self.choice_cells.names() | self.sample_cells.names()

    def has(self, cell: CellId, *, tokens: bool = False) -> bool:
        """Return whether a cell is in the store and complete; at most three look-ups, opens no file.

        With `tokens`, a cell of choices is complete if it has the log-probabilities of its tokens, too.
        """
        if self.choice_cells.has(cell.name):
            return not tokens or self.token_cells.has(cell.name)
        return self.sample_cells.has(cell.name)

    def lock(self, cell: CellId) -> BaseFileLock:
        """Return the lock of a cell; the kernel frees it when its process dies."""
        return lock_of(self.path, cell.name)

    def write(self, cell: CellId, records: Records, tokens: Tokens | None = None) -> None:
        """Write the records of a cell, after their tokens if there are any; the caller holds its lock."""
        if tokens is not None:
            self.token_cells.write(cell.name, records, tokens)
        self.choice_cells.write(cell.name, records)

    def read_tokens(self, name: str) -> Tokens:
        """Return the tokens of a cell; raise StoreError where there are none, DamagedFile for a damaged file."""
        return self.token_cells.read(name, self.choice_cells.read(name))

    def read(self, name: str) -> Records:
        """Return the records of a cell; raise DamagedFile, after setting it aside, for a damaged file."""
        return self.choice_cells.read(name)

    def read_samples(self, name: str) -> SampleColumns:
        """Return the samples of a cell as columns, complete or not; empty if there are none."""
        return self.sample_cells.read(name)

    def provenance(self, name: str) -> dict[str, Json]:
        """Return the provenance of a cell: versions, device, counts."""
        return (self.sample_cells if self.sample_cells.has(name) else self.choice_cells).provenance(name)

    def check(self, name: str) -> None:
        """Verify all bytes of a cell; raise DamagedFile, after setting it aside, for a damaged file."""
        if self.sample_cells.has(name):
            self.sample_cells.read_sealed(name)
        else:
            self.choice_cells.check(name)
            self.token_cells.check(name)

    def cells(self) -> list[Cell]:
        """Return all cells with their names; raise StoreError if a file with the name of one is missing."""
        cells = []
        for cell in map(CellId.of, sorted(self.cell_names())):
            if not self._has_names(cell):
                self._expect_names(cell)
            task, settings = self.task_meta[cell.fingerprint]["name"], self.settings[cell.settings]
            cells += [Cell(cell, checkpoint, task, settings) for checkpoint in self.checkpoints[cell.checkpoint]]
        return cells

    def _has_names(self, cell: CellId) -> bool:
        return (
            cell.fingerprint in self.task_meta
            and cell.settings in self.settings
            and cell.checkpoint in self.checkpoints
        )

    def _named(self, cell: CellId) -> dict[str, bool]:
        """Return, for each file with a name of the cell, whether it is known."""
        return {
            f"tasks/{cell.fingerprint}.parquet": cell.fingerprint in self.task_meta,
            f"settings/{cell.settings}.json": cell.settings in self.settings,
            f"checkpoints/{cell.checkpoint}-*.json": cell.checkpoint in self.checkpoints,
        }

    def _expect_names(self, cell: CellId) -> None:
        lost = [str(self.path / path) for path, is_there in self._named(cell).items() if not is_there]
        if lost:  # another process may have written the cell, with its names, after this store was opened
            for cached in ("task_meta", "settings", "checkpoints"):
                self.__dict__.pop(cached, None)
            lost = [str(self.path / path) for path, is_there in self._named(cell).items() if not is_there]
        if lost:
            raise StoreError(f"{lost[0]} is missing, which the cell {cell.name} needs; {AGAIN}, or remove the cell")

    def lost(self) -> list[Path]:
        """Return the paths, within the store, of files that were set aside and not written again."""
        aside = self.path / "damaged"
        paths = (path.relative_to(aside) for path in aside.rglob("*") if not path.is_dir())
        return sorted(path for path in paths if path.parent.name and not (self.path / path).exists())

    def is_sampled(self, cell: CellId) -> bool:
        """Return whether a cell has generated text."""
        return bool(self.task_meta[cell.fingerprint]["kind"] == "generate")

    def load_any(self, cell: CellId) -> Scores | Samples:
        """Return the samples of a cell with generated text, else its scores."""
        return self.load_samples(cell) if self.is_sampled(cell) else self.load(cell)

    def load_samples(self, cell: CellId) -> Samples:
        """Return the samples of a complete cell, joined with its documents."""
        (rows, seal), docs = self.sample_cells.read_sealed(cell.name), self.docs(cell.fingerprint)
        until = _whole(self.settings[cell.settings].sampling.get("successes"))
        which, first = counted(rows, len(docs.doc_ids), until)
        truncated = np.zeros(len(docs.doc_ids), dtype=np.bool_)
        truncated[np.array(seal.get("truncated") or (), dtype=np.int64)] = True
        texts = rows["text"][which]
        return Samples(
            doc_ids=docs.doc_ids,
            first=first,
            outcome=rows["outcome"][which].astype(str),
            n_tokens=rows["n_tokens"][which].astype(np.int64),
            group=docs.group,
            clustered=self.task_meta[cell.fingerprint].get("groups") == "clusters",
            truncated=truncated,
            until=until,
            texts=texts.astype(object) if all(isinstance(text, str) for text in texts) else None,
            references=docs.references,
        )

    def load(self, cell: CellId) -> Scores:
        """Return the scores of a cell, joined with its documents."""
        return stacked([self._records(cell)], self.docs(cell.fingerprint), self.task_meta[cell.fingerprint]).scores

    def load_stack(self, cells: Sequence[CellId]) -> Stack | None:
        """Return the scores of cells of one task as one; None where they do not offer the same."""
        tables = [self._records(cell) for cell in cells]
        if any(table.column_names != tables[0].column_names for table in tables):
            return None
        fingerprint = cells[0].fingerprint
        stack = stacked(tables, self.docs(fingerprint), self.task_meta[fingerprint])
        return stack if "token_counts" in stack.scores.offers else None  # some cells may have all of theirs

    def _records(self, cell: CellId) -> pa.Table:
        """Return the table of a cell, whose documents are those of its task."""
        table = self.choice_cells.content(cell.name).table
        if not table["doc_id"].combine_chunks().equals(self.docs(cell.fingerprint).row_doc_ids):
            path = self.files.table(file_of(cell.name))
            raise self.files.damaged(path, "its documents are not those of its task")
        return table


def _whole(value: Json) -> int | None:
    return value if isinstance(value, int) else None
