"""The process of the tests: starts the program in another one, runs the tests on its answers, says how it went."""

from __future__ import annotations

import ast
import builtins
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from .player import Player
from .values import Decoder, Encoder
from .walls import MOST_FILES, die_with_parent, limit_program
from .wire import WireError, read_message, write_message

PATIENCE = 0.3  # seconds for a program that closed its line to end


class Ended(BaseException):
    """The program's process does not answer any more; no error that tests could expect."""


class ProgramError(Exception):
    """The program raised an error that has no class here."""


class FromProgram:
    """Marks errors that were raised by the program and not by the tests."""


class Remote:
    """An object of the program: what it does happens there; here it equals no value, only objects of the program.

    Nothing that compares it with a value is asked of the program, as an answer could claim to equal everything.
    """

    def __init__(self, line: Line, number: int) -> None:
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it there."""
        return self._line.ask("call", self, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # by which numpy, say, would take memory addresses
            raise AttributeError(name)
        return self._line.ask("get", self, name)

    def __next__(self) -> Any:
        found = self._line.ask("next", self)
        if not found:
            raise StopIteration
        return found[0]


def _there(name: str, *, with_value: bool = False) -> Any:
    """Return a method that happens in the program; one that compares does so with other objects of the program only."""

    def method(self: Remote, *values: Any) -> Any:
        if with_value and not isinstance(values[0], Remote):
            return NotImplemented
        return self._line.ask(name, self, *values)

    return method


for _name in ("bool", "len", "iter", "hash", "str", "repr", "getitem", "setitem"):
    setattr(Remote, f"__{_name}__", _there(_name))
for _name in ("eq", "lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _there(_name, with_value=True))
Remote.__setattr__ = _there("set")  # type: ignore[method-assign]  # from now on, of instances


@dataclass(frozen=True)
class Line:
    """The line to the player."""

    fd: int
    remotes: dict[int, Remote] = field(default_factory=dict)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Ask and return the answer; raise what the program raised, or Ended.

        What the program changed in its arguments is changed here.
        """
        encoder = Encoder(self.number)
        message = [name, encoder.encode(arguments)]
        try:
            write_message(self.fd, message)
        except OSError as error:
            raise Ended from error
        return self.answer(encoder.shared)

    def answer(self, shared: Iterable[Any] = ()) -> Any:
        """Return the next answer; `shared` are the containers that the question had."""
        decoder = Decoder(self.remote, shared)
        try:
            kind, *content, changes = read_message(self.fd)
            found = decoder.decode(content[-1])
            for number, items in changes:
                decoder.fill(decoder.shared[number], items)
            if kind == "value":
                return found
            raised = _error([str(name) for name in content[0]], str(content[1]), found)
        except (OSError, WireError, TypeError, ValueError, LookupError, RecursionError) as error:
            raise Ended from error
        raise raised

    def remote(self, number: int) -> Remote:
        """Return the object of a number, the same every time."""
        return self.remotes.setdefault(number, Remote(self, int(number)))

    @staticmethod
    def number(value: Any) -> int:
        """Return the number of an object that tests give back to the program; they have no others to give."""
        if isinstance(value, Remote):
            return int(value._number)
        raise TypeError(f"the tests pass {value!r}, which is no plain value")


def _error(names: list[str], text: str, arguments: Any) -> Exception:
    """Return the program's error as the first of its classes that Python has, so that tests can expect it."""
    known = (getattr(builtins, name, None) for name in names)
    kind: Any = next((k for k in known if isinstance(k, type) and issubclass(k, Exception)), ProgramError)
    if issubclass(kind, (StopIteration, StopAsyncIteration)):  # which would end a loop of the tests
        kind = RuntimeError
    name = names[0] if names and names[0].isidentifier() else "Error"
    body = {"__str__": lambda _: text}
    try:
        error: Exception = type(name, (kind, FromProgram), body)(*arguments)
    except (TypeError, ValueError):  # a class that is not made of these
        error = type(name, (ProgramError, FromProgram), body)()
    return error


def referee(verdict: int, restrict: Callable[[int], None]) -> NoReturn:
    """Follow the orders on standard input; write the verdict, as JSON after its length, and end.

    `restrict` refuses the process, here and of the player, all that is not needed but signals to a process.
    """
    write_message(verdict, "ready")
    program = read_message(0)
    line, pid = _start(program, restrict)
    restrict(pid)
    tests = read_message(0)
    try:
        outcome, detail = _judge(line, tests)
    except (Ended, MemoryError, RecursionError):
        outcome, detail = "crashed", ""
    ending, cpu = _end(pid, gently=outcome == "crashed" and not detail)
    if not detail and outcome == "crashed":
        outcome, detail = _cause(ending, cpu >= program["cpu"])
    write_message(verdict, {"outcome": outcome, "detail": detail, "cpu": cpu})
    os._exit(0)


def _start(program: Mapping[str, Any], restrict: Callable[[int], None]) -> tuple[Line, int]:
    """Fork the player, who keeps nothing but his end of the line."""
    random.seed(0)  # here and of the player: the same program has the same outcome
    ours, theirs = socket.socketpair()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        die_with_parent()
        if os.getppid() != parent:  # which was faster
            os._exit(1)
        os.dup2(theirs.fileno(), 3)
        for fd in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        os.closerange(4, MOST_FILES)  # among them the pipe of the verdict
        limit_program(program["cpu"], program["threads"])
        restrict(os.getpid())
        Player(3).run(program["source"])
        os._exit(0)
    theirs.close()
    return Line(ours.detach()), pid


def _judge(line: Line, tests: Mapping[str, Any]) -> tuple[str, str]:
    """Run the tests; return outcome and detail."""
    try:
        offered = set(line.answer())
        space = _space(line, tests, offered)
        exec(compile(tests["source"], "<tests>", "exec"), space)  # noqa: S102  that is what the jail is for
        line.ask("global", "__name__")  # a program that ended has not passed, even if tests took that for an error
    except Ended:
        raise
    except BaseException as error:
        text = _text(error)
        if isinstance(error, FromProgram):
            return "crashed", text[:200]
        if isinstance(error, MemoryError):
            raise
        where = _failed_line(error, tests["source"])
        return "failed", f"{where}: {text.removeprefix('AssertionError').lstrip(': ')}".strip(": ")[:200]
    return "passed", ""


def _space(line: Line, tests: Mapping[str, Any], offered: set[Any]) -> dict[str, Any]:
    """Return the names that tests see: what the task defines, modules, and the rest from the program.

    Only `entry_points` may replace what the task or Python define: else a program could bring its own `abs`.
    """
    space: dict[str, Any] = {"__name__": "tests"}
    texts = [tests["before"], tests["source"]]
    used = {node.id for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    for name in sorted(used & offered - set(dir(builtins))):
        space[name] = __import__(name) if name in sys.stdlib_module_names else line.ask("global", name)
    exec(compile(tests["before"], "<before>", "exec"), space)  # noqa: S102  that is what the jail is for
    for name in tests["entry_points"]:
        space[name] = line.ask("global", name)
    return space


def _text(error: BaseException) -> str:
    """Return an error's class and text, which may be that of an object of the program."""
    try:
        return f"{type(error).__name__}: {error}".strip(": ")
    except Exception:
        return type(error).__name__


def _failed_line(error: BaseException, source: str) -> str:
    """Return the last line of the tests that led to an error."""
    step, found = error.__traceback__, ""
    while step:
        if step.tb_frame.f_code.co_filename == "<tests>":
            found = source.splitlines()[step.tb_lineno - 1].strip()
        step = step.tb_next
    return found


def _end(pid: int, *, gently: bool) -> tuple[int, float]:
    """End the program's process; return how it ended and the CPU seconds it took."""
    until = time.monotonic() + PATIENCE * gently
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() >= until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _cause(ending: int, is_over: bool) -> tuple[str, str]:
    """Return outcome and detail for a program whose process ended by itself."""
    if ending == -signal.SIGXCPU or (ending == -signal.SIGKILL and is_over):
        return "timed out", "CPU time"
    if ending < 0:
        return "crashed", f"ended by {signal.Signals(-ending).name}"
    return "crashed", f"exit {ending} before the tests were done"
