"""Locks of cells: two processes never score the same cell; the lock of a killed process is released at once."""

from __future__ import annotations

from pathlib import Path

from filelock import BaseFileLock, FileLock


def lock_of(store: Path, cell: str) -> BaseFileLock:
    """Return the lock of a cell of a store, not yet acquired; acquiring raises filelock.Timeout if it is held.

    The kernel releases it when its process dies.
    """
    folder = store / ".locks"
    folder.mkdir(exist_ok=True)
    return FileLock(folder / f"{cell}.lock", timeout=0)
