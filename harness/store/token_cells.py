"""Log-probabilities of single tokens: one file tokens/CELL.parquet per cell, with one row per choice, where asked for.

Rows are those of records/CELL.parquet, in the same order: doc_id, choice, ids (token ids of the continuation) and
logprobs (nats, float32). The sum of a row is the log-probability of the record. The file is written before the records
of its cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.store.choice_cells import CELL_NAME, Records
from harness.store.files import StoreFiles, names_in
from harness.types import Floats, Ints

BYTES = 8  # of a token, before compression: its id and its log-probability
TOLERANCE = 1e-6  # of a sum, relative to 1 + |log-probability|: rounding to float32


@dataclass(frozen=True)
class Tokens:
    """The tokens of continuations: `ids` and `logprobs` (t,), and the number of tokens of each of m choices (m,)."""

    ids: Ints
    logprobs: Floats
    counts: Ints

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]], logprobs: Sequence[NDArray[Any]]) -> Tokens:
        """Join the tokens of choices."""
        counts = np.array([len(choice) for choice in ids], dtype=np.int64)
        return cls(
            np.fromiter((token for choice in ids for token in choice), np.int64, int(counts.sum())),
            np.concatenate([np.asarray(choice, dtype=np.float64) for choice in logprobs]),
            counts,
        )

    def differs(self, logprob: Floats, n_tokens: Ints) -> str:
        """Return how the tokens differ from the records (m,) of their choices; "" where they add up to them."""
        if not np.array_equal(self.counts, n_tokens):
            return "its numbers of tokens are not those of the records"
        if len(self.logprobs) != self.counts.sum() or (self.counts == 0).any():
            return f"it has {len(self.logprobs)} log-probabilities for {self.counts.sum()} tokens"
        sums = np.add.reduceat(self.logprobs, np.cumsum(self.counts) - self.counts)
        off = np.abs(sums - logprob) > TOLERANCE * (1 + np.abs(logprob))
        return "its log-probabilities do not add up to those of the records" if off.any() else ""


@dataclass(frozen=True)
class TokenCells:
    """The log-probabilities of tokens in a store, by the name of their cell."""

    files: StoreFiles

    def names(self) -> set[str]:
        """Return the names of the cells that have them; opens no file."""
        stems = names_in(self.files.path / "tokens", ".parquet")
        return {stem for stem in stems if CELL_NAME.fullmatch(stem)}

    def has(self, name: str) -> bool:
        """Return whether a cell has them; one look-up, opens no file."""
        return self.files.table(_file_of(name)).is_file()

    def check(self, name: str) -> None:
        """Verify all bytes of the tokens of a cell, if it has them; raises as `read` does."""
        if self.has(name):
            self.files.check_table(_file_of(name))

    def write(self, name: str, records: Records, tokens: Tokens) -> None:
        """Write the tokens of the records of a cell; the caller holds its lock."""
        ends = pa.array(np.append(0, np.cumsum(tokens.counts)), pa.int32())
        columns = {
            "doc_id": pa.array(records.doc_ids, pa.string()),
            "choice": pa.array(records.choices, pa.int16()),
            "ids": pa.ListArray.from_arrays(ends, pa.array(tokens.ids, pa.int32())),
            "logprobs": pa.ListArray.from_arrays(ends, pa.array(tokens.logprobs.astype(np.float32))),
        }
        self.files.write_table(_file_of(name), columns, {}, temporary=f".{name}.tmp")

    def read(self, name: str, records: Records) -> Tokens:
        """Return the tokens of a cell; raise DamagedFile, after setting it aside, where they are not its records'."""
        table = self.files.read_table(_file_of(name)).table
        ids, logprobs = (table[column].combine_chunks() for column in ("ids", "logprobs"))
        tokens = Tokens(
            ids.flatten().to_numpy().astype(np.int64),
            logprobs.flatten().to_numpy().astype(np.float64),
            np.asarray(ids.value_lengths().to_numpy(), dtype=np.int64),
        )
        if why := tokens.differs(records.logprob, records.n_tokens):
            raise self.files.damaged(self.files.table(_file_of(name)), why)
        return tokens


def _file_of(name: str) -> str:
    return f"tokens/{name}"
