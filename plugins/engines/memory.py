"""The memory of a process that computes on a CPU, as far as glibc and Linux let it be set.

An allocator that gives the pages of every large tensor back, and gets and clears them again for the next one, takes a
tenth of the time of a forward pass. Other C libraries have none of these functions, and nothing is set.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import lru_cache

MALLOC = {-1: 2**31 - 1, -3: 2**30}  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, in bytes


@lru_cache(maxsize=1)
def keep_freed() -> None:
    """Let this process keep the memory that tensors free, in huge pages where Linux lends them."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it at its first large tensor
    for setting, size in MALLOC.items():
        _call("mallopt", setting, size)


def give_back() -> None:
    """Give the system what is free now."""
    _call("malloc_trim", 0)


def _call(name: str, *arguments: int) -> None:
    with suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*arguments)
