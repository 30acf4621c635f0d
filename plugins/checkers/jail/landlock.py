"""Restrict file access with Landlock (Linux 5.13) where namespaces are not allowed, for example in a container."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Sequence
from pathlib import Path

from .syscalls import OTHERS, numbers
from .system import call

# <linux/landlock.h>
VERSION, BENEATH = 1, 1
EXECUTE, WRITE, READ, LIST = 1, 2, 4, 8
RIGHTS = (0, 0x1FFF, 0x3FFF, 0x7FFF, 0x7FFF, 0xFFFF)  # file rights, by the version of Landlock (1 to 5)
NETWORK, SCOPES = 0x3, 0x3  # TCP, since version 4; signals and abstract sockets, since version 6
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def _make(rights: bytes | None, size: int, flags: int = 0) -> int:
    return call("syscall", numbers(OTHERS)["landlock_create_ruleset"], rights, size, flags)


def restrict(visible: Sequence[str], without: Collection[str] = ()) -> None:
    """Let this process read the `visible` files only; it must have called `give_up_rights` before."""
    if "files" in without:
        return
    version = _make(None, 0, VERSION)
    attributes = struct.pack("QQQ", RIGHTS[min(version, 5)], NETWORK, SCOPES)
    rules = _make(attributes, 8 if version < 4 else 16 if version < 6 else 24)
    for name in visible:
        _allow(rules, name, EXECUTE | READ | (LIST if Path(name).is_dir() else 0))
    for name in DEVICES:
        _allow(rules, name, READ | WRITE)
    call("syscall", numbers(OTHERS)["landlock_restrict_self"], rules, 0)
    os.close(rules)


def _allow(rules: int, name: str, rights: int) -> None:
    file = os.open(name, os.O_PATH | os.O_CLOEXEC)
    call("syscall", numbers(OTHERS)["landlock_add_rule"], rules, BENEATH, struct.pack("=Qi", rights, file), 0)
    os.close(file)
