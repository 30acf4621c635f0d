"""The tests' process: start the program in another process, run the tests on its answers, write the verdict."""

from __future__ import annotations

import ast
import builtins
import io
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

PATIENCE = 0.3  # seconds that a program may take to exit after it closed its connection


class Ended(BaseException):
    """The program's process no longer answers. A BaseException, so that tests cannot expect it."""


class ProgramError(Exception):
    """The program raised an error whose class does not exist in this process."""


class FromProgram:
    """Marks errors that were raised by the program and not by the tests."""


class Remote:
    """A proxy of an object of the program. Its methods run in the program's process.

    Comparison with a value is never delegated, because the object could claim to equal everything. A Remote therefore
    equals no value; only comparisons with other objects of the program are delegated.
    """

    def __init__(self, line: Line, number: int) -> None:
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the object in the program."""
        return self._line.ask("call", self, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # numpy, for example, would read memory addresses through them
            raise AttributeError(name)
        return self._line.ask("get", self, name)

    def __next__(self) -> Any:
        values = self._line.ask("next", self)
        if not values:
            raise StopIteration
        return values[0]


def _there(name: str, *, with_value: bool = False) -> Any:
    """Return a method that runs in the program; `with_value` methods accept only other objects of the program."""

    def method(self: Remote, *values: Any) -> Any:
        if with_value and not isinstance(values[0], Remote):
            return NotImplemented
        return self._line.ask(name, self, *values)

    return method


for _name in ("bool", "len", "iter", "hash", "str", "repr", "getitem", "setitem"):
    setattr(Remote, f"__{_name}__", _there(_name))
for _name in ("eq", "lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _there(_name, with_value=True))
Remote.__setattr__ = _there("set")  # type: ignore[method-assign]  # instances set attributes in the program


@dataclass(frozen=True)
class Line:
    """The connection to the player."""

    fd: int
    remotes: dict[int, Remote] = field(default_factory=dict)

    def ask(self, name: str, *arguments: Any) -> Any:
        """Send a request and return the answer; raise the program's error, or Ended.

        Changes that the program made to mutable arguments are applied to the originals.
        """
        encoder = Encoder(self.number)
        message = [name, encoder.encode(arguments)]
        try:
            write_message(self.fd, message)
        except OSError as error:
            raise Ended from error
        return self.answer(encoder.shared)

    def answer(self, shared: Iterable[Any] = ()) -> Any:
        """Return the next answer; `shared` are the containers in the request."""
        decoder = Decoder(self.remote, shared)
        try:
            kind, *content, changes = read_message(self.fd)
            value = decoder.decode(content[-1])
            for number, items in changes:
                decoder.fill(decoder.shared[number], items)
            if kind == "value":
                return value
            raised = _error([str(name) for name in content[0]], str(content[1]), value)
        except (OSError, WireError, TypeError, ValueError, LookupError, RecursionError) as error:
            raise Ended from error
        raise raised

    def remote(self, number: int) -> Remote:
        """Return the proxy of a numbered object, always the same one."""
        return self.remotes.setdefault(number, Remote(self, int(number)))

    @staticmethod
    def number(value: Any) -> int:
        """Return the number of a program's object that the tests pass back to it; raise TypeError for other objects."""
        if isinstance(value, Remote):
            return int(value._number)
        raise TypeError(f"the tests pass {value!r}, which is not a plain value")


def _error(names: list[str], text: str, arguments: Any) -> Exception:
    """Return the program's error as the first of its classes that is built in, so that tests can expect it."""
    known = (getattr(builtins, name, None) for name in names)
    kind: Any = next((k for k in known if isinstance(k, type) and issubclass(k, Exception)), ProgramError)
    if issubclass(kind, (StopIteration, StopAsyncIteration)):  # these would end a loop in the tests
        kind = RuntimeError
    name = names[0] if names and names[0].isidentifier() else "Error"
    body = {"__str__": lambda _: text}
    try:
        error: Exception = type(name, (kind, FromProgram), body)(*arguments)
    except (TypeError, ValueError):  # the class does not accept these arguments
        error = type(name, (ProgramError, FromProgram), body)()
    return error


def referee(verdict: int, restrict: Callable[[int], None]) -> NoReturn:
    """Carry out the order on standard input; write the verdict as length-prefixed JSON, and exit.

    `restrict(pid)` refuses this process and the player all system calls that they do not need. It allows signals to
    `pid` only.
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
    """Fork the player, which keeps only its end of the connection."""
    random.seed(0)  # in the player too, so that a program always has the same outcome
    ours, theirs = socket.socketpair()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        die_with_parent()
        if os.getppid() != parent:  # the parent ended before prctl took effect
            os._exit(1)
        os.dup2(theirs.fileno(), 3)
        for fd in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        os.closerange(4, MOST_FILES)  # including the pipe of the verdict
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
        exec(compile(tests["source"], "<tests>", "exec"), space)  # noqa: S102  the sandbox exists to run this
        line.ask("global", "__name__")  # raises Ended if the program exited, even if the tests caught that as an error
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
    """Return the names that tests see: those that the task defines, modules, and all others from the program.

    Only `entry_points` may replace names of the task or of Python. Otherwise a program could replace `abs`.
    """
    space: dict[str, Any] = {"__name__": "tests"}
    texts = [tests["before"], tests["source"]]
    used = {node.id for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    for name in sorted(used & offered - set(dir(builtins))):
        space[name] = __import__(name) if name in sys.stdlib_module_names else line.ask("global", name)
    exec(compile(tests["before"], "<before>", "exec"), space)  # noqa: S102  the sandbox exists to run this
    for name in tests["entry_points"]:
        space[name] = line.ask("global", name)
    return space


def _text(error: BaseException) -> str:
    """Return an error's class and message. The message may contain an object of the program, whose str() can fail."""
    try:
        return f"{type(error).__name__}: {error}".strip(": ")
    except Exception:
        return type(error).__name__


def _failed_line(error: BaseException, source: str) -> str:
    """Return the last line of the tests in an error's traceback."""
    step, line = error.__traceback__, ""
    lines = io.StringIO(source, newline=None).readlines()  # as Python counts them; splitlines cuts at form feeds, too
    while step:
        if step.tb_frame.f_code.co_filename == "<tests>":
            line = lines[step.tb_lineno - 1].strip()
        step = step.tb_next
    return line


def _end(pid: int, *, gently: bool) -> tuple[int, float]:
    """End the program's process; return its exit code and its CPU seconds."""
    until = time.monotonic() + PATIENCE * gently
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        if time.monotonic() >= until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _cause(ending: int, is_over: bool) -> tuple[str, str]:
    """Return outcome and detail for a program whose process ended before the tests did."""
    if ending == -signal.SIGXCPU or (ending == -signal.SIGKILL and is_over):
        return "timed out", "CPU time"
    if ending < 0:
        return "crashed", f"ended by {signal.Signals(-ending).name}"
    return "crashed", f"exit {ending} before the tests were done"
