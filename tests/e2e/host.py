"""What the host sees of a lab, its processes and namespaces, and what of the host itself must stay the same."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NAMESPACE_KINDS = ("net", "mnt", "pid", "ipc", "uts")
WATCHED_DIRECTORIES = ("/etc", "/root", "/home", "/srv", "/usr/local", "/var")
WATCHED_DEPTH = 3
"""Directories below those that are looked into; further down are other people's source trees and toolchains."""
BUSY_DIRECTORIES = frozenset(
    {"/var/log", "/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/root/.cache", "/root/.npm", "/var/tmp"}
)
"""Somebody else writes there while a test runs."""
OF_AN_INSTALLATION = frozenset({"/usr/local/bin/testbed"})
"""What scripts/install of another clone writes."""
LEAVINGS = ("*.log", "*hsperf*/[0-9]*", "default.etcd", "etcd*", "mn*", "nginx*", "tomcat*", "vconn*")
"""What programs of a lab would leave in /tmp if they saw the host's."""
OF_A_LAB = ("etcd1", "gw", "node1", "node2", "s1", "echo1", "echo2", "shell1", "shell2")
SETTINGS_IN_SYS = (
    "/sys/kernel/mm/ksm/sleep_millisecs",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs",
    "/sys/module/tcp_cubic/parameters/beta",
)
VOLATILE_SYSCTLS = (
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota/",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random/",
    "net/netfilter/nf_conntrack_count",
    "vm/stat_refresh",
)

OF_BRIDGE_FILTERING = frozenset(
    {
        "module br_netfilter",
        *(f"sysctl /proc/sys/net/bridge/bridge-nf-call-{kind}" for kind in ("arptables", "ip6tables", "iptables")),
    }
)
"""What the lab itself loads, and has to take away again."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """A lab's processes (pid and start time) and the namespaces that are not the host's, as inode numbers."""

    processes: frozenset[tuple[int, int]]
    namespaces: frozenset[str]
    _ended_at: list[int] = field(default_factory=list, compare=False)

    def remains(self) -> list[str]:
        """Return what of it is still there. To be asked after the lab was ended, and then as often as one likes."""
        found = [f"process {pid}" for pid, ticks in self.processes if _start_ticks(pid) == ticks]
        if not self._ended_at:
            self._ended_at.append(_ticks_now())
        for pid in _pids():
            # The kernel gives a namespace's number to the next one: whoever began later may have that one.
            if (_start_ticks(pid) or 0) > self._ended_at[0]:
                continue
            held = self.namespaces & set(_namespaces(pid).values())
            opened = self.namespaces & set(_open_files(pid))
            found += [f"process {pid} has {name}" for name in held | opened]
        mounts = Path("/proc/self/mountinfo").read_text()
        return found + [f"mounted {name}" for name in self.namespaces if name in mounts]


def footprint(first: int) -> Footprint:
    """Return the footprint of the lab whose first process is `first`, seen from the host."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        children.setdefault(_parent(pid), []).append(pid)
    found, waiting = set(), [first]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    hosts = set(_namespaces(os.getpid()).values())
    namespaces = {name for pid in found for name in _namespaces(pid).values()} - hosts
    processes = {(pid, ticks) for pid in found if (ticks := _start_ticks(pid)) is not None}
    return Footprint(frozenset(processes), frozenset(namespaces))


def pid_in(lab_processes: Footprint, command: str) -> int:
    """Return the pid, as the host sees it, of a lab's process whose command line contains `command`."""
    return next(pid for pid, _ in sorted(lab_processes.processes) if command in _command_line(pid))


def network_state() -> dict[str, str]:
    """Return the host's own links, addresses, routes, rules and names of namespaces."""
    commands = {
        "links": ["ip", "-o", "link"],
        "addresses": ["ip", "-o", "address"],
        "routes": ["ip", "route", "show", "table", "all"],
        "policy": ["ip", "rule"],
        "nft": ["nft", "--stateless", "list", "ruleset"],
    }
    return {
        name: subprocess.run(words, capture_output=True, text=True, check=True).stdout
        for name, words in commands.items()
    }


def mounts() -> list[str]:
    """Return the host's mounts; of the named network namespaces only those that a lab would make."""
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if not _is_somebodys_namespace(line)]


def sysctls() -> dict[str, bytes]:
    """Return every value below /proc/sys that does not change by itself."""
    found = {}
    for directory, _, names in os.walk("/proc/sys"):
        for name in names:
            path = f"{directory}/{name}"
            if path.removeprefix("/proc/sys/").startswith(VOLATILE_SYSCTLS):
                continue
            try:
                with open(path, "rb") as file:
                    found[path] = file.read()
            except OSError:  # some are only for writing
                continue
    return found


def files() -> dict[str, tuple[int, ...]]:
    """Return kind, owner, size and modification time of every file that a lab could plausibly touch."""
    found: dict[str, tuple[int, ...]] = {}
    for top in WATCHED_DIRECTORIES:
        for path in _walk(top, WATCHED_DEPTH):
            try:
                status = os.lstat(path)
            except FileNotFoundError:  # another program's temporary file
                continue
            found[path] = (status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_ctime_ns)
    for pattern in LEAVINGS:
        for left in Path("/tmp").glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                found[str(left)] = (left.lstat().st_ino,)
    return found


def run_files(lab: str) -> frozenset[str]:
    """Return every path below /run but those of other labs, of named namespaces and of sessions, and the place of all
    labs.
    """
    found = set()
    for directory, directories, names in os.walk("/run"):
        if directory == "/run":
            directories[:] = [name for name in directories if name not in ("netns", "user", "lock", "systemd", "udev")]
        elif directory == "/run/testbed":
            directories[:] = [name for name in directories if name == lab]
            names = [name for name in names if not name.endswith(".lock")]
        found |= {f"{directory}/{name}" for name in (*directories, *names)}
    return frozenset(found - {"/run/testbed"})


def modules() -> frozenset[str]:
    """Return the kernel's loaded modules."""
    try:
        return frozenset(line.split()[0] for line in Path("/proc/modules").read_text().splitlines())
    except FileNotFoundError:
        return frozenset()


def everything(lab: str) -> dict[str, object]:
    """Return all of the above but processes, and settings below /sys; `lab` is the one whose traces are looked for."""
    state: dict[str, object] = {f"{name}": text for name, text in network_state().items()}
    state |= {f"mount {line}": True for line in mounts()}
    state |= {f"file {path}": what for path, what in files().items()}
    state |= {f"file {path}": True for path in run_files(lab)}
    state |= {f"module {name}": True for name in modules()}
    state |= {f"setting {path}": text for path in SETTINGS_IN_SYS if (text := _text(path)) is not None}
    return state | {f"sysctl {path}": value for path, value in sysctls().items()}


def difference(one: dict[str, object], other: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Return what changed, came or went; modules that the kernel loads by itself may come, and their sysctls."""
    return {
        key: (one.get(key), other.get(key))
        for key in one.keys() | other.keys()
        if one.get(key) != other.get(key) and not (_comes_with_a_module(key) and key not in one)
    }


def _comes_with_a_module(key: str) -> bool:
    return key.startswith(("module ", "sysctl ")) and key not in OF_BRIDGE_FILTERING


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None


def _walk(directory: str, depth: int) -> Iterator[str]:
    if depth < 0 or directory in BUSY_DIRECTORIES:
        return
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, depth - 1)
        elif entry.path not in OF_AN_INSTALLATION:
            yield entry.path


def _is_somebodys_namespace(mount: str) -> bool:
    point = mount.split()[1]
    return point.startswith("/run/netns") and point.rpartition("/")[2] not in OF_A_LAB


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _start_ticks(pid: int) -> int | None:
    """Return a process's start time; None if it is gone, or a zombie, which holds nothing but its number."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def _ticks_now() -> int:
    """Return the time since boot in the unit of /proc/PID/stat."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _namespaces(pid: int) -> dict[str, str]:
    try:
        return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in NAMESPACE_KINDS}
    except OSError:
        return {}


def _open_files(pid: int) -> Iterator[str]:
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            yield os.readlink(f"/proc/{pid}/fd/{name}")
    except OSError:
        return
