"""Read points from a store, or from a CSV or Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.errors import UsageError
from harness.host.registries import Registries
from harness.store.files import UNREADABLE
from harness.store.points import Read, open_store


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
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (*UNREADABLE, AttributeError, IndexError, MemoryError, OverflowError, RecursionError, SyntaxError) as error:
        raise UsageError(f"{path}: {error}; expected a store, or a CSV or Parquet table") from error
    twice = table.duplicated() if drop_duplicates else pd.Series(False, index=table.index)
    if not twice.any():
        return table, ()
    dropped = f"{int(twice.sum())} of {len(table)} rows are equal to others in every column and were dropped"
    return table[~twice].reset_index(drop=True), (dropped,)
