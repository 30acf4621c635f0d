"""Memory of a process: its allocation on a CPU, set through glibc and Linux, and files that are read ahead.

Returning the pages of every large tensor to the system, and clearing new ones, takes a tenth of the time of a forward
pass. Other C libraries lack these functions; nothing is set there.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

PIECE = 2**24  # bytes of a file that are read at a time

MALLOC = {-1: 2**31 - 1, -3: 2**30}  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, in bytes


@lru_cache(maxsize=1)
def keep_freed() -> None:
    """Keep the memory of freed tensors in this process, in huge pages if Linux provides them."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it at its first large tensor
    for setting, size in MALLOC.items():
        _call("mallopt", setting, size)


def give_back() -> None:
    """Return free memory to the system."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    with suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)


def free_memory() -> int:
    """Return the bytes of memory that are to be had."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def read_through(file: Path, is_over: Callable[[], bool] = lambda: False) -> None:
    """Read a file to its end, so that the system holds it in memory; a mapped file is only read where it is used."""
    piece = bytearray(PIECE)
    with file.open("rb", buffering=0) as stream:
        while not is_over() and stream.readinto(piece):
            pass


class ReadAhead:
    """Reads files in the background, so that they are in memory when another process reads them."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.over = threading.Event()

    def read(self, files: Sequence[Path]) -> None:
        """Read files; what was being read before is left."""
        self.stop()
        self.over = over = threading.Event()
        self.thread = threading.Thread(target=_read_all, args=(files, over), name="read-ahead", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Read no more; return when the thread has ended."""
        self.over.set()
        if self.thread:
            self.thread.join()
        self.thread = None


def _read_all(files: Sequence[Path], over: threading.Event) -> None:
    with suppress(OSError):  # whoever needs the file reports what is wrong with it
        for file in files:
            read_through(file, over.is_set)
