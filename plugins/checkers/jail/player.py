"""The process of the program: runs it once, then does what the referee asks with what it defines."""

from __future__ import annotations

import os
import random
import sys
import types
from typing import Any

from .wire import WireError, decode, encode, read_message, write_message


class Player:
    """A program and the objects of it that the referee has been told of, by number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pid = os.getpid()
        self.module = types.ModuleType("program")
        self.objects: list[Any] = []
        sys.modules["program"] = self.module

    def run(self, source: str) -> None:
        """Run the program, and answer until nobody asks."""
        random.seed(0)
        self.answer(lambda: self.define(source))
        while True:
            try:
                operation, *arguments = read_message(self.fd)
            except WireError:
                return
            self.answer(lambda: getattr(self, f"do_{operation}")(*arguments))  # noqa: B023  called at once

    def answer(self, work: Any) -> None:
        """Do some work and send what it returns or raises; a process that the program made does not answer."""
        try:
            message = ["value", encode(work(), self.name)]
        except BaseException as error:  # SystemExit too: the program's errors are what is asked for
            message = ["raised", type(error).__name__, str(error)[:200]]
        if os.getpid() != self.pid:
            os._exit(0)
        write_message(self.fd, message)

    def name(self, value: Any) -> int:
        """Keep an object and return its number."""
        self.objects.append(value)
        return len(self.objects) - 1

    def define(self, source: str) -> list[str]:
        """Run the program and return the names it defines."""
        exec(compile(source, "<program>", "exec"), self.module.__dict__)  # noqa: S102  that is what the jail is for
        return [name for name in vars(self.module) if not name.startswith("__")]

    def do_global(self, name: str) -> Any:
        """Return what the program calls `name`."""
        return getattr(self.module, name)

    def do_call(self, number: int, arguments: Any, keywords: Any) -> Any:
        """Call an object."""
        look_up = self.objects.__getitem__
        return self.objects[number](*decode(arguments, look_up), **decode(keywords, look_up))

    def do_get(self, number: int, attribute: str) -> Any:
        """Return an attribute of an object."""
        return getattr(self.objects[number], attribute)

    def do_set(self, number: int, attribute: str, value: Any) -> None:
        """Set an attribute of an object."""
        setattr(self.objects[number], attribute, decode(value, self.objects.__getitem__))

    def do_list(self, number: int) -> list[Any]:
        """Return what an object yields."""
        return list(self.objects[number])
