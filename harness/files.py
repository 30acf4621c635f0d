"""Atomic writes of files, and digests of values."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from harness.errors import StoreError


def write_whole(path: Path, content: bytes, *, temporary: Path | None = None) -> None:
    """Write a file atomically: it is complete or absent, also after kill -9 or on a full disk.

    `temporary` is the file written first. Pass a fixed name if a lock guards it, so that the next write overwrites the
    rest of a killed one. Raises StoreError, and leaves no file, if it cannot be written.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        _remove(temporary)
        why = error.strerror or error
        raise StoreError(f"{path} cannot be written: {why}; free disk space or choose another folder") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # an unwritable folder has no such file


def digest_of(value: Any) -> str:
    """Return 64 bits, in hexadecimal, of the SHA-256 of a JSON value: enough to identify a million cells."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
