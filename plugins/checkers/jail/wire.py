"""Messages between referee and player: JSON behind its length, in which values are plain ones or name an object."""

from __future__ import annotations

import builtins
import json
import os
import struct
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from numbers import Number
from typing import Any

LONGEST = 64 << 20  # bytes of a message
LISTS: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
TEXTS: dict[str, Callable[[Any], Any]] = {"complex": complex, "Fraction": Fraction, "Decimal": Decimal}
TYPES = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type)}


class WireError(Exception):
    """The other side is gone, or said what cannot be understood."""


def write_message(fd: int, message: Any) -> None:
    """Write a JSON value."""
    data = json.dumps(message).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def read_message(fd: int) -> Any:
    """Read a JSON value, and not a byte more; raise WireError where the other side is gone or makes no sense."""
    (length,) = struct.unpack(">I", _read(fd, 4))
    if length > LONGEST:
        raise WireError(f"a message of {length} bytes")
    try:
        return json.loads(_read(fd, length))
    except ValueError as error:
        raise WireError(f"no JSON: {error}") from error


def _read(fd: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.read(fd, min(length, 1 << 20))
        if not part:
            raise WireError("it is gone")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def encode(value: Any, name: Callable[[Any], int]) -> Any:
    """Return a value as JSON; what is not plain becomes ["object", name(value)]."""
    if isinstance(value, int) and value.bit_length() > 64:
        return ["int", hex(value)]  # which has no limit of digits
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    for kind, content in CONTENTS.items():
        if isinstance(value, kind):
            return [kind.__name__, content(value, lambda item: encode(item, name))]
    if isinstance(value, type) and value in TYPES.values():
        return ["type", value.__name__]
    if isinstance(value, Number) and hasattr(value, "item"):  # a number of numpy
        return encode(value.item(), name)
    return ["object", name(value)]


CONTENTS: dict[type, Callable[[Any, Callable[[Any], Any]], Any]] = {
    dict: lambda value, inner: [[inner(k), inner(v)] for k, v in value.items()],
    **dict.fromkeys((list, tuple, set, frozenset), lambda value, inner: [inner(item) for item in value]),
    **dict.fromkeys((bytes, bytearray), lambda value, _: value.hex()),
    **dict.fromkeys((complex, Fraction, Decimal), lambda value, _: str(value)),
    range: lambda value, _: [value.start, value.stop, value.step],
}


def decode(message: Any, look_up: Callable[[int], Any]) -> Any:
    """Return the value; raise WireError where it is none."""
    if not isinstance(message, list):
        return message
    try:
        kind, content = message
        if kind in LISTS:
            return LISTS[kind](decode(item, look_up) for item in content)
        if kind in TEXTS:
            return TEXTS[kind](content)
        return _OTHERS[kind](content, look_up)
    except WireError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise WireError(f"no value: {error}") from error


_OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "int": lambda content, _: int(content, 16),
    "dict": lambda content, look_up: {decode(k, look_up): decode(v, look_up) for k, v in content},
    "bytes": lambda content, _: bytes.fromhex(content),
    "bytearray": lambda content, _: bytearray.fromhex(content),
    "range": lambda content, _: range(*content),
    "type": lambda content, _: TYPES[content],
    "object": lambda content, look_up: look_up(content),
}
