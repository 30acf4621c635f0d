"""Write files whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from harness.errors import StoreError


def write_whole(path: Path, content: bytes, *, temporary: Path | None = None) -> None:
    """Write a file so that it is there completely or not at all, also after kill -9 or a full disk.

    `temporary` names the file that is written first; give one where a lock guards it, so that the next try
    overwrites what a killed one left. Raises StoreError where it cannot be written, and leaves nothing behind.
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
        raise StoreError(f"{path} cannot be written: {why}; make room or name another place") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # a folder that cannot be written to holds no such file


def digest_of(value: Any) -> str:
    """Return 64 bits, in hexadecimal, of the SHA-256 of a JSON value: enough to tell a million cells apart."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
