"""A child process with an engine, so that all memory, including that of a GPU, is released when it ends.

Messages are pickled through a socket pair. The child has its own session, so that only its parent receives Ctrl-C and
all processes that it starts are stopped with it. It stops itself when its parent has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from harness import EngineError

WINDOW = 1024  # requests in flight between the processes
GRACE = 5.0  # seconds for a child to end by itself
DEATH = 30.0  # seconds after which a killed process group that still runs is an error
READ = 2**16  # bytes at the end of a log that are read
TOLD = 12  # number of last log lines in the error when it dies


class ChildDied(EngineError):
    """The child process ended unexpectedly; the message has the end of its log."""


class Child:
    """The parent's side: starts `command` with a file descriptor as its last argument."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the child
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                [*command, str(theirs.fileno())],
                env={**os.environ, **environment},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                start_new_session=True,
            )
        self.pipe = Connection(ours.detach())

    def send(self, message: Any) -> None:
        """Send a message; raise ChildDied if the child has ended."""
        try:
            self.pipe.send(message)
        except OSError as error:
            raise self._died() from error

    def receive(self) -> Any:
        """Return the next message; raise ChildDied if the child has ended."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error

    def last_lines(self) -> str:
        """Return the last lines that the child has printed; its place in the file, which both share, does not move."""
        size = os.fstat(self.log.fileno()).st_size
        lines = os.pread(self.log.fileno(), READ, max(0, size - READ)).decode(errors="replace").splitlines()
        return "\n".join(line for line in lines if line.strip())

    def _died(self) -> ChildDied:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE)
        code = self.process.poll()
        how = "closed its pipe" if code is None else f"ended by signal {-code}" if code < 0 else f"ended with {code}"
        told = "\n".join(self.last_lines().splitlines()[-TOLD:])
        return ChildDied(f"the process of the engine {how}" + (f"\n{told}" if told else ""))

    def stop(self) -> None:
        """Ask the child to end, kill the rest of its session, and wait until all processes have ended."""
        with suppress(OSError, EOFError):
            self.pipe.send(None)
            self._drain(time.monotonic() + GRACE)
        deadline = time.monotonic() + DEATH
        while _is_alive(self.process.pid):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise EngineError(f"process group {self.process.pid} of the engine does not end; kill it manually")
            time.sleep(0.02)
        self.process.wait()
        self.pipe.close()
        self.log.close()

    def _drain(self, deadline: float) -> None:
        """Wait for the end of the child, and read its pending messages so that it does not block."""
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.pipe.poll(0.02):
                self.pipe.recv()


def _is_alive(group: int) -> bool:
    """Return whether a process of the group runs; zombies do not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                return True
    return False


@dataclass
class Batch:
    """The requests of a cell in flight, by number."""

    kind: str
    left: dict[int, Any] = field(default_factory=dict)
    samples: dict[int, set[int]] = field(default_factory=dict)  # indices received, by request
    is_open: bool = True

    @property
    def is_done(self) -> bool:
        """Return whether all requests are answered and no more will be added."""
        return not self.is_open and not self.left

    def take(self, waiting: Iterator[Any], numbers: Iterator[int]) -> dict[int, Any]:
        """Number the next requests, sorted so that common prefixes are consecutive."""
        items = list(islice(waiting, WINDOW))
        self.is_open = len(items) == WINDOW
        begins = (lambda item: item.context) if self.kind == "score" else (lambda item: item.prompt)
        taken = {next(numbers): item for item in sorted(items, key=begins)}
        self.left |= taken
        return taken

    def message(self, number: int, item: Any) -> Any:
        """Return the message for a request, with its number in place of its key."""
        if self.kind == "score":
            return (number, item.context, item.continuations, item.greedy)
        return replace(item, key=number)

    def answered(self, number: int, result: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the request of a result with the result, unless a child that died had returned it before."""
        item = self.left.get(number)
        came = self.samples.setdefault(number, set())
        index = result[0] if self.kind == "generate" else 0
        if item is None or index in came:
            return
        came.add(index)
        if self.kind == "score" or len(came) == item.n:
            del self.left[number]
        yield item, result


class Parent:
    """The child's side. `next()` returns the messages in their order, None to end.

    `is_over` is true as soon as the end was requested, also while earlier messages are processed.
    """

    def __init__(self) -> None:
        self.pipe = Connection(int(sys.argv[-1]))
        self.inbox: SimpleQueue[Any] = SimpleQueue()
        self.is_over = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        """Read messages at once, so that the parent never blocks; end the process group when the parent has ended."""
        try:
            while True:
                message = self.pipe.recv()
                self.is_over = message is None
                self.inbox.put(message)
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)

    @property
    def is_silent(self) -> bool:
        """Return whether `next()` would block."""
        return self.inbox.empty()

    def next(self) -> Any:
        """Wait for the next message."""
        return self.inbox.get()

    def send(self, message: Any) -> None:
        """Send a message to the parent."""
        self.pipe.send(message)
