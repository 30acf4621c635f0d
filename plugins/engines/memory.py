"""Memory allocation of a process that computes on a CPU, set through glibc and Linux.

Returning the pages of every large tensor to the system, and clearing new ones, takes a tenth of the time of a forward
pass. Other C libraries lack these functions; nothing is set there.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import lru_cache

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
