"""Locks of cells: two processes never score the same cell; the lock of a killed process is released at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, BaseFileLock, FileLock, Timeout

from harness.errors import StoreError
from harness.files import how_to_write


class CellLock(FileLock):
    """A lock whose errors, except Timeout, are a StoreError."""

    def acquire(self, *args: Any, **kwargs: Any) -> AcquireReturnProxy[Any]:
        """Acquire the lock; raise StoreError if its file cannot be written."""
        try:
            return super().acquire(*args, **kwargs)
        except Timeout:
            raise
        except OSError as error:
            why = error.strerror or error
            raise StoreError(f"{self.lock_file} cannot be locked: {why}; {how_to_write(error)}") from error
        except NotImplementedError as error:
            raise StoreError(
                f"{self.lock_file} cannot be locked: {error}; choose a folder on a file system with locks"
            ) from error


def lock_of(store: Path, cell: str) -> BaseFileLock:
    """Return the lock of a cell of a store, not yet acquired; acquiring raises filelock.Timeout if it is held.

    The kernel releases it when its process dies.
    """
    folder = store / ".locks"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made: {error.strerror}; {how_to_write(error)}") from error
    return CellLock(folder / f"{cell}.lock", timeout=0)
