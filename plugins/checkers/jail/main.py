"""Entry point of the sandbox's interpreter."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from . import landlock, syscalls, walls
from .referee import referee
from .wire import WireError, read_message, write_message


def main() -> None:
    """Run each program that standard input orders inside its own walls, and write the verdicts.

    An order consists of three messages. The limits are read here; the referee reads the program and its tests. The
    function returns when the input ends, or after a program that had to be killed.
    """
    config = json.loads(sys.argv[2])
    sys.argv = [""]
    sys.path = [*sys.path[1:], *config["libraries"]]
    walls.be_first_to_go()
    try:
        if "keys" not in config["without"]:
            walls.leave_keys()
    except OSError as error:
        _leave({"error": str(error)})
    while True:
        try:
            limits = read_message(0)
        except WireError:
            return
        pid = os.fork()
        if pid == 0:
            _launch(config, limits)
        if os.waitpid(pid, 0)[1] != 0:
            return


def _launch(config: Mapping[str, Any], limits: Mapping[str, int]) -> NoReturn:
    """Start the referee inside walls; kill it when the wall-clock limit is reached."""
    has_folder, without = config["walls"] == "namespaces", config["without"]
    try:
        if has_folder:
            walls.enter_namespaces(without)
        pid = os.fork()
        if pid == 0:
            if has_folder:
                walls.build(config["visible"], limits["folder"], without)
            _referee(config, limits)
    except OSError as error:
        _leave({"error": str(error)})
    fate = _wait(pid, limits["wall"])
    if fate:
        _leave({"outcome": fate, "detail": "wall clock" if fate == "timed out" else "with its tests", "cpu": None})
    os._exit(0)


def _leave(message: Any) -> NoReturn:
    write_message(1, message)
    os._exit(1)


def _wait(pid: int, seconds: int) -> str:
    """Wait until the referee ends. Return "timed out" if it had to be killed, "crashed" if it failed, else ""."""
    process = os.pidfd_open(pid)
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    waiting.register(0, 0)  # standard input closes when the parent no longer waits for a verdict
    is_late = process not in dict(waiting.poll(1000 * seconds))
    if is_late:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    os.close(process)
    return "timed out" if is_late else "crashed" if status else ""


def _referee(config: Mapping[str, Any], limits: Mapping[str, int]) -> NoReturn:
    has_folder, without = config["walls"] == "namespaces", config["without"]
    os.chdir("/jail" if has_folder and "files" not in without else "/")
    walls.give_up_rights(without)
    walls.die_with_parent()
    if not has_folder:
        landlock.restrict(config["visible"], without)
    walls.set_limits(limits)
    verdict = fcntl.fcntl(1, fcntl.F_DUPFD, 10)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if "rights" not in without:
        walls.set_dumpable(False)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # with the default action, the kernel ignores it for process 1

    def restrict(pid: int) -> None:
        if "calls" not in without:
            syscalls.restrict(pid, has_folder=has_folder)

    referee(verdict, restrict)
