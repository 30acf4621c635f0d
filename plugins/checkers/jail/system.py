"""Functions of the C library that Python does not wrap."""

from __future__ import annotations

import ctypes
import os
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """Call a function of the C library; raise an OSError that names the function if it fails."""
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(getattr(LIBC, name)(*words))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
