"""Run a program and its tests in isolation. The program can do no harm and cannot forge its verdict.

`Sandbox.run` is thread-safe. jail/__init__.py describes the processes inside.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from harness import EngineError, Outcome
from harness_plugins.checkers.jail.wire import WireError, read_message, write_message
from harness_plugins.checkers.trials import LIMITS, CodeTests, Limits, Verdict

JAIL = Path(__file__).parent

START = "import sys; sys.path.insert(0, sys.argv[1]); from jail.main import main; main()"
SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/etc/ld.so.cache")
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/jail",
    "TMPDIR": "/jail",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # so that a program always has the same outcome
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
GRACE = 10.0  # seconds that a launcher may take beyond the program's wall-clock limit
LATE = {"outcome": "timed out", "detail": "wall clock", "cpu": None}


@dataclass(frozen=True)
class Sandbox:
    """A kind of isolation: "namespaces" or, if the machine does not allow these, "landlock".

    Idle launchers are reused. `without` leaves walls out, so that tests can show what each wall prevents.
    """

    walls: str
    without: tuple[str, ...] = ()
    idle: SimpleQueue[Launcher] = field(default_factory=SimpleQueue, compare=False, repr=False)

    def run(self, program: str, tests: CodeTests, limits: Limits = LIMITS) -> Verdict:
        """Run a program and its tests; raise EngineError if the walls cannot be built."""
        launcher = self._launcher()
        try:
            verdict = launcher.run(
                [asdict(limits), {"source": program, "cpu": limits.cpu, "threads": limits.threads}, asdict(tests)],
                limits.wall,
            )
        except BaseException:
            launcher.end()
            raise
        if verdict["cpu"] is None:
            launcher.end()
        else:
            self.idle.put(launcher)
        return Verdict(Outcome(verdict["outcome"], verdict["detail"]), verdict["cpu"])

    def _launcher(self) -> Launcher:
        try:
            return self.idle.get_nowait()
        except Empty:
            return Launcher(self.walls, self.without)

    def close(self) -> None:
        """End the idle launchers."""
        with suppress(Empty):
            while True:
                self.idle.get_nowait().end()


def command(walls: str, without: Sequence[str] = ()) -> list[str]:
    """Return the command of a launcher."""
    libraries = _libraries()
    visible = [name for name in (*SYSTEM, sys.base_prefix, *libraries) if os.path.lexists(name)]
    config = {"walls": walls, "without": without, "visible": visible, "libraries": libraries}
    return [sys.executable, "-s", "-S", "-P", "-B", "-c", START, str(JAIL), json.dumps(config)]


class Launcher:
    """The process outside the walls. It starts one isolated program after the other."""

    def __init__(self, walls: str, without: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(  # noqa: S603  our own interpreter
            command(walls, without),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
        self.end = weakref.finalize(self, _end, self.process)  # runs on garbage collection, or at exit

    def run(self, order: list[Any], wall: float) -> dict[str, Any]:
        """Send an order and return the verdict; `cpu` is None if the launcher must end with the program."""
        until = time.monotonic() + wall + GRACE
        try:
            for message in order:
                write_message(self._fd("stdin"), message)
            first = self._read(until)
            verdict: dict[str, Any] = self._read(until, late=LATE) if first == "ready" else first
        except (OSError, WireError) as error:
            self.process.kill()
            last_line = self.process.communicate()[1].decode(errors="replace").strip().rpartition("\n")[2]
            raise EngineError(f"no program can be started: {last_line or error}") from error
        if "error" in verdict:
            raise EngineError(f"no program can be started: {verdict['error']}")
        return verdict

    def _fd(self, name: str) -> int:
        return int(getattr(self.process, name).fileno())

    def _read(self, until: float, late: Any = None) -> Any:
        """Return the next message, or `late` if none arrives in time."""
        waiting = select.poll()
        waiting.register(self._fd("stdout"), select.POLLIN)
        ready = waiting.poll(1000 * max(0.0, until - time.monotonic()))
        if not ready and late is None:
            raise WireError("the launcher does not answer")
        return read_message(self._fd("stdout")) if ready else late


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a launcher and all processes that it started."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()
    process.kill()
    process.wait()


def _libraries() -> list[str]:
    """Return the site-packages folder that contains numpy."""
    spec = importlib.util.find_spec("numpy")
    return [str(Path(spec.origin).parent.parent)] if spec and spec.origin else []
