"""Programs that attack the jail, by wall: what they do is in one line of Python, true where they reached something.

Each block names the walls that stop its attacks, any one of which is enough; a limit is named with what it is without
the wall. Targets (t) are made by the tests: files, a listening port, a key, a process, memory that is shared.
"""

# ruff: noqa: E501  a program is a line

from __future__ import annotations

import re
from dataclasses import dataclass

PRELUDE = """
import ctypes, mmap, os, resource, signal, socket, struct, subprocess, threading, time, types
libc = ctypes.CDLL(None, use_errno=True)
t = types.SimpleNamespace(**TARGETS)
def long(value):
    return ctypes.c_long(value) if isinstance(value, int) else value
def call(number, *arguments):
    return libc.syscall(long(number), *map(long, arguments))
def works(number, *arguments):
    return call(number, *arguments) >= 0
def does(function, *arguments):
    function(*arguments)
    return True
def sends(family, kind, address, data=b"x"):
    with socket.socket(family, kind) as s:
        s.settimeout(2)
        s.connect(address)
        return s.send(data) == 1
def key():
    return call(250, 10, -3, b"user", t.key_name.encode(), 0)
def child(work):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work() else 1)
    return os.waitpid(pid, 0)[1] == 0
def burn(seconds):
    while time.process_time() < seconds: pass
    return True
"""


@dataclass(frozen=True)
class Attack:
    """A program, and the walls each of which stops it; `loose` is the limit that is wider without them."""

    group: str
    name: str
    program: str
    tests: str
    kind: str = "namespaces"
    walls: tuple[str, ...] = ()
    loose: tuple[tuple[str, int], ...] = ()


def _block(group: str, walls: str, lines: str, *, kind: str = "namespaces", **loose: int) -> list[Attack]:
    blocks = []
    for name, body in re.findall(r"^(\w+): (.*)$", lines, re.MULTILINE):
        program = f"{PRELUDE}def f():\n    {body}\n"
        blocks.append(Attack(group, name, program, "assert f()", kind, tuple(walls.split()), tuple(loose.items())))
    return blocks


READS = """
reads_a_file: return open(t.secret).read() == 'secret'
reads_by_a_long_way_up: return open('../' * 30 + t.secret).read() == 'secret'
reads_beneath_an_open_folder: return os.read(os.open('secret', 0, dir_fd=os.open(t.folder, os.O_RDONLY)), 9) == b'secret'
maps_a_file: return mmap.mmap(os.open(t.secret, os.O_RDONLY), 6, prot=mmap.PROT_READ)[:] == b'secret'
lists_a_folder: return 'secret' in os.listdir(t.folder)
lists_the_folder_above: return os.path.basename(t.folder) in os.listdir(os.path.dirname(t.folder))
reads_users: return 'root' in open('/etc/passwd').read()
reads_processes: return '1' in os.listdir('/proc')
reads_its_own_status: return 'Name' in open('/proc/self/status').read()
reads_the_kernels_settings: return open('/proc/sys/kernel/ostype').read() == 'Linux\\n'
reads_the_commands_of_others: return bool(open(f'/proc/{t.pid}/cmdline').read())
reads_of_devices: return bool(os.listdir('/sys'))
lists_devices: return 'tty' in os.listdir('/dev')
writes_a_new_file: return open(t.folder + '/new', 'w').write('x') == 1
writes_by_appending: return open(t.secret, 'a').write('x') == 1
writes_over_a_file: return open(t.secret, 'w').write('x') == 1
makes_a_file_without_a_name: return os.open(t.folder, os.O_TMPFILE | os.O_RDWR, 0o600) > 0
"""
CHANGES = """
makes_a_folder: return does(os.mkdir, t.folder + '/new')
makes_a_link: return does(os.symlink, '/', t.folder + '/new')
makes_a_hard_link: return does(os.rename, t.folder + '/other', t.folder + '/new')
removes_a_file: return does(os.unlink, t.folder + '/other')
removes_a_folder: return does(os.rmdir, t.folder + '/empty')
truncates_a_file: return does(os.truncate, t.secret, 1)
"""
ODDLY = """
reads_by_openat2: return works(437, -100, t.secret.encode(), struct.pack('QQQ', 0, 0, 0), 24)
makes_a_fifo: return does(os.mkfifo, t.folder + '/new')
"""
LOOKS = """
sees_a_size: return os.stat(t.secret).st_size == 6
sees_a_folder: return does(os.chdir, t.folder)
sees_a_link: return os.readlink(t.folder + '/link') == '/'
sees_what_it_may: return os.access(t.secret, os.R_OK)
"""
OWNS = """
touches_a_file: return does(os.utime, t.secret)
changes_rights: return does(os.chmod, t.secret, 0o644)
changes_the_owner: return does(os.chown, t.secret, os.getuid(), os.getgid())
watches_a_folder: return libc.inotify_add_watch(libc.inotify_init(), t.folder.encode(), 2) > 0
writes_an_attribute: return works(188, t.secret.encode(), b'user.x', b'x', 1, 0)
"""
HANDLES = """
makes_a_handle: return works(303, -100, b'/jail', struct.pack('Ii', 128, 0) + bytes(128), ctypes.byref(ctypes.c_int()), 0)
"""
MOUNTS = """
mounts: return libc.mount(b'x', b'/jail', b'tmpfs', 0, None) == 0
unmounts: return libc.umount2(b'/jail', 2) == 0
mounts_anew_to_write: return libc.mount(None, b'/usr', None, long(32 | 4096), None) == 0
changes_the_root: return libc.chroot(b'/usr') == 0
makes_a_device: return does(os.mknod, 'kmsg', 0o20666, os.makedev(1, 11))
opens_a_file_system: return works(430, b'tmpfs', 0)
copies_a_mount: return works(428, -100, b'/usr', 1)
leaves_for_new_mounts: return works(272, 0x20000)
"""
CONNECTS_PLAINLY = """
connects: return sends(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', t.port))
connects_by_version_6: return sends(socket.AF_INET6, socket.SOCK_STREAM, ('::ffff:127.0.0.1', t.port))
connects_to_an_abstract_name: return sends(socket.AF_UNIX, socket.SOCK_STREAM, '\\0' + t.abstract)
"""
LISTENS_AT_FILE = """
listens_at_a_file: return does(socket.socket(socket.AF_UNIX).bind, t.folder + '/new')
"""
LISTENS = """
listens: s = socket.socket(); s.bind(('0.0.0.0', 0)); return does(s.listen)
"""
CONNECTS = """
sends_a_datagram: return sends(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', t.port))
connects_by_many_ways: return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(('127.0.0.1', t.port)) is None
connects_with_its_data: return socket.socket().sendto(b'x', socket.MSG_FASTOPEN, ('127.0.0.1', t.port)) == 1
"""
CONNECTS_BY_FILE = """
connects_to_a_file: return sends(socket.AF_UNIX, socket.SOCK_STREAM, t.socket)
sends_to_a_file: return sends(socket.AF_UNIX, socket.SOCK_DGRAM, t.datagrams)
sends_from_a_pair: return socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b'x', t.datagrams) == 1
"""
SOCKETS = """
makes_a_socket: return bool(socket.socket())
makes_a_local_socket: return bool(socket.socket(socket.AF_UNIX))
reaches_the_host: return bool(socket.socket(40, socket.SOCK_STREAM))
asks_for_networks: return bool(socket.if_nameindex())
listens_to_the_kernel: s = socket.socket(16, 2, 15); return does(s.bind, (0, 0))
passes_an_open_file: a, b = socket.socketpair(); return bool(socket.send_fds(a, [b'x'], [0]))
enlarges_a_buffer: return does(socket.socketpair()[0].setsockopt, 1, 7, 1 << 17)
"""
RAW = """
makes_a_raw_socket: return bool(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
reads_packets: return bool(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
"""
KEYS = """
finds_a_key: return key() == t.key
reads_a_key: b = ctypes.create_string_buffer(9); return works(250, 11, t.key, b, 9) and b.value == b'secret'
reads_what_keys_there_are: b = (ctypes.c_int * 99)(); return works(250, 11, -3, b, 396) and t.key in list(b)
overwrites_a_key: return works(250, 2, t.key, b'changed', 7)
revokes_a_key: return works(250, 3, t.key)
invalidates_a_key: return works(250, 21, t.key)
removes_a_key: return works(250, 9, t.key, -3) and key() < 0
lets_a_key_expire: return works(250, 15, t.key, 100)
links_a_key: return works(250, 8, t.key, -2)
moves_a_key: return works(250, 30, t.key, -3, -2, 0)
requests_a_key: return call(249, b'user', t.key_name.encode(), None, 0) == t.key
"""
POSSESSED_KEYS = """
opens_a_key_to_all: return works(250, 5, t.key, 0x3f3f3f3f)
"""
OWNED_KEYS = """
describes_a_key: return works(250, 6, t.key, ctypes.create_string_buffer(99), 99)
"""
OTHER_KEYS = """
adds_a_key: return works(248, b'user', b'mine', b'x', 1, -3)
adds_a_large_key: return works(248, b'user', b'mine', bytes(9000), 9000, -2)
has_a_keyring_made: return works(250, 0, -2, 1)
joins_another_keyring: return works(250, 1, b'harness-other')
clears_its_keyring: return works(250, 7, -3)
asks_what_keys_can_do: return works(250, 31, bytes(9), 9)
"""
SHARED = """
reads_shared_memory: p = libc.shmat(libc.shmget(t.ipc, 0, 0), None, 0); return p != -1
counts_shared_memory: return works(31, 0, 14, bytes(200)) and libc.shmget(t.ipc, 0, 0) >= 0
describes_shared_memory: return libc.shmctl(libc.shmget(t.ipc, 0, 0), 2, bytes(200)) == 0
sends_a_message: return libc.msgsnd(libc.msgget(t.ipc, 0), struct.pack('lc', 1, b'x'), 1, 2048) == 0
describes_messages: return libc.msgctl(libc.msgget(t.ipc, 0), 2, bytes(200)) == 0
raises_a_semaphore: return libc.semop(libc.semget(t.ipc, 0, 0), struct.pack('HhH', 0, 1, 2048), 1) == 0
reads_a_semaphore: return libc.semctl(libc.semget(t.ipc, 0, 0), 0, 12) >= 0
"""
OTHERS_MEMORY = """
traces: return works(101, 0x4206, t.pid, 0, 0)
opens_files_of_another: return works(438, call(434, t.pid, 0), 0, 0)
compares_with_another: return works(312, t.pid, t.pid, 0, 0, 0)
limits_another: return works(302, t.pid, 7, struct.pack('QQ', 50, 50), None)
reads_limits_of_another: return works(302, t.pid, 7, None, bytearray(16) and ctypes.create_string_buffer(16))
places_another: return does(os.sched_setaffinity, t.pid, [0])
slows_another: return does(os.setpriority, os.PRIO_PROCESS, t.pid, 19)
schedules_another: return does(os.sched_setscheduler, t.pid, os.SCHED_BATCH, os.sched_param(0))
"""
KERNEL = """
handles_faults: return works(323, 1)
changes_its_kind: return works(135, 0x0040000)
reads_the_clocks_state: return works(159, ctypes.create_string_buffer(208))
changes_its_table: return works(154, 0, ctypes.create_string_buffer(16), 16)
advises_another: return works(239, None, None, 0, None, 0)
"""
PRIVILEGED = """
has_a_ring: return works(425, 4, ctypes.create_string_buffer(120))
loads_a_program_of_the_kernel: return works(321, 0, struct.pack('IIII', 2, 4, 4, 1) + bytes(100), 72)
renames_the_machine: return libc.sethostname(b'x', 1) == 0
becomes_root: return libc.setuid(0) == 0 and os.getuid() == 0
takes_groups: return does(os.setgroups, [0])
measures_the_machine: return works(298, struct.pack('IIQQQQQ', 1, 120, 0, 0, 0, 0, 0) + bytes(72), -1, 0, -1, 0)
locks_memory: return libc.mlock(ctypes.create_string_buffer(9), long(1)) == 0
locks_all_memory: return libc.mlockall(2) == 0
"""
SPACE = """
maps_2_GiB: return does(mmap.mmap, -1, 2 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
maps_2_GiB_to_share: return does(mmap.mmap, -1, 2 << 30, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x4000)
maps_many_pieces: keep = [mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE) for _ in range(32)]; return True
grows_a_piece: return does(mmap.mmap(-1, 4096, mmap.MAP_PRIVATE).resize, 2 << 30)
grows_its_heap: return libc.sbrk(long(1 << 30)) != -1 and libc.sbrk(long(1 << 30)) != -1
has_large_stacks: threading.stack_size(1 << 29); go = threading.Event(); [threading.Thread(target=go.wait).start() for _ in range(3)]; go.set(); return True
"""
DETACHED = """
has_memory_that_it_detaches: return all(libc.shmget(0, long(1 << 29), 0o1600) >= 0 for _ in range(5))
has_files_in_memory: return all(works(319, b'x', 0) for _ in range(9))
has_secret_memory: return works(447, 0) or ctypes.get_errno() == 38
has_many_semaphores: return all(libc.semget(0, 100, 0o1600) >= 0 for _ in range(5))
keeps_messages: return libc.msgsnd(libc.msgget(0, 0o1600), struct.pack('l', 1) + bytes(4096), 4096, 2048) == 0
has_large_pipes: import fcntl; return fcntl.fcntl(os.pipe()[0], 1031, 1 << 20) >= 1 << 20
moves_pages_to_a_pipe: return works(278, os.pipe()[1], struct.pack('PN', id(f), 8), 1, 0)
has_children_with_memory: return child(lambda: mmap.mmap(-1, 600 << 20) and child(lambda: mmap.mmap(-1, 600 << 20)))
"""
STARTS = """
forks: return child(lambda: True)
forks_for_ever: return all(os.fork() >= 0 for _ in range(2))
forks_in_place: return works(56, 17, 0, 0, 0, 0)
forks_the_new_way: return works(435, struct.pack('QQQQQQQQ', 0, 0, 0, 0, 17, 0, 0, 0), 64)
spawns: return os.posix_spawn('/usr/bin/env', ['env'], {}) > 0
runs_a_shell: return os.system('true') == 0
runs_a_command: return subprocess.run(['/usr/bin/env']).returncode == 0
reads_of_a_command: return bool(os.popen('env').read())
shares_work: import multiprocessing as m; p = m.get_context('fork').Process(target=int); p.start(); p.join(); return p.exitcode == 0
leaves_a_process: return child(lambda: (os.setsid(), os.fork()))
uses_twice_its_time: return child(lambda: burn(.7)) and child(lambda: burn(.7))
has_children_that_use_its_time: return child(lambda: child(lambda: burn(.7)) and burn(.7)) and burn(.3)
has_a_session: return does(os.setsid) or True
"""
EXECUTES = """
becomes_a_command: pid = os.fork(); pid or os.execv('/usr/bin/env', ['env']); return os.waitpid(pid, 0)[1] == 0
becomes_an_open_file: pid = os.fork(); pid or os.execve(os.open('/usr/bin/env', 0), ['env'], {}); return os.waitpid(pid, 0)[1] == 0
"""
SPACES = """
has_new_processes: return works(272, 0x20000000)
has_a_new_network: return works(272, 0x40000000)
has_new_names: return works(272, 0x04000000)
has_new_shared_memory: return works(272, 0x08000000)
"""
SIGNALS = """
signals: return does(os.kill, t.pid, 0)
signals_a_thread: return works(234, t.pid, t.pid, 0)
signals_a_thread_by_number: return works(200, t.pid, 0)
signals_a_group: return does(os.killpg, t.pid, 0)
signals_by_a_handle: return does(signal.pidfd_send_signal, os.pidfd_open(t.pid), 0)
holds_another: return os.pidfd_open(t.pid) > 0 and os.kill(t.pid, 0) is None
has_a_file_signal: import fcntl; return fcntl.fcntl(os.pipe()[0], 8, t.pid) == 0 and os.kill(t.pid, 0) is None
"""
JUDGE_SIGNALS = """
signals_the_tests: return does(os.kill, os.getppid(), 0)
signals_a_thread_of_the_tests: return works(234, os.getppid(), os.getppid(), 0)
signals_its_group: return does(os.kill, 0, 0)
holds_the_tests: return os.pidfd_open(os.getppid()) > 0
outlives_the_tests: return libc.prctl(1, 0, 0, 0, 0) == 0
has_timers: return works(222, 0, None, ctypes.byref(ctypes.c_int()))
waits_for_signals_in_a_file: return libc.signalfd(-1, bytes(128), 0) >= 0
"""
JUDGE_MEMORY = """
traces_the_tests: return works(101, 0x4206, os.getppid(), 0, 0)
reads_the_tests: b = ctypes.create_string_buffer(1); return libc.process_vm_readv(os.getppid(), struct.pack('PN', ctypes.addressof(b), 1), long(1), struct.pack('PN', id(None), 1), long(1), long(0)) == 1
writes_the_tests: b = ctypes.create_string_buffer(8); return libc.process_vm_writev(os.getppid(), struct.pack('PN', id(None) - 0, 0), long(1), struct.pack('PN', id(None), 0), long(1), long(0)) == 0 and works(101, 0x4206, os.getppid(), 0, 0)
"""

MANY = "w = threading.Event(); return [threading.Thread(target=w.wait, daemon=True).start() for _ in range(20)] != []"
FILLS = "return all(open(str(n), 'wb').write(bytes(1 << 20)) for n in range(72))"
LARGE = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); return open('x', 'wb', 0).write(bytes(18 << 20)) == 18 << 20"

ATTACKS = [
    *_block("file", "files", READS + LOOKS),
    *_block("file", "files", CHANGES),
    *_block("file", "files calls", ODDLY),
    *_block("file", "files calls", ODDLY, kind="landlock"),
    *_block("file", "calls", HANDLES),
    *_block("file", "files", READS, kind="landlock"),
    *_block("file", "files calls", CHANGES, kind="landlock"),
    *_block("file", "calls", OWNS, kind="landlock"),
    *_block("file", "rights calls", MOUNTS),
    *_block("network", "network calls", CONNECTS_PLAINLY + CONNECTS),
    *_block("network", "files calls", CONNECTS_PLAINLY + LISTENS + LISTENS_AT_FILE, kind="landlock"),
    *_block("network", "files calls", CONNECTS_BY_FILE + LISTENS_AT_FILE),
    *_block("network", "calls", LISTENS + SOCKETS),
    *_block("network", "calls", CONNECTS + CONNECTS_BY_FILE + SOCKETS, kind="landlock"),
    *_block("network", "rights calls", RAW),
    *_block("keyring", "keys calls", KEYS + OWNED_KEYS),
    *_block("keyring", "keys calls", KEYS, kind="landlock"),
    *_block("keyring", "calls", OTHER_KEYS),
    *_block("keyring", "calls", OWNED_KEYS, kind="landlock"),
    *_block("keyring", "keys calls", POSSESSED_KEYS, kind="landlock"),
    *_block("keyring", "files", "reads_of_keys: return t.key_name in open('/proc/keys').read()"),
    *_block("ipc", "ipc calls", SHARED),
    *_block("ipc", "calls", SHARED, kind="landlock"),
    *_block("ipc", "calls", KERNEL),
    *_block("ipc", "rights calls", PRIVILEGED),
    *_block("ipc", "processes rights calls", OTHERS_MEMORY),
    *_block("ipc", "files", "opens_shared_memory: return open('/dev/shm/' + t.shared).read() == 'secret'"),
    *_block("memory", "", SPACE, memory=6 << 30),
    *_block("memory", "", SPACE.partition("has_large")[0], kind="landlock", memory=6 << 30),
    *_block("memory", "calls", DETACHED),
    *_block("memory", "", f"fills_its_folder: {FILLS}", folder=1 << 28),
    *_block("memory", "", f"has_a_large_file: {LARGE}", file_size=1 << 28),
    *_block("fork", "", f"has_many_threads: {MANY}", threads=100),
    *_block("fork", "calls", STARTS + EXECUTES),
    *_block("fork", "calls", STARTS + EXECUTES, kind="landlock"),
    *_block("fork", "rights calls", SPACES),
    *_block("signals", "processes rights calls", SIGNALS),
    *_block("signals", "files calls", SIGNALS, kind="landlock"),
    *_block("signals", "calls", JUDGE_SIGNALS, kind="landlock"),
    *_block("signals", "calls", JUDGE_SIGNALS),
    *_block("signals", "rights calls", JUDGE_MEMORY),
]
