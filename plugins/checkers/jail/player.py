"""The program's process: run the program once, then answer the referee's requests to use what it defines."""

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
    """Return a tuple of the next value, or an empty tuple at the end."""
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
    """Return the names of an error's classes, its message and its arguments."""
    names = [kind.__name__ for kind in type(error).__mro__]
    try:
        return [names, str(error)[:LONGEST_TEXT], encoder.encode(error.args)]
    except Exception:  # an error class of the program may fail itself
        return [names, "", encoder.encode(())]


class Player:
    """A program, and its objects that the referee knows by number."""

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
        """Run the program, then answer requests until the referee closes the connection."""
        random.seed(0)
        self.answer("define", Encoder(self.name).encode((source,)))
        while True:
            try:
                self.answer(*read_message(self.fd))
            except WireError:
                return

    def answer(self, name: str, message: Any) -> None:
        """Do one piece of work; send what it returns or raises, and the arguments that it changed.

        A process that the program forked exits instead of answering.
        """
        try:
            reply = self.work(name, message)
        except BaseException as error:  # a value could not be encoded or decoded, for example one that contains itself
            reply = ["raised", *_described(error, Encoder(self.name)), []]
        if os.getpid() != self.pid:
            os._exit(0)
        write_message(self.fd, reply)

    def work(self, name: str, message: Any) -> list[Any]:
        """Do one piece of work; return its result, or the error that it raised, as a message."""
        decoder = Decoder(self.objects.__getitem__)
        arguments = decoder.decode(message)
        shared = decoder.shared
        before = self.contents(shared)
        encoder = Encoder(self.name, shared)
        try:
            reply = ["value", encoder.encode(self.does[name](*arguments))]
        except BaseException as error:  # SystemExit too: the tests may expect any error of the program
            encoder = Encoder(self.name, shared)
            reply = ["raised", *_described(error, encoder)]
        after = [[number, encoder.contents(value)] for number, value in enumerate(shared)]
        return [*reply, [item for item, old in zip(after, before, strict=True) if json.dumps(item[1]) != old]]

    def contents(self, containers: list[Any]) -> list[str]:
        """Return the contents of containers as JSON, for comparison."""
        encoder = Encoder(self.name, containers)
        return [json.dumps(encoder.contents(value)) for value in containers]

    def name(self, value: Any) -> int:
        """Store an object and return its number."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects.append(value)
        return self.numbers[id(value)]

    def define(self, source: str) -> list[str]:
        """Run the program and return the names it defines."""
        exec(compile(source, "<program>", "exec"), self.module.__dict__)  # noqa: S102  the sandbox exists to run this
        return [name for name in vars(self.module) if not name.startswith("__")]
