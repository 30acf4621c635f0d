"""Encode values as JSON.

Plain values keep their type. Containers keep their identity, so that shared containers stay shared. All other objects
are sent as a number.

The receiver rebuilds a value only from types of Python, its standard library and numpy. Therefore the sender cannot
influence how values are called or compared.
"""

from __future__ import annotations

import builtins
import datetime
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from .wire import WireError

Code = Callable[[Any], Any]
TYPES = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type)}
REMADE: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Decimal, Fraction, datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone,
    )
}  # fmt: skip
NUMERIC = re.compile(r"[<>|=][biufcmMSU][1-9][0-9]*(\[[0-9a-zA-Z]+\])?")  # numpy dtypes without pointers
VIEWS: dict[str, Any] = {"dict_keys": type({}.keys()), "dict_items": type({}.items())}
NUMPY: Any = ("scalar", "array")


@dataclass(frozen=True)
class Container:
    """Functions of one mutable type: make a value from its header, replace its items, list its items."""

    make: Callable[[Any], Any]
    fill: Callable[[Any, Any], None]
    items: Callable[[Any], Iterable[Any]]
    header: Code = lambda _: None


def _dict(make: Callable[[Any], Any], header: Code = lambda _: None) -> Container:
    return Container(make, _refill_dict, lambda value: value.items(), header)


def _refill_dict(value: Any, items: Any) -> None:
    pairs = [(key, item) for key, item in items]
    value.clear()
    for key, item in pairs:
        value[key] = item


def _refill_slice(value: Any, items: Any) -> None:
    value[:] = items


def _refill(value: Any, items: Any) -> None:
    value.clear()
    (value.update if isinstance(value, set) else value.extend)(items)


CONTAINERS: dict[type, Container] = {
    list: Container(lambda _: [], _refill_slice, list.__iter__),
    Counter: _dict(lambda _: Counter()),
    defaultdict: _dict(defaultdict, lambda value: value.default_factory),
    OrderedDict: _dict(lambda _: OrderedDict()),
    dict: _dict(lambda _: {}),
    set: Container(lambda _: set(), _refill, set.__iter__),
    deque: Container(lambda longest: deque(maxlen=longest), _refill, deque.__iter__, lambda value: value.maxlen),
    bytearray: Container(lambda _: bytearray(), _refill_slice, bytearray.__iter__),
}
NAMES = {kind.__name__: kind for kind in CONTAINERS}


def _of_parts(kind: Any) -> Callable[[list[Any]], Any]:
    return lambda parts: kind(*parts)


FIXED: dict[type, Callable[[Any], Iterable[Any]]] = {
    **{kind: kind.__iter__ for kind in (tuple, frozenset)},
    **dict.fromkeys(VIEWS.values(), list),
    complex: lambda value: (value.real, value.imag),
    range: lambda value: (value.start, value.stop, value.step),
}
MADE: Mapping[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "frozenset": frozenset,
    "dict_keys": lambda items: dict.fromkeys(items).keys(),
    "dict_items": lambda items: dict(items).items(),
    "complex": _of_parts(complex),
    "range": _of_parts(range),
    **{name: _of_parts(kind) for name, kind in REMADE.items()},
}


class Encoder:
    """Turn values into JSON; `shared` are the containers that both sides know, by number."""

    def __init__(self, name: Callable[[Any], int], shared: Iterable[Any] = ()) -> None:
        self.name = name
        self.shared = list(shared)
        self.numbers = {id(value): number for number, value in enumerate(self.shared)}

    def encode(self, value: Any) -> Any:
        """Return a value as JSON; an object that is not plain becomes ["object", its number]."""
        if value is None or type(value) in {bool, float, str}:
            return value
        if (numpy := sys.modules.get("numpy")) and isinstance(value, (numpy.generic, numpy.ndarray)):
            return self._numpy(value, type(value) is numpy.ndarray)
        if isinstance(value, int):
            return value if value.bit_length() <= 64 else ["int", hex(value)]  # hexadecimal has no limit on digits
        if isinstance(value, (float, str)):
            return value
        return self._compound(value)

    def _compound(self, value: Any) -> Any:
        for kind in CONTAINERS:
            if isinstance(value, kind):
                return self._container(value, kind)
        for kind, items in FIXED.items():
            if isinstance(value, kind):
                return [kind.__name__, [self.encode(item) for item in items(value)]]
        if isinstance(value, bytes):
            return ["bytes", value.hex()]
        if isinstance(value, type) and value in TYPES.values():
            return ["type", value.__name__]
        if type(value) in REMADE.values():
            return [type(value).__name__, [self.encode(part) for part in value.__reduce__()[1]]]
        return ["object", self.name(value)]

    def _container(self, value: Any, kind: type) -> Any:
        if (known := self._known(value)) is not None:
            return known
        return [kind.__name__, self.encode(CONTAINERS[kind].header(value)), self.contents(value)]

    def _known(self, value: Any) -> Any:
        """Return the reference to a container that was sent before; number a new one and return None."""
        if id(value) in self.numbers:
            return ["shared", self.numbers[id(value)]]
        self.numbers[id(value)] = len(self.shared)
        self.shared.append(value)
        return None

    def contents(self, value: Any) -> Any:
        """Return the items of a container."""
        for kind, container in CONTAINERS.items():
            if isinstance(value, kind):
                items = container.items(value)
                if isinstance(value, dict):
                    return [[self.encode(key), self.encode(item)] for key, item in items]
                return [self.encode(item) for item in items]
        return value.tobytes().hex()

    def _numpy(self, value: Any, is_array: bool) -> Any:
        if value.dtype.kind in "SU" and not is_array:
            return self.encode(value.item())
        if not NUMERIC.fullmatch(value.dtype.str):
            return ["object", self.name(value)]
        if is_array and (known := self._known(value)) is not None:
            return known
        header = [value.dtype.str, list(value.shape)]
        return ["array" if is_array else "scalar", header, value.tobytes().hex()]


class Decoder:
    """Turn JSON into values; `look_up` returns the object of a number."""

    def __init__(self, look_up: Callable[[int], Any], shared: Iterable[Any] = ()) -> None:
        self.look_up = look_up
        self.shared = list(shared)

    def decode(self, message: Any) -> Any:
        """Return the value; raise WireError if the message does not encode one."""
        if not isinstance(message, list):
            return message
        try:
            return self._compound(*message)
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, AttributeError, ImportError) as error:
            raise WireError(f"no value: {error}") from error

    def _compound(self, kind: str, content: Any, items: Any = None) -> Any:
        if kind in NAMES:
            value = CONTAINERS[NAMES[kind]].make(self.decode(content))
            self.shared.append(value)
            self.fill(value, items)
            return value
        if kind in MADE:
            return MADE[kind]([self.decode(item) for item in content])
        if kind in NUMPY:
            return self._numpy(kind, content, items)
        return _OTHERS[kind](content, self)

    def fill(self, value: Any, items: Any) -> None:
        """Replace the contents of a container."""
        for kind, container in CONTAINERS.items():
            if isinstance(value, kind):
                pairs = isinstance(value, dict)
                container.fill(value, [[*map(self.decode, item)] if pairs else self.decode(item) for item in items])
                return
        value[...] = _array(value.dtype.str, value.shape, items)

    def _numpy(self, kind: str, header: Any, items: str) -> Any:
        dtype, shape = header
        value = _array(dtype, shape, items)
        if kind == "scalar":
            return value[()]
        self.shared.append(value)
        return value


def _array(dtype: str, shape: Any, items: str) -> Any:
    """Return a numpy array; numpy is imported when the first array arrives."""
    import numpy

    if not NUMERIC.fullmatch(dtype):
        raise WireError(f"arrays of dtype {dtype} are not supported")
    return numpy.ndarray(tuple(shape), dtype, bytearray.fromhex(items))


_OTHERS: dict[str, Callable[[Any, Decoder], Any]] = {
    "int": lambda content, _: int(content, 16),
    "bytes": lambda content, _: bytes.fromhex(content),
    "type": lambda content, _: TYPES[content],
    "shared": lambda content, decoder: decoder.shared[content],
    "object": lambda content, decoder: decoder.look_up(content),
}
