"""The process of the program: runs it once, then does what the referee asks with what it defines."""

from __future__ import annotations

import json
import operator
import os
import random
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from .values import Decoder, Encoder
from .wire import WireError, read_message, write_message


def _next(iterator: Iterator[Any]) -> tuple[Any, ...]:
    """Return the next value in a tuple, or an empty one at the end."""
    try:
        return (next(iterator),)
    except StopIteration:
        return ()


LONGEST_TEXT = 10_000
WORK: dict[str, Callable[..., Any]] = {
    "call": lambda function, arguments, keywords: function(*arguments, **keywords),
    "get": getattr,
    "set": setattr,
    "next": _next,
    "setitem": operator.setitem,
    "getitem": operator.getitem,
    **{work.__name__: work for work in (bool, len, iter, hash, str, repr)},
    **{name: getattr(operator, name) for name in ("eq", "lt", "le", "gt", "ge")},
}


def _described(error: BaseException, encoder: Encoder) -> list[Any]:
    """Return the names of an error's classes, its text and what it is made of."""
    names = [kind.__name__ for kind in type(error).__mro__]
    try:
        return [names, str(error)[:LONGEST_TEXT], encoder.encode(error.args)]
    except Exception:  # the program's own class
        return [names, "", encoder.encode(())]


class Player:
    """A program and the objects of it that the referee has been told of, by number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pid = os.getpid()
        self.module = types.ModuleType("program")
        self.objects: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.does: dict[str, Callable[..., Any]] = {
            **WORK,
            "define": self.define,
            "global": lambda name: getattr(self.module, name),
        }
        sys.modules["program"] = self.module

    def run(self, source: str) -> None:
        """Run the program, and answer until nobody asks."""
        random.seed(0)
        self.answer("define", Encoder(self.name).encode((source,)))
        while True:
            try:
                self.answer(*read_message(self.fd))
            except WireError:
                return

    def answer(self, name: str, message: Any) -> None:
        """Do some work; send what it returns or raises, and how it changed its arguments.

        A process that the program made does not answer.
        """
        try:
            found = self.work(name, message)
        except BaseException as error:  # what came or what goes is no value, such as one without end
            found = ["raised", *_described(error, Encoder(self.name)), []]
        if os.getpid() != self.pid:
            os._exit(0)
        write_message(self.fd, found)

    def work(self, name: str, message: Any) -> list[Any]:
        """Return what the work gives, as a message."""
        decoder = Decoder(self.objects.__getitem__)
        arguments = decoder.decode(message)
        shared = decoder.shared
        before = self.contents(shared)
        encoder = Encoder(self.name, shared)
        try:
            found = ["value", encoder.encode(self.does[name](*arguments))]
        except BaseException as error:  # SystemExit too: the program's errors are what is asked for
            encoder = Encoder(self.name, shared)
            found = ["raised", *_described(error, encoder)]
        after = [[number, encoder.contents(value)] for number, value in enumerate(shared)]
        return [*found, [item for item, old in zip(after, before, strict=True) if json.dumps(item[1]) != old]]

    def contents(self, containers: list[Any]) -> list[str]:
        """Return the contents of containers, to be compared."""
        encoder = Encoder(self.name, containers)
        return [json.dumps(encoder.contents(value)) for value in containers]

    def name(self, value: Any) -> int:
        """Keep an object and return its number."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self.numbers[id(value)]

    def define(self, source: str) -> list[str]:
        """Run the program and return the names it defines."""
        exec(compile(source, "<program>", "exec"), self.module.__dict__)  # noqa: S102  that is what the jail is for
        return [name for name in vars(self.module) if not name.startswith("__")]
