"""Attacks on the sandbox: each wall alone stops them, and they succeed without these walls."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness_plugins.checkers.jail.syscalls import numbers
from harness_plugins.checkers.sandbox import Sandbox
from harness_plugins.checkers.trials import LIMITS, CodeTests
from tests.plugins.attacks import ATTACKS, Attack
from tests.plugins.cheats import CHEATS

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
DEFAULT = {  # the dozen that the default tests try
    "reads_a_file", "writes_a_new_file", "mounts", "connects", "makes_a_socket", "reads_a_key", "overwrites_a_key",
    "reads_shared_memory", "has_memory_that_it_detaches", "maps_2_GiB", "uses_twice_its_time", "signals",
}  # fmt: skip
NEEDS_X86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are those of x86_64")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave every wall out")


def call(name: str, *arguments: Any) -> int:
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(LIBC.syscall(numbers("keyctl:250:219 add_key:248:217")[name], *words))
    if result < 0:
        pytest.skip(f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


@pytest.fixture(scope="module")
def surroundings() -> Iterator[dict[str, Any]]:
    """What an attack could reach: a port, a process, shared memory, a keyring; all made here."""
    with ExitStack() as stack:
        call("keyctl", 1, None)  # this process's own keyring, which launchers inherit
        server = stack.enter_context(socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", server.getsockname()[1]))
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0harness-{os.getpid()}")
        for listening in (server, abstract):
            listening.listen(500)
        victim = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        ipc = 0x48000000 + os.getpid()
        stack.callback(LIBC.shmctl, LIBC.shmget(ipc, ctypes.c_size_t(4096), 0o1666), 0, None)
        stack.callback(LIBC.msgctl, LIBC.msgget(ipc, 0o1666), 0, None)
        stack.callback(LIBC.semctl, LIBC.semget(ipc, 1, 0o1666), 0, 0)
        port, name = server.getsockname()[1], f"harness-{os.getpid()}"
        yield {"port": port, "pid": victim.pid, "ipc": ipc, "abstract": name, "key_name": name, "shared": name}
    for sandbox in [sandbox_of(*arguments) for arguments in SANDBOXES]:
        sandbox.close()


SANDBOXES: list[tuple[str, tuple[str, ...]]] = []


@cache
def sandbox_of(kind: str, without: tuple[str, ...]) -> Sandbox:
    SANDBOXES.append((kind, without))
    return Sandbox(kind, without)


def is_reached(attack: Attack, surroundings: dict[str, Any], without: tuple[str, ...], limits=LIMITS) -> bool:
    """Run an attack among new files and a new key; say whether it reached what it wants."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-attack")))
        for path in (folder, folder / "empty"):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        for path in (folder / "secret", folder / "other", Path("/dev/shm") / surroundings["shared"]):
            path.write_text("secret")
            path.chmod(0o666)
            stack.callback(path.unlink, missing_ok=True)
        (folder / "link").symlink_to("/")
        for name, kind in (("stream", socket.SOCK_STREAM), ("datagrams", socket.SOCK_DGRAM)):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            listening.bind(str(folder / name))
            (folder / name).chmod(0o777)
            if name == "stream":
                listening.listen()
        key = call("add_key", b"user", surroundings["key_name"].encode(), b"secret", 6, -3)
        places = {"folder": folder, "secret": folder / "secret", "socket": folder / "stream"}
        targets = {name: str(path) for name, path in {**places, "datagrams": folder / "datagrams"}.items()}
        program = f"TARGETS = {surroundings | targets | {'key': key}!r}\n{attack.program}"
        outcome = sandbox_of(attack.kind, without).run(program, CodeTests(attack.tests, ("f",)), limits).outcome
        with suppress(OSError):
            LIBC.syscall(numbers("keyctl:250:219")["keyctl"], 9, key, -3)
    print(attack.kind, without, outcome)
    return outcome.outcome == "passed"


def limits_of(attack: Attack):
    return replace(LIMITS, cpu=1, wall=10) if "time" in attack.name else LIMITS


@NEEDS_X86
@NEEDS_ROOT
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(
            attack,
            id=f"{attack.group}-{attack.kind}-{attack.name}",
            marks=[] if attack.name in DEFAULT and attack.kind == "namespaces" else [pytest.mark.attacks],
        )
        for attack in ATTACKS
    ],
)
def test_an_attack_fails_behind_each_of_its_walls_and_succeeds_without_them(attack, surroundings):
    limits = limits_of(attack)
    helper = ("rights",) if "files" in attack.walls and attack.kind == "namespaces" else ()  # to find its libraries
    assert not is_reached(attack, surroundings, (), limits)
    for wall in attack.walls if len(attack.walls + helper) > 1 else ():
        others = tuple(other for other in attack.walls if other != wall)
        assert not is_reached(attack, surroundings, others + helper, limits), f"{wall} alone does not stop it"
    assert is_reached(attack, surroundings, attack.walls + helper, replace(limits, **dict(attack.loose)))


@pytest.mark.parametrize("cheat", [pytest.param(name, marks=[pytest.mark.attacks]) for name in CHEATS])
def test_a_cheat_does_not_pass_and_would_if_the_tests_ran_in_its_process(cheat):
    program, tests = CHEATS[cheat]
    outcome = sandbox_of("namespaces", ()).run(program, CodeTests(tests, ("f",)), replace(LIMITS, wall=10)).outcome
    assert outcome.outcome in {"failed", "crashed"}
    done = subprocess.run([sys.executable, "-c", f"{program}\n{tests}"], check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_there_are_more_than_a_hundred_attacks_on_all_walls():
    programs = {(attack.group, attack.name) for attack in ATTACKS} | {("judge", name) for name in CHEATS}
    counts = Counter(group for group, _ in programs)
    print(json.dumps(counts))
    assert len(programs) > 100
    assert set(counts) == {"file", "network", "keyring", "ipc", "memory", "fork", "signals", "judge"}
    assert min(counts.values()) >= 10
