"""Namespaces, mounts and capabilities: system calls without a wrapper in Python 3.11.

Standard library only, and cheap to import: a container's first process loads it with `python -I -S`. Every function
raises OSError with the operation in words; none of them prints or retries.

unshare, setns and the capability calls act on the calling *thread*. A multithreaded program uses `in_network_of`, or a
short-lived thread, so that no other thread is moved.
"""

import contextlib
import ctypes
import errno
import os
import re
import threading
from collections.abc import Callable, Collection
from typing import NamedTuple, TypeVar

T = TypeVar("T")

# include/uapi/linux/sched.h
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# include/uapi/linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
OPEN_TREE_CLONE = 0x1
MOVE_MOUNT_F_EMPTY_PATH = 0x4

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# System call numbers; the ones added since Linux 5.0 are the same on every architecture.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41}

# include/uapi/linux/prctl.h and capability.h
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522

CONTAINER_CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
"""The capabilities of a default container in Docker and containerd (containerd `oci/spec.go`, defaultUnixCaps)."""

MACHINE_CAPABILITIES = {
    "LINUX_IMMUTABLE": 9,
    "SYS_MODULE": 16,
    "SYS_RAWIO": 17,
    "SYS_PACCT": 20,
    "SYS_BOOT": 22,
    "SYS_TIME": 25,
    "AUDIT_CONTROL": 30,
    "MAC_OVERRIDE": 32,
    "MAC_ADMIN": 33,
    "SYSLOG": 34,
    "WAKE_ALARM": 35,
    "BLOCK_SUSPEND": 36,
}
"""Capabilities that a whole lab drops: the machine's modules, clock, memory, log and power belong to no namespace."""

_NAMESPACE_NAMES = {
    CLONE_NEWNS: "mount",
    CLONE_NEWCGROUP: "cgroup",
    CLONE_NEWUTS: "uts",
    CLONE_NEWIPC: "ipc",
    CLONE_NEWUSER: "user",
    CLONE_NEWPID: "pid",
    CLONE_NEWNET: "net",
}

_ESCAPED = re.compile(r"\\([0-7]{3})")
"""A character in the kernel's table of mounts."""
_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    """struct mount_attr, include/uapi/linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _checked(result: int, operation: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{operation}: {os.strerror(number)}")
    return result


def _path(path: str | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def namespace_names(flags: int) -> str:
    """Format `CLONE_NEWNET | CLONE_NEWNS` as "mount, net", for messages."""
    return ", ".join(name for flag, name in _NAMESPACE_NAMES.items() if flags & flag) or hex(flags)


def unshare(flags: int) -> None:
    """Move the calling thread to new namespaces; CLONE_NEWPID affects its later children."""
    _checked(_libc.unshare(ctypes.c_int(flags)), f"unshare of {namespace_names(flags)} namespaces")


def setns(descriptor: int, flags: int) -> None:
    """Move the calling thread to the namespace of `descriptor`.

    With a pidfd, `flags` may name several namespaces of that process; all are entered or none. Entering a mount
    namespace requires a thread with its own root: call `unshare(CLONE_FS)` first if there are several threads.
    """
    _checked(
        _libc.setns(ctypes.c_int(descriptor), ctypes.c_int(flags)), f"setns to {namespace_names(flags)} namespaces"
    )


def enter(pid: int, flags: int) -> None:
    """Move the calling thread to those namespaces of process `pid`."""
    descriptor = os.pidfd_open(pid)
    try:
        setns(descriptor, flags)
    finally:
        os.close(descriptor)


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """Call mount(2). `kind` is a file system type, `options` its own comma-separated options."""
    result = _libc.mount(_path(source or "none"), _path(target), _path(kind), ctypes.c_ulong(flags), _path(options))
    _checked(result, f"mount of {kind or source or 'flags'} at {target}")


def umount(target: str, flags: int = 0) -> None:
    """Call umount2(2)."""
    _checked(_libc.umount2(_path(target), ctypes.c_int(flags)), f"umount of {target}")


class Mount(NamedTuple):
    """One line of the kernel's table of mounts."""

    path: str
    kind: str
    read_only: bool


def mounts_below(directory: str) -> list[Mount]:
    """List mounts at or below a directory in this mount namespace, in mount order."""
    found = []
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split()
            path = _ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4])
            if f"{path}/".startswith(f"{directory.rstrip('/')}/"):
                found.append(Mount(path, fields[fields.index("-") + 1], "ro" in fields[5].split(",")))
    return found


def umount_below(directory: str) -> None:
    """Unmount everything at or below a directory; mounts that the kernel keeps busy stay."""
    for mount in reversed(mounts_below(directory)):
        with contextlib.suppress(OSError):
            umount(mount.path, MNT_DETACH)


def make_mounts_private(target: str = "/") -> None:
    """Isolate every mount under `target` from its peers: later mounts stay in this namespace."""
    mount(None, target, flags=MS_REC | MS_PRIVATE)


def clone_tree(path: str) -> int:
    """Return a detached copy of the mounts at and under `path`, as a descriptor for `attach_tree`.

    It can be attached in another mount namespace.
    """
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_RECURSIVE
    result = _libc.syscall(ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_int(AT_FDCWD), _path(path), ctypes.c_uint(flags))
    return _checked(result, f"open_tree of {path}")


def attach_tree(descriptor: int, target: str) -> None:
    """Mount what `clone_tree` returned at `target`."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOVE_MOUNT),
        ctypes.c_int(descriptor),
        b"",
        ctypes.c_int(AT_FDCWD),
        _path(target),
        ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
    )
    _checked(result, f"move_mount to {target}")


def set_mount_attributes(where: str | int, attributes: int, *, recursive: bool) -> None:
    """Call mount_setattr(2): add MOUNT_ATTR_* flags to one mount, given by path or descriptor, or also to all below."""
    wanted = _MountAttributes(attr_set=attributes)
    directory, path = (where, b"") if isinstance(where, int) else (AT_FDCWD, os.fsencode(where))
    flags = (AT_EMPTY_PATH if isinstance(where, int) else 0) | (AT_RECURSIVE if recursive else 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(directory),
        path,
        ctypes.c_uint(flags),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    _checked(result, f"mount_setattr of {where}")


def make_read_only(path: str) -> None:
    """Make the mount at `path` and every mount under it read-only, in this mount namespace."""
    set_mount_attributes(path, MOUNT_ATTR_RDONLY, recursive=True)


def pivot_root(new_root: str) -> None:
    """Make the mount at `new_root` the root of this mount namespace and release the old one; ends in the new `/`."""
    os.chdir(new_root)
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    # With "." twice the old root is mounted on top of the new one, so it needs no directory: pivot_root(2).
    _checked(_libc.syscall(ctypes.c_long(number), b".", b"."), f"pivot_root to {new_root}")
    umount(".", MNT_DETACH)
    os.chdir("/")


def sethostname(name: str) -> None:
    """Set the host name of the calling thread's UTS namespace."""
    raw = os.fsencode(name)
    _checked(_libc.sethostname(raw, ctypes.c_size_t(len(raw))), f"sethostname to {name}")


def _prctl(operation: str, *arguments: int) -> int:
    padded = (*arguments, 0, 0, 0, 0)[:5]
    return _checked(_libc.prctl(*(ctypes.c_ulong(argument) for argument in padded)), operation)


def die_with_parent(signal_number: int) -> None:
    """Make the kernel send this process `signal_number` when its parent thread ends."""
    _prctl("prctl of the parent-death signal", _PR_SET_PDEATHSIG, signal_number)


def limit_capabilities(keep: Collection[int]) -> None:
    """Limit this thread and everything that it executes to the capabilities `keep` (numbers).

    Bounding set, permitted and effective set become `keep` (minus missing ones); inheritable and ambient set become
    empty. Raises OSError without CAP_SETPCAP.
    """
    limit_bounding_set(keep)
    limit_own_capabilities(keep)


def limit_bounding_set(keep: Collection[int]) -> None:
    """Let nothing that this thread executes get capabilities outside of `keep`. Raises OSError without CAP_SETPCAP."""
    number = 0
    while True:
        try:
            present = _prctl("prctl", _PR_CAPBSET_READ, number)
        except OSError:
            break  # EINVAL: past the last capability that this kernel knows.
        if present and number not in keep:
            _prctl(f"drop of capability {number}", _PR_CAPBSET_DROP, number)
        number += 1


def limit_own_capabilities(keep: Collection[int]) -> None:
    """Limit this thread to `keep`, with nothing inheritable or ambient. Raises OSError."""
    with contextlib.suppress(OSError):
        _prctl("clearing of ambient capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(sum(1 << capability for capability in keep))


def no_new_privileges() -> None:
    """Let no program that this thread executes gain privileges: no set-user-ID, no file capabilities."""
    _prctl("prctl of no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)


def give_up_the_machine() -> None:
    """Drop MACHINE_CAPABILITIES for this thread and everything that it executes, including root and privileged."""
    limit_capabilities(frozenset(range(64)) - frozenset(MACHINE_CAPABILITIES.values()))


def _set_capabilities(mask: int) -> None:
    """Intersect permitted and effective with `mask`; clear inheritable."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Two blocks (numbers 0-31, 32-63) of effective, permitted, inheritable.
    data = (ctypes.c_uint32 * 6)()
    _checked(_libc.capget(header, data), "capget")
    for block in range(2):
        part = (mask >> (32 * block)) & 0xFFFFFFFF
        data[3 * block] &= part
        data[3 * block + 1] &= part
        data[3 * block + 2] = 0
    _checked(_libc.capset(header, data), "capset")


def in_new_thread(work: Callable[[], T]) -> T:
    """Run `work` in a temporary thread, and return its result or raise its exception.

    Namespaces that `work` enters end with the thread; its descriptors and child processes stay. Raises BlockingIOError,
    like a fork, if a limit of processes is reached.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="namespace visitor")
    try:
        thread.start()
    except RuntimeError as error:
        raise BlockingIOError(errno.EAGAIN, str(error)) from error
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def in_network_of(pid: int, work: Callable[[], T]) -> T:
    """Run `work` inside the network namespace of process `pid`; its sockets stay there permanently.

    Example: `in_network_of(pid, lambda: socket.create_server(("", 80)))`. Raises ProcessLookupError if the process is
    gone, else OSError, or the exception of `work`.
    """

    def visit() -> T:
        enter(pid, CLONE_NEWNET)
        return work()

    return in_new_thread(visit)
