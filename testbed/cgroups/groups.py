"""A lab's control groups: created at its start, one for each container with limits, removed after its end.

The kernel never removes a group itself: `down`, and every `up`, clean up after labs that have ended. A lab's groups are
below one group per tree, which has its name, and the lab sees no other groups of the machine.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.cgroups.plan import (
    EVENTS,
    HANDED_DOWN,
    JOIN,
    MOUNTED_AT,
    CgroupPlace,
    Controller,
    kills_in,
    places,
    settings,
    tree_directories,
)
from testbed.cluster.limits import Limits
from testbed.processes import namespaces as ns

PREFIX = "testbed-"
LOCKABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
EMPTY_LIMIT_S = 2.0
"""For a group whose processes have just ended."""
POLL_S = 0.005


class Groups:
    """Groups of containers, by name. Usable from several threads."""

    def __init__(self, where: Mapping[Controller, CgroupPlace], why_not: Mapping[Controller, str]) -> None:
        """Take `where` groups can be created, and `why_not` for the other controllers."""
        self._where = where
        by_reason: dict[str, list[str]] = {}
        for controller, why in why_not.items():
            by_reason.setdefault(why, []).append("CPU" if controller == "cpu" else controller)
        self._complaint = "; ".join(f"{' and '.join(what)}: {why}" for why, what in by_reason.items())

    def complain_once(self) -> str:
        """Return the warning that containers are not limited; empty from the second time on, and if they
        are limited.
        """
        why_not, self._complaint = self._complaint, ""
        return f"warning: resources of containers are not limited ({why_not})" if why_not else ""

    def make(self, name: str, limits: Limits) -> list[Path]:
        """Create a group with these limits; return what a process needs to join it. Raises OSError."""
        found: dict[Path, None] = {}
        for controller, place in self._where.items():
            wanted = settings(controller, place.version, limits)
            if not wanted:
                continue
            directory = place.directory / name
            directory.mkdir(exist_ok=True)
            for setting in wanted:
                with contextlib.nullcontext() if setting.needed else contextlib.suppress(FileNotFoundError):
                    _write(directory / setting.file, setting.value)
            found[directory] = None
        return list(found)

    def out_of_memory_kills(self, name: str) -> int:
        """Return how many processes of a group were killed for lack of memory so far; 0 without a group."""
        place = self._where.get("memory")
        if place is None:
            return 0
        try:
            text = (place.directory / name / EVENTS[place.version]).read_text()
        except OSError:
            # It was removed, or is being removed: ENODEV.
            return 0
        return kills_in(text)

    def remove(self, name: str) -> None:
        """Remove a group whose processes have ended; a group that cannot be removed now is removed with the lab."""
        for place in self._where.values():
            with contextlib.suppress(OSError):
                _remove_tree(place.directory / name, time.monotonic() + EMPTY_LIMIT_S)


@dataclass(frozen=True, slots=True)
class CgroupClaim:
    """Groups created for a lab on the machine, and not yet visible in it."""

    trees: Mapping[Controller, tuple[CgroupPlace, int]]
    """With descriptors of detached mounts."""
    why_not: Mapping[Controller, str]
    locks: Sequence[int]
    """Descriptors that this process keeps open: by their locks the kernel says that the lab lives."""

    def attach(self, directory: Path) -> Groups:
        """Attach them below `directory` in our mount namespace. Raises OSError."""
        where: dict[Controller, CgroupPlace] = {}
        for controller, (place, tree) in self.trees.items():
            target = directory / controller
            target.mkdir(parents=True, mode=0o700)
            ns.attach_tree(tree, str(target))
            os.close(tree)
            where[controller] = CgroupPlace(place.version, target)
        return Groups(where, self.why_not)


def claim(name: str) -> CgroupClaim:
    """Create the groups of the lab `name` where this machine allows it; call it before the lab's mounts are private."""
    root = _is_root()
    found = places(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"), _handed_down, root=root)
    why_not = {controller: why for controller, why in found.items() if isinstance(why, str)}
    trees: dict[Controller, tuple[CgroupPlace, int]] = {}
    locks: list[int] = []
    for controller, place in found.items():
        if isinstance(place, str):
            continue
        directory = place.directory / f"{PREFIX}{name}"
        try:
            if directory not in [made.directory for made, _ in trees.values()]:
                # Of a dead lab with this name.
                _remove_if_dead(directory)
            locks.append(_hold(directory))
            if place.version == 2:
                _write(directory / HANDED_DOWN, f"+{controller}")
            if not root:
                # Root may; it is left out because the kernel takes its time.
                _try_to_join(directory)
            trees[controller] = (CgroupPlace(place.version, directory), ns.clone_tree(str(directory)))
        except OSError as failure:
            why_not[controller] = f"{MOUNTED_AT}: {failure.strerror}"
    return CgroupClaim(trees, why_not, locks)


def _hold(directory: Path) -> int:
    """Create a group and lock it for as long as the returned descriptor is open. Raises OSError."""
    while True:
        directory.mkdir(exist_ok=True)
        # A process that removes it has a lock too, and may have been faster.
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(directory, LOCKABLE)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(directory), os.fstat(lock)):
                    return lock
            os.close(lock)


def _read(file: str) -> str:
    """Read a file; the kernel may have no control groups at all."""
    with contextlib.suppress(FileNotFoundError):
        return Path(file).read_text()
    return ""


def _is_root() -> bool:
    """Return whether we are the machine's own root: in a user namespace, only one user id is mapped."""
    return Path("/proc/self/uid_map").read_text().split()[2] != "1"


def _handed_down(directory: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (directory / HANDED_DOWN).read_text().split()
    return []


def _try_to_join(directory: Path) -> None:
    """Let a process of ours join a group for a moment. Raises OSError if it may not."""
    group = directory / "probe"
    group.mkdir(exist_ok=True)
    try:
        child = os.fork()
        if child == 0:
            number = 0
            try:
                _write(group / JOIN, "0")
            except OSError as failure:
                number = failure.errno or 255
            os._exit(number)
        number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if number:
            raise OSError(number, f"a process cannot join: {os.strerror(number)}")
    finally:
        _remove_tree(group, time.monotonic() + EMPTY_LIMIT_S)


def _write(file: Path, value: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def remove_groups_of_dead_labs() -> list[str]:
    """Remove the groups of our labs that have ended. Returns a line for each that cannot be removed."""
    complaints = []
    for tree in tree_directories(_read("/proc/self/mountinfo")):
        for directory in _labs_below(tree):
            try:
                _remove_if_dead(directory)
            except OSError as failure:
                complaints.append(f"{failure.filename}: cannot be removed ({failure.strerror})")
    return complaints


def _remove_if_dead(directory: Path) -> None:
    """Remove a lab's group, unless that lab lives. Raises OSError."""
    try:
        lock = os.open(directory, LOCKABLE)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_tree(directory, time.monotonic() + EMPTY_LIMIT_S)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def _labs_below(tree: Path) -> Iterator[Path]:
    """Yield the groups of our own labs, anywhere in the tree."""
    for place, inner, _ in os.walk(tree):
        for name in [name for name in inner if name.startswith(PREFIX)]:
            inner.remove(name)
            directory = Path(place, name)
            with contextlib.suppress(FileNotFoundError):
                if directory.stat().st_uid == os.geteuid():
                    yield directory


def _remove_tree(directory: Path, deadline: float) -> None:
    """Remove a group with those below it, once their last processes are gone. Raises OSError."""
    if not directory.is_dir():
        return
    for inner in [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]:
        _remove_tree(Path(inner), deadline)
    while True:
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as failure:
            if failure.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)
