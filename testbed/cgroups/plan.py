"""Where control groups can be created on this machine, and their settings. Pure.

Version 1 has a tree for each controller, and a group may contain both processes and groups: ours are below the group in
which the lab was started, so that they stay within its limits. Version 2 has one tree, in which a group contains one or
the other: ours are below its root, or for an ordinary user below the group that systemd delegates to them.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from testbed.cluster.limits import LEAST_SHARES, MOST_SHARES, PERIOD_US, Limits

Controller = Literal["memory", "cpu"]
CONTROLLERS: tuple[Controller, ...] = ("memory", "cpu")
MOUNTED_AT = Path("/sys/fs/cgroup")
JOIN = "cgroup.procs"
"""The file through which a process joins a group."""
HANDED_DOWN = "cgroup.subtree_control"
"""In version 2: the controllers available to groups below."""
EVENTS: Mapping[int, str] = {1: "memory.oom_control", 2: "memory.events"}
"""By version: the file in which a group counts kills at its memory limit."""
_OF_A_USER = re.compile(r"(.*/user@\d+\.service)(/.*)?")
MOST_WEIGHT = 10_000


@dataclass(frozen=True, slots=True)
class CgroupPlace:
    """A directory below which groups with a controller can be created."""

    version: Literal[1, 2]
    directory: Path


class Setting(NamedTuple):
    """One file of a group and its value."""

    file: str
    value: str
    needed: bool = True
    """Whether a kernel without it is unusable."""


def places(
    mountinfo: str, own: str, handed_down: Callable[[Path], Collection[str]], *, root: bool
) -> Mapping[Controller, CgroupPlace | str]:
    """Return, for each controller, where its groups can be created, or why they cannot.

    `mountinfo` and `own` are /proc/self/mountinfo and /proc/self/cgroup; `handed_down` reads HANDED_DOWN of a group.
    """
    mounts = list(_mounts(mountinfo))
    own_groups = dict(_own_groups(own))
    found: dict[Controller, CgroupPlace | str] = {}
    for controller in CONTROLLERS:
        found[controller] = f"this machine has no {controller} controller mounted"
        for mount in mounts:
            if isinstance(found[controller], CgroupPlace):
                break
            if mount.version == 1 and controller in mount.options:
                below = _below(own_groups.get(controller, mount.root), mount.root)
                found[controller] = CgroupPlace(1, mount.directory / below)
            elif mount.version == 2:
                found[controller] = _in_version_2(controller, mount, own_groups.get("", "/"), handed_down, root=root)
    return found


def tree_directories(mountinfo: str) -> list[Path]:
    """Return where groups with these controllers may be."""
    mounts = [mount for mount in _mounts(mountinfo) if mount.version == 2 or mount.options & set(CONTROLLERS)]
    return list(dict.fromkeys(mount.directory for mount in mounts))


@dataclass(frozen=True, slots=True)
class _Mount:
    version: Literal[1, 2]
    directory: Path
    root: str
    """The group that is mounted there."""
    options: frozenset[str]


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    """Parse mountinfo; proc_pid_mountinfo(5): ID PARENT DEVICE ROOT PLACE … - KIND SOURCE OPTIONS."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        # Only the usual place: other mounts are copies of it, and may be gone when groups are removed.
        if kind and kind[0] in ("cgroup", "cgroup2") and Path(fields[4]).is_relative_to(MOUNTED_AT):
            yield _Mount(1 if kind[0] == "cgroup" else 2, Path(fields[4]), fields[3], frozenset(kind[-1].split(",")))


def _own_groups(own: str) -> Iterator[tuple[str, str]]:
    """Parse our groups; cgroups(7): NUMBER:CONTROLLERS:GROUP; no controllers: version 2."""
    for line in own.splitlines():
        _, controllers, group = line.split(":", 2)
        yield from ((controller, group) for controller in controllers.split(","))


def _below(group: str, root: str) -> PurePosixPath:
    """Return the group as seen from `root`; `root` itself if it is outside."""
    path = PurePosixPath(group)
    return path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()


def _in_version_2(
    controller: Controller, mount: _Mount, own: str, handed_down: Callable[[Path], Collection[str]], *, root: bool
) -> CgroupPlace | str:
    directory = mount.directory
    if not root:
        of_user = _OF_A_USER.fullmatch(own)
        if of_user is None:
            return f"group {own} is not delegated to its user by systemd"
        directory /= _below(of_user[1], mount.root)
    if controller not in handed_down(directory):
        return f"{directory / HANDED_DOWN} does not have {controller}"
    return CgroupPlace(2, directory)


def settings(controller: Controller, version: Literal[1, 2], limits: Limits) -> list[Setting]:
    """Return the settings of a container's group."""
    if controller == "memory":
        return [] if limits.memory is None else _memory(version, limits.memory)
    found = []
    if limits.cpu_quota_us is not None:
        quota = limits.cpu_quota_us
        found += (
            [Setting("cpu.cfs_period_us", str(PERIOD_US)), Setting("cpu.cfs_quota_us", str(quota))]
            if version == 1
            else [Setting("cpu.max", f"{quota} {PERIOD_US}")]
        )
    if limits.cpu_shares is not None:
        shares = limits.cpu_shares
        # Converted as in runc and systemd.
        weight = 1 + (shares - LEAST_SHARES) * (MOST_WEIGHT - 1) // (MOST_SHARES - LEAST_SHARES)
        found += [Setting("cpu.shares", str(shares))] if version == 1 else [Setting("cpu.weight", str(weight))]
    return found


def _memory(version: Literal[1, 2], limit: int) -> list[Setting]:
    # Without swap, as in Kubernetes; if the kernel supports it, all processes of a group end together.
    if version == 1:
        return [
            Setting("memory.limit_in_bytes", str(limit)),
            Setting("memory.memsw.limit_in_bytes", str(limit), needed=False),
        ]
    return [
        Setting("memory.max", str(limit)),
        Setting("memory.swap.max", "0", needed=False),
        Setting("memory.oom.group", "1", needed=False),
    ]


def kills_in(text: str) -> int:
    """Return how many processes of a group were killed for lack of memory, from its file of events."""
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
