"""Messages between referee and player: length-prefixed JSON of plain values and numbers of objects."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

LONGEST = 64 << 20  # bytes of a message


class WireError(Exception):
    """The other process has ended, or its message is invalid."""


def write_message(fd: int, message: Any) -> None:
    """Write a JSON value."""
    data = json.dumps(message).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def read_message(fd: int) -> Any:
    """Read exactly one JSON value; raise WireError if the other process has ended or its message is invalid."""
    (length,) = struct.unpack(">I", _read(fd, 4))
    if length > LONGEST:
        raise WireError(f"a message of {length} bytes")
    try:
        return json.loads(_read(fd, length))
    except ValueError as error:
        raise WireError(f"the message is not JSON: {error}") from error


def _read(fd: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.read(fd, min(length, 1 << 20))
        if not part:
            raise WireError("the other process has ended")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
