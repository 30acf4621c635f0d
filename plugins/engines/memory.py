"""Memory allocation of a process on a CPU, set through glibc and Linux, and files that are read in advance.

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
RAN_OUT = (  # what PyTorch and vLLM say, in lower case
    "out of memory",
    "can't allocate memory",
    "cublas_status_alloc_failed",
    "available memory on node",
    "free memory on device",
)

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


def empty_pinned() -> None:
    """Free the pinned memory that PyTorch keeps for further copies; prefetched weights leave as much as a model has."""
    import torch

    accelerator = getattr(torch, "accelerator", None)
    empty = getattr(accelerator, "empty_host_cache", None)  # older versions have none
    if empty:
        with suppress(RuntimeError):  # without a GPU there is none to free
            empty()


def ran_out(error: BaseException | str) -> bool:
    """Return whether an error, or its text, says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in RAN_OUT)


def _call(name: str, *arguments: int) -> None:
    with suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)


def free_memory() -> int:
    """Return the available memory in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def read_through(file: Path, is_over: Callable[[], bool] = lambda: False) -> None:
    """Read a file into the operating system's cache; a mapped file would be read only when it is used."""
    piece = bytearray(PIECE)
    with file.open("rb", buffering=0) as stream:
        while not is_over() and stream.readinto(piece):
            pass


class ReadAhead:
    """Read files into the operating system's cache in the background, for another process."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.over = threading.Event()

    def read(self, files: Sequence[Path]) -> None:
        """Start to read files; an earlier read is cancelled."""
        self.stop()
        self.over = over = threading.Event()
        self.thread = threading.Thread(target=_read_all, args=(files, over), name="read-ahead", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Cancel reading, and wait for the thread."""
        self.over.set()
        if self.thread:
            self.thread.join()
        self.thread = None


def _read_all(files: Sequence[Path], over: threading.Event) -> None:
    with suppress(OSError):  # the process that loads the file reports the error
        for file in files:
            read_through(file, over.is_set)
