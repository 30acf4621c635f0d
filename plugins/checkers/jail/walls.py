"""Isolate a process: Linux namespaces, limits, a user without rights, no keys.

This module does not verify its own effect: `probes.py` tries to break out before the first program runs. `without`
names walls to leave out, so that tests can show what each wall prevents.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .syscalls import OTHERS, numbers
from .system import call

MOST_FILES = 64  # open at the same time
NOBODY = 65534
OWN_USERS = 2_000_000_000  # as root, each program gets its own user id from here on: Linux counts processes by user

# <sched.h>, <sys/mount.h>, <linux/mount.h>, <sys/prctl.h>, <linux/capability.h>
NEW_USER, NEW_NET = 0x10000000, 0x40000000
NEW = {"files": 0x00020000, "names": 0x02000000 | 0x04000000, "ipc": 0x08000000, "processes": 0x20000000}
MS_BIND, MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV = 0x1000, 0x4000, 0x40000, 0x2, 0x4
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, RDONLY_NOSUID_NODEV = 442, -100, 0x8000, 0x1 | 0x2 | 0x4
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CAPABILITY_VERSION_3 = 0x20080522
JOIN_SESSION_KEYRING = 1  # <linux/keyctl.h>


def set_dumpable(is_dumpable: bool) -> None:
    """Set whether other processes of the same user may read this process's memory."""
    call("prctl", PR_SET_DUMPABLE, int(is_dumpable), 0, 0, 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def leave_keys() -> None:
    """Join an empty keyring, without the caller's keys; do nothing if the kernel has no keys or refuses."""
    try:
        call("syscall", numbers(OTHERS)["keyctl"], JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise


def enter_namespaces(without: Collection[str] = ()) -> None:
    """Enter new namespaces for processes, network, mounts and names; the next child is process 1.

    Root needs no user namespace for this, and gets none yet: a bind mount of files that only root can read needs
    root's rights. If no network namespace can be made, the system's network stays, but its system calls are refused.
    """
    user, group, is_root = os.geteuid(), os.getegid(), os.geteuid() == 0
    new = sum(flag for name, flag in NEW.items() if name not in without)
    flags = new | (0 if is_root else NEW_USER)
    try:
        call("unshare", flags | (0 if "network" in without else NEW_NET))
    except OSError:
        call("unshare", flags)
    if not is_root:
        with _folder("/proc") as proc:
            _map_user(proc, user, group)


@contextmanager
def _folder(name: str) -> Iterator[int]:
    fd = os.open(name, os.O_PATH)
    try:
        yield fd
    finally:
        os.close(fd)


def _map_user(proc: int, user: int, group: int) -> None:
    """Map this user to nobody, the only user of this user namespace, and forbid nested user namespaces."""
    texts = {
        "self/setgroups": "deny",
        "self/uid_map": f"{NOBODY} {user} 1",
        "self/gid_map": f"{NOBODY} {group} 1",
        "sys/user/max_user_namespaces": "0",
    }
    for name, text in texts.items():
        fd = os.open(name, os.O_WRONLY, dir_fd=proc)
        os.write(fd, text.encode())
        os.close(fd)


def build(visible: Sequence[str], folder_bytes: int, without: Collection[str] = ()) -> None:
    """Build the walls of process 1: its own root folder, and a user without rights."""
    with _folder("/proc") as proc:
        user = _own_user()
        if "files" not in without:
            build_root(visible, folder_bytes)
        if os.geteuid() == 0 and "rights" not in without:
            _become(user, proc)


def _own_user() -> int:
    """Return a user id without other processes, or nobody if the container has few user ids."""
    first, _, count = map(int, Path("/proc/self/uid_map").read_text(encoding="ascii").split()[:3])
    user = OWN_USERS + int(str(Path("/proc/self").readlink()))  # the process id outside the namespace
    return user if first == 0 and count > user else NOBODY


def _become(user: int, proc: int) -> None:
    """Change from root to another user, in its own user namespace if the system allows one."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    set_dumpable(True)  # otherwise root owns /proc/self of this process
    try:
        call("unshare", NEW_USER)
    except OSError:
        return  # then programs cannot make a user namespace either
    _map_user(proc, user, user)


def build_root(visible: Sequence[str], folder_bytes: int) -> None:
    """Make a root folder of the `visible` files and folders, read-only, and an empty folder /jail in memory."""
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    root = Path("/sys")  # an existing folder that contains nothing visible
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for name in visible:
        _show(Path(name), root)
    for name in ("jail", "dev"):
        (root / name).mkdir()
    if not (root / "tmp").exists():
        (root / "tmp").symlink_to("jail")
    devices = [Path("dev") / name for name in ("null", "zero", "urandom")]
    for device in devices:
        (root / device).touch()
    attributes = struct.pack("QQQQ", RDONLY_NOSUID_NODEV, 0, 0, 0)
    call("syscall", MOUNT_SETATTR, AT_FDCWD, os.fsencode(root), AT_RECURSIVE, attributes, len(attributes))
    for device in devices:
        _mount(Path("/") / device, root / device, None, MS_BIND)
    _mount("tmpfs", root / "jail", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=777,size={folder_bytes},nr_inodes=1000")
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)


def _show(path: Path, root: Path) -> None:
    """Mount a file or folder at the same path under the new root; copy a link as a link."""
    place = root / path.relative_to("/")
    if place.exists() or place.is_symlink():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        place.symlink_to(path.readlink())
        return
    place.mkdir() if path.is_dir() else place.touch()
    _mount(path, place, None, MS_BIND | MS_REC)


def _mount(source: object, target: object, kind: str | None, flags: int, options: str = "") -> None:
    texts = [None if text is None else os.fsencode(str(text)) for text in (source, target, kind)]
    call("mount", *texts, flags, os.fsencode(options))


def give_up_rights(without: Collection[str] = ()) -> None:
    """Drop all capabilities for good."""
    if "rights" not in without:
        call("capset", struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def be_first_to_go() -> None:
    """Have the kernel kill this process and its children first when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def set_limits(limits: Mapping[str, int]) -> None:
    """Limit memory, open files, bytes of a file and CPU seconds; `limit_program` lowers the program's CPU seconds."""
    for name, value in {
        "AS": limits["memory"],
        "FSIZE": limits["file_size"],
        "NOFILE": MOST_FILES,
        "CPU": limits["wall"] + limits["cpu"],
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def limit_program(cpu: int, threads: int) -> None:
    """Limit the program's CPU seconds, and the number of threads of program and tests together."""
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_NPROC, (threads, threads))
