"""Programs that try to break out of a sandbox. If one succeeds, the sandbox is not used."""

from __future__ import annotations

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
from harness_plugins.checkers.jail.syscalls import numbers
from harness_plugins.checkers.sandbox import ENVIRONMENT, Sandbox
from harness_plugins.checkers.trials import LIMITS, CodeTests, Limits

SHORT = replace(LIMITS, cpu=1, wall=3)  # one CPU second is enough; a busy machine needs more wall-clock time
MARK = "harness-probe"
WITHOUT_NAMESPACES = (
    "this machine does not allow namespaces: programs cannot write files or start threads, and they can see the names "
    "and sizes of files that they cannot read"
)


@dataclass(frozen=True)
class Probe:
    """A program with one function f, and the outcome that its test must have."""

    claim: str
    program: str
    test: str
    outcome: str = "passed"
    limits: Limits = LIMITS


STARTS = """
import os, threading
wait = threading.Event()
def f():
    try:
        return os.fork() * 0 + 1000
    except OSError:
        pass
    for n in range(500):
        try:
            threading.Thread(target=wait.wait, daemon=True).start()
        except RuntimeError:
            return n
"""
CALLS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def f(numbers):
    refused = []
    for name, number in numbers.items():
        arguments = (40, 1, 0) if name == "socket" else (0,) * 6
        if libc.syscall(number, *map(ctypes.c_long, arguments)) == -1 and ctypes.get_errno() == 1:
            refused.append(name)
    return set(numbers) - set(refused)
"""
REFUSED = """
    keyctl:250:219 add_key:248:217 request_key:249:218 userfaultfd:323:282 socket:41:198 io_uring_setup:425:425
    ptrace:101:117 process_vm_readv:310:270 mount:165:40 bpf:321:280 perf_event_open:298:241 shmget:29:194
    semget:64:190 msgget:68:186 mq_open:240:180 memfd_create:319:279 memfd_secret:447:447 unshare:272:97 setns:308:268
    pidfd_open:434:434 execve:59:221
"""
ALLOCATES = """
import mmap
def f():
    sizes = []
    for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
        try:
            sizes.append(len(mmap.mmap(-1, 10 << 30, kind | mmap.MAP_ANONYMOUS)))
        except (MemoryError, OSError):
            pass
    return sizes
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
    writable = []
    for folder in folders:
        try:
            open(folder + "/written-by-a-probe", "w").close()
            writable.append(folder)
        except OSError:
            pass
    return writable
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
    return open_files, dict(os.environ)
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
import ctypes, time
def f():
    return ctypes.CDLL(None).prctl(15, b"{MARK}", 0, 0, 0)
"""


def _probes(walls: str, folder: Path, port: int) -> list[Probe]:
    """Return the probes. Every user may write to `folder`; a server listens at `port`."""
    places = [str(folder), "/", "/usr", "/etc", "/dev", sys.prefix]
    has_folder = walls == "namespaces"
    written = f"0 < f() <= {LIMITS.folder}" if has_folder else "f() == 0"
    return [
        Probe("a correct program passes", "def f(x): return x * x", "assert f(3) == 9"),
        Probe("a wrong program fails", "def f(x): return x", "assert f(3) == 9", "failed"),
        Probe("processes and threads are limited", STARTS, f"assert f() < {LIMITS.threads}"),
        Probe("memory is limited", ALLOCATES, "assert f() == []"),
        Probe("files are limited", FILLS, f"assert {written}"),
        Probe("nothing is written outside its folder", WRITES, f"assert f('.', *{places!r}) == {['.'][:has_folder]}"),
        Probe("files of the user cannot be read", READS, f"assert f({str(folder / 'secret')!r}) == ''"),
        Probe(
            "neither files nor variables are inherited", LOOKS_AROUND, f"assert f() == ([0, 1, 2, 3], {ENVIRONMENT!r})"
        ),
        Probe("the tests cannot be attacked, and rights cannot be gained", ATTACKS, "assert f() == [-1] * 4 and f()"),
        Probe("system calls are refused", CALLS, f"assert f({numbers(REFUSED)!r}) == set()"),
        Probe("no process is left running", STAYS, "assert f() == 0"),
        Probe("an endless loop ends", "while True: pass", "", "timed out", SHORT),
        Probe("an endless sleep ends", "import time; time.sleep(1000)", "", "timed out", SHORT),
        Probe("there is no network", CONNECTS, f"assert not f({port})"),
    ]


@contextmanager
def _surroundings() -> Iterator[tuple[Path, int]]:
    """Yield targets for a program that breaks out: a folder with a secret file, and the port of a server."""
    with tempfile.TemporaryDirectory(prefix=MARK) as name, socket.create_server(("127.0.0.1", 0)) as server:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "secret").write_text("secret", encoding="utf-8")
        yield folder, server.getsockname()[1]
        if sorted(path.name for path in folder.iterdir()) != ["secret"]:
            raise EngineError("a program wrote outside its folder")


def broken(sandbox: Sandbox) -> list[str]:
    """Try to break out of a sandbox; return the claims that fail."""

    def failure(probe: Probe) -> str:
        outcome = sandbox.run(probe.program, CodeTests(probe.test, ("f",)), probe.limits).outcome
        return "" if outcome.outcome == probe.outcome else f"{probe.claim}: {outcome.outcome}, {outcome.detail}"

    with _surroundings() as (folder, port), ThreadPoolExecutor(4) as threads:
        failures = [text for text in threads.map(failure, _probes(sandbox.walls, folder, port)) if text]
    if _is_left():
        failures.append("no process is left running: found one")
    return failures


def _is_left(patience: float = 1.0) -> bool:
    """Tell whether a probe's process is still running after `patience` seconds."""
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
def _verified() -> Sandbox:
    """Return the first sandbox that passes all probes; raise EngineError if none does."""
    if sys.platform != "linux":
        raise EngineError(f"generated programs run on Linux only, which can isolate them; found {sys.platform}")
    why = []
    for walls in ("namespaces", "landlock"):
        sandbox = Sandbox(walls)
        try:
            failures = broken(sandbox)
        except (EngineError, OSError) as error:
            failures = [str(error)]
        if not failures:
            return sandbox
        sandbox.close()
        why.append(f"{walls}: {'; '.join(failures)}")
    raise EngineError(
        f"programs are not run, because this machine cannot isolate them ({' | '.join(why)}); expected Linux 5.14 or "
        "later that allows namespaces (user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns) or has "
        "Landlock (landlock in /sys/kernel/security/lsm; in a container, a seccomp profile that allows it)"
    )


def find_sandbox() -> Sandbox:
    """Return a sandbox that passes all probes; raise EngineError if there is none. The probes run once."""
    return _verified()


def notes() -> tuple[str, ...]:
    """Verify that programs can be run safely; return notes for the user."""
    return () if find_sandbox().walls == "namespaces" else (WITHOUT_NAMESPACES,)
