"""Programs that try to break out: no other is run where one of these succeeds."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from harness import EngineError
from harness_plugins.checkers.sandbox import ENVIRONMENT, Sandbox
from harness_plugins.checkers.trials import LIMITS, CodeTests, Limits

SHORT = replace(LIMITS, cpu=1, wall=3)  # a second is enough, but not of the wall clock of a busy machine
MARK = "harness-probe"


@dataclass(frozen=True)
class Probe:
    """A program with one function, f, and what must come of it."""

    claim: str
    program: str
    test: str
    outcome: str = "passed"
    limits: Limits = LIMITS
    needed: bool = True


FORKS = """
import os, time
def f():
    for n in range(500):
        try:
            if os.fork() == 0:
                time.sleep(100)
        except OSError:
            return n
"""
ALLOCATES = """
import mmap
def f():
    found = []
    for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
        try:
            found.append(len(mmap.mmap(-1, 10 << 30, kind | mmap.MAP_ANONYMOUS)))
        except (MemoryError, OSError):
            pass
    return found
"""
FILLS = """
def f():
    written = 0
    try:
        for n in range(100):
            with open(f"{n}", "wb") as file:
                written += file.write(bytes(1 << 20)) + file.write(bytes(14 << 20))
    except OSError:
        pass
    return written
"""
WRITES = """
def f(*folders):
    found = []
    for folder in folders:
        try:
            open(folder + "/written-by-a-probe", "w").close()
            found.append(folder)
        except OSError:
            pass
    return found
"""
READS = """
def f(path):
    try:
        return open(path).read()
    except OSError:
        return ""
"""
CONNECTS = """
import socket
def f(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
"""
LOOKS_AROUND = """
import os
def f():
    open_files = []
    for fd in range(64):
        try:
            os.fstat(fd)
            open_files.append(fd)
        except OSError:
            pass
    return open_files, dict(os.environ), os.getuid()
"""
ATTACKS = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
def f():
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGSTOP):
        try:
            os.kill(os.getppid(), number)
        except OSError:
            pass
    attach = libc.ptrace(16, os.getppid(), 0, 0)
    return [attach, libc.unshare(0x10000000), libc.setuid(0), libc.mount(0, b"/", 0, 32, 0)]
"""
STAYS = f"""
import ctypes, os, time
def f():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(15, b"{MARK}", 0, 0, 0)
            time.sleep(100)
        os._exit(0)
    os.wait()
    time.sleep(0.05)
    return 1
"""


def _probes(folder: Path, port: int) -> list[Probe]:
    """Return the probes; `folder` is one that anybody may write to, something listens at `port`."""
    places = [str(folder), "/", "/usr", "/etc", "/dev", sys.prefix]
    files, most = LIMITS.folder, LIMITS.processes
    return [
        Probe("a right program passes", "def f(x): return x * x", "assert f(3) == 9"),
        Probe("a wrong one fails", "def f(x): return x", "assert f(3) == 9", "failed"),
        Probe("processes are limited", FORKS, f"assert f() < {most}"),
        Probe("memory is limited", ALLOCATES, "assert f() == []"),
        Probe("files are limited", FILLS, f"assert 0 < f() <= {files}"),
        Probe("nothing is written outside of its folder", WRITES, f"assert f('.', *{places!r}) == ['.']"),
        Probe("files of the user cannot be read", READS, f"assert f({str(folder / 'secret')!r}) == ''"),
        Probe(
            "neither files nor variables are inherited",
            LOOKS_AROUND,
            f"files, variables, user = f()\nassert files == [0, 1, 2, 3] and variables == {ENVIRONMENT!r} and user",
        ),
        Probe("tests are out of reach, and no rights to be had", ATTACKS, "assert f() == [-1] * 4 and f()"),
        Probe("no process stays", STAYS, "assert f()"),
        Probe("an endless loop ends", "while True: pass", "", "timed out", SHORT),
        Probe("an endless sleep ends", "import time; time.sleep(1000)", "", "timed out", SHORT),
        Probe("there is no network", CONNECTS, f"assert not f({port})", needed=False),
    ]


@contextmanager
def _surroundings() -> Iterator[tuple[Path, int]]:
    """Yield what a program could reach if it got out: a folder with a secret, a port where something listens."""
    with tempfile.TemporaryDirectory(prefix=MARK) as name, socket.create_server(("127.0.0.1", 0)) as server:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "secret").write_text("secret", encoding="utf-8")
        yield folder, server.getsockname()[1]
        if sorted(path.name for path in folder.iterdir()) != ["secret"]:
            raise EngineError("a program wrote outside of its folder")


def broken(sandbox: Sandbox) -> tuple[list[str], list[str]]:
    """Try to break out of a sandbox; return what does not hold: of what is needed, and of the rest."""

    def found(probe: Probe) -> str:
        outcome = sandbox.run(probe.program, CodeTests(probe.test, ("f",)), probe.limits).outcome
        return "" if outcome.outcome == probe.outcome else f"{probe.claim}: {outcome.outcome}, {outcome.detail}"

    with _surroundings() as (folder, port), ThreadPoolExecutor(4) as threads:
        probes = _probes(folder, port)
        results = list(zip(probes, threads.map(found, probes), strict=True))
    failures = [text for probe, text in results if text and probe.needed]
    if _is_left():
        failures.append("no process stays: one did")
    return failures, [text for probe, text in results if text and not probe.needed]


def _is_left(patience: float = 1.0) -> bool:
    """Say whether a process that a probe left behind is there after a moment."""
    until = time.monotonic() + patience
    while any(_name(path) == MARK for path in Path("/proc").glob("[0-9]*/comm")):
        if time.monotonic() > until:
            return True
        time.sleep(0.02)
    return False


def _name(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


@cache
def _verified() -> tuple[Sandbox, tuple[str, ...]]:
    """Return the first sandbox that holds, and what is to be said of it; raise EngineError where none does."""
    if sys.platform != "linux":
        raise EngineError("programs are run on Linux only, where they can be kept from doing harm")
    why = []
    for walls in ("namespaces", "bubblewrap") if os.geteuid() == 0 else ("bubblewrap", "namespaces"):
        sandbox = Sandbox(walls)
        try:
            failures, rest = broken(sandbox)
        except (EngineError, OSError) as error:
            failures, rest = [str(error)], []
        if not failures:
            return sandbox, tuple(rest)
        sandbox.close()
        why.append(f"{walls}: {'; '.join(failures)}")
    raise EngineError(
        f"programs are not run, as they could do harm ({' | '.join(why)}); install bubblewrap 0.8 or later, or allow "
        "namespaces (user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns; in a container, run it "
        "with --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or --privileged)"
    )


def find_sandbox() -> Sandbox:
    """Return a sandbox that no probe broke out of; raise EngineError where there is none. Probes run once."""
    return _verified()[0]


def notes() -> tuple[str, ...]:
    """Verify that programs can be run without harm; return what a user should know of it."""
    return _verified()[1]
