"""Where the interpreter of a jail begins."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from . import walls
from .referee import referee
from .wire import WireError, read_message, write_message


def main() -> None:
    """Run the programs that are ordered on standard input, each behind walls of its own, and write verdicts.

    An order is three messages: limits, which are read here, the program, and its tests, which only the referee reads.
    It ends with its input, or after a program that did not end as it should.
    """
    config = json.loads(sys.argv[2])
    sys.argv = [""]
    sys.path = [*sys.path[1:], *config["libraries"]]
    os.environ.pop("PWD", None)  # which bubblewrap sets
    walls.be_first_to_go()
    while True:
        try:
            limits = read_message(0)
        except WireError:
            return
        if config["walls"] == "bubblewrap":  # which made this process number 1, for one program
            _referee(limits)
        pid = os.fork()
        if pid == 0:
            _launch(config["visible"], limits)
        if os.waitpid(pid, 0)[1] != 0:
            return


def _launch(visible: list[str], limits: Mapping[str, int]) -> NoReturn:
    """Build walls, start the referee behind them, and end what takes too long."""
    try:
        walls.enter_namespaces()
    except OSError as error:
        _leave({"error": str(error)})
    pid = os.fork()
    if pid == 0:
        try:
            walls.build(visible, limits["folder"])
        except OSError as error:
            _leave({"error": str(error)})
        _referee(limits)
    fate = _wait(pid, limits["wall"])
    if fate:
        _leave({"outcome": fate, "detail": "wall clock" if fate == "timed out" else "with its tests", "cpu": None})
    os._exit(0)


def _leave(message: Any) -> NoReturn:
    write_message(1, message)
    os._exit(1)


def _wait(pid: int, seconds: int) -> str:
    """Wait until process 1 has ended, and with it all that it started; say so if it had to be ended."""
    process = os.pidfd_open(pid)
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    waiting.register(0, 0)  # whose end means that nobody waits for a verdict any more
    is_late = process not in dict(waiting.poll(1000 * seconds))
    if is_late:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    os.close(process)
    return "timed out" if is_late else "crashed" if status else ""


def _referee(limits: Mapping[str, int]) -> NoReturn:
    os.chdir("/jail")
    walls.give_up_rights()
    walls.die_with_parent()
    walls.set_limits(limits)
    verdict = fcntl.fcntl(1, fcntl.F_DUPFD, 10)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    walls.set_dumpable(False)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which process 1 does not get from behind the walls
    referee(verdict)
