"""Read points from a store, or from a CSV or Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.errors import UsageError, choose
from harness.host.registries import Registries
from harness.store.files import UNREADABLE
from harness.store.points import Read, open_store

OTHERS = {".xlsx", ".xls", ".ods", ".json", ".jsonl"}  # formats of tables that are not read
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_points(
    path: Path,
    task: str | None,
    metrics: Sequence[str | None],
    registries: Registries,
    *,
    drop_duplicates: bool = False,
) -> Read:
    """Read the points of a store or of a CSV or Parquet file.

    The first of `metrics` must apply to the task of a store; others are omitted if they do not apply. `drop_duplicates`
    keeps one of equal rows of a file; a store has none.
    """
    if path.is_dir():
        store = open_store(path, registries=registries)
        return store.read_task(task, metrics)
    table, notes = read_table(path, drop_duplicates=drop_duplicates)
    if task and "task" in table.columns:
        table = table[table["task"] == task]
    return Read(table, notes=notes)


def read_table(path: Path, *, drop_duplicates: bool = False) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a CSV or Parquet table with notes; `drop_duplicates` keeps one of rows equal in every column.

    Raises UsageError for any other file.
    """
    if path.suffix.lower() in OTHERS:
        raise UsageError(f"{path}: expected a store, or a CSV or Parquet table; save it as one of these")
    try:
        table = _with_index(pd.read_parquet(path)) if path.suffix == ".parquet" else _of_text(path)
    except (*UNREADABLE, AttributeError, IndexError, MemoryError, OverflowError, RecursionError, SyntaxError) as error:
        raise UsageError(f"{path}: {error}; expected a store, or a CSV or Parquet table") from error
    table = _stripped(table, path)
    twice = table.duplicated() if drop_duplicates else pd.Series(False, index=table.index)
    if not twice.any():
        return table, ()
    dropped = f"{int(twice.sum())} of {len(table)} rows are equal to others in every column and were dropped"
    return table[~twice].reset_index(drop=True), (dropped,)


def _with_index(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the named levels of its index as columns."""
    return table.reset_index() if any(table.index.names) else table


def _of_text(path: Path) -> pd.DataFrame:
    """Return a table of text with commas, or with tabs where the name of its file says so; refuse other separators."""
    is_tsv = ".tsv" in path.suffixes
    table = pd.read_csv(path, sep="\t" if is_tsv else ",")
    name = str(table.columns[0]) if len(table.columns) == 1 else ""
    separator = next((sign for sign in SEPARATORS if sign in name and not is_tsv), None)
    if separator:
        raise UsageError(
            f"{path} has a single column, {name[:60]!r}: its columns are separated by {SEPARATORS[separator]}; "
            "expected commas (and decimal points), or tabs in a file named .tsv"
        )
    return table


def _stripped(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a table without spaces around the names of its columns; raise UsageError if two become equal."""
    names = [name.strip() if isinstance(name, str) else name for name in table.columns]
    twice = {str(name) for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{path} has several columns named {choose(twice)}; rename them")
    return table.set_axis(names, axis=1)
