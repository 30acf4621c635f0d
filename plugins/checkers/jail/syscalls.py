"""System calls that a program may use. Linux (seccomp) refuses all others.

The list covers what Python and numpy need for computing and for using the program's folder. It excludes new processes,
sockets, signals to other processes, keys, shared memory, namespaces, mounts, tracing, io_uring, bpf and all calls that
later versions of Linux add.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator

from .system import call

# name:x86_64:aarch64, of <asm/unistd.h>
ALLOWED = """
    read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70
    open:2: openat:257:56 close:3:57 close_range:436:436 stat:4: fstat:5:80 lstat:6: newfstatat:262:79
    statx:332:291 access:21: faccessat:269:48 faccessat2:439:439 readlink:89: readlinkat:267:78 getcwd:79:17
    getdents:78: getdents64:217:61 statfs:137:43 fstatfs:138:44 lseek:8:62 fsync:74:82 fdatasync:75:83
    ftruncate:77:46 fallocate:285:47 fadvise64:221:223 sendfile:40:71 copy_file_range:326:285 dup:32:23 dup2:33:
    dup3:292:24 pipe:22: pipe2:293:59 sendto:44:206 recvfrom:45:207 shutdown:48:210 getsockopt:55:209
    getsockname:51:204 getpeername:52:205 poll:7: ppoll:271:73 select:23: pselect6:270:72 epoll_create1:291:20
    epoll_ctl:233:21 epoll_wait:232: epoll_pwait:281:22 eventfd2:290:19 mmap:9:222 munmap:11:215 mremap:25:216
    mprotect:10:226 madvise:28:233 brk:12:214 msync:26:227 futex:202:98 set_robust_list:273:99
    rseq:334:293 set_tid_address:218:96 rt_sigaction:13:134
    rt_sigprocmask:14:135 rt_sigreturn:15:139 sigaltstack:131:132 rt_sigtimedwait:128:137 rt_sigpending:127:136
    rt_sigsuspend:130:133 pause:34: alarm:37: setitimer:38:103 getitimer:36:102 nanosleep:35:101
    clock_nanosleep:230:115 clock_gettime:228:113 clock_getres:229:114 gettimeofday:96:169 time:201: times:100:153
    getrusage:98:165 getpid:39:172 getppid:110:173 gettid:186:178 getuid:102:174 geteuid:107:175 getgid:104:176
    getegid:108:177 getresuid:118:148 getresgid:120:150 getgroups:115:158
    uname:63:160 sysinfo:99:179 getcpu:309:168 sched_yield:24:124 sched_getaffinity:204:123
    getrandom:318:278 getrlimit:97:163 exit:60:93 exit_group:231:94 restart_syscall:219:128 wait4:61:260
    chdir:80:49 fchdir:81:50 umask:95:166
"""
OWN_FOLDER = """
    mkdir:83: mkdirat:258:34 rmdir:84: rename:82: renameat:264:38 renameat2:316:276 link:86: linkat:265:37
    symlink:88: symlinkat:266:36 unlink:87: unlinkat:263:35 truncate:76:45 chmod:90: fchmod:91:52 fchmodat:268:53
    utimensat:280:88 utime:132: utimes:235: flock:73:32
"""
LIMITED = """
    clone:56:220 prctl:157:167 ioctl:16:29 fcntl:72:25 kill:62:129 tgkill:234:131 prlimit64:302:261
    socketpair:53:199
"""
OTHERS = """
    clone3:435:435 keyctl:250:219 add_key:248:217 request_key:249:218 landlock_create_ruleset:444:444
    landlock_add_rule:445:445 landlock_restrict_self:446:446 mount_setattr:442:442
"""
MACHINES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}  # <linux/audit.h>, field in the tables above
NEW_THREAD, NEW_NAMESPACES = 0x00010000, 0x7E020080  # <sched.h>; a child without NEW_THREAD is a new process

# <linux/filter.h>, <linux/seccomp.h>; offsets in struct seccomp_data
LOAD, AND, IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
NUMBER, MACHINE, ARGUMENTS = 0, 4, 16
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2

Instruction = tuple[int, int, int, int]
Condition = tuple[int, int, tuple[int, ...]]  # index of the argument, mask, allowed values


def numbers(table: str) -> dict[str, int]:
    """Return the numbers of calls on this machine; raise OSError for an unknown architecture."""
    if os.uname().machine not in MACHINES:
        raise OSError(f"no system call filter for {os.uname().machine}; expected {' or '.join(MACHINES)}")
    which = MACHINES[os.uname().machine][1]
    fields = [word.split(":") for word in table.split()]
    return {field[0]: int(field[which]) for field in fields if field[which]}


def _conditions(pid: int, has_folder: bool) -> dict[str, list[Condition]]:
    """Return the calls that are allowed only with certain arguments."""
    conditions: dict[str, list[Condition]] = {
        "prctl": [(0, 0xFFFFFFFF, (15, 16))],  # set or get the name of a thread
        "ioctl": [(1, 0xFFFFFFFF, (0x5401, 0x5413, 0x5421, 0x541B, 0x5450, 0x5451))],  # queries of terminals and pipes
        "fcntl": [(1, 0xFFFFFFFF, (0, 1, 2, 3, 4, 1030, 1032))],  # no locks, no setting of signal owners
        "kill": [(0, 0xFFFFFFFF, (pid,))],
        "tgkill": [(0, 0xFFFFFFFF, (pid,))],
        "prlimit64": [(0, 0xFFFFFFFF, (0,))],  # its own limits only
        "socketpair": [(0, 0xFFFFFFFF, (1,)), (1, 0xF, (1,))],  # stream sockets, which cannot send to other addresses
    }
    if has_folder:  # with namespaces, the program has its own user, whose threads are counted
        conditions["clone"] = [(0, NEW_THREAD | NEW_NAMESPACES, (NEW_THREAD,))]
    return conditions


def _filter(pid: int, has_folder: bool) -> Iterator[Instruction]:
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    yield LOAD, 0, 0, MACHINE
    yield IF_EQUAL, 1, 0, MACHINES[os.uname().machine][0]
    yield refuse
    yield LOAD, 0, 0, NUMBER
    yield IF_EQUAL, 0, 1, numbers(OTHERS)["clone3"]
    yield RETURN, 0, 0, REFUSE | errno.ENOSYS  # so that the C library uses clone: the filter can read its arguments
    for number in numbers(ALLOWED + OWN_FOLDER * has_folder).values():
        yield IF_EQUAL, 0, 1, number
        yield RETURN, 0, 0, ALLOW
    limited = numbers(LIMITED)
    for name, conditions in _conditions(pid, has_folder).items():
        body = [step for condition in conditions for step in _test(condition, refuse)] + [(RETURN, 0, 0, ALLOW)]
        yield IF_EQUAL, 0, len(body), limited[name]
        yield from body
    yield refuse


def _test(condition: Condition, refuse: Instruction) -> Iterator[Instruction]:
    """Yield instructions that refuse a call if an argument has none of the allowed values (lower 32 bits only)."""
    index, mask, values = condition
    yield LOAD, 0, 0, ARGUMENTS + 8 * index
    yield AND, 0, 0, mask
    for left, value in enumerate(reversed(values), 1):
        yield IF_EQUAL, len(values) - left + 1, 0, value
    yield refuse


def restrict(pid: int, *, has_folder: bool) -> None:
    """Refuse all other calls to this process, which must have given up rights; allow signals to `pid` only."""
    steps = [struct.pack("HBBI", *step) for step in _filter(pid, has_folder)]
    program = ctypes.create_string_buffer(b"".join(steps))
    call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, struct.pack("HP", len(steps), ctypes.addressof(program)), 0, 0)
