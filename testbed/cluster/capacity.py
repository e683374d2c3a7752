"""Estimates, from measured labs, whether this machine has the memory and disk space for a lab."""

import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

LAB_MIB = 80  # the lab's supervisor: 48 MiB, and room for its work
ETCD_MIB = 160  # a member: 20 MiB, and two files of 64 MB of its log, in memory too
NODE_MIB = 26  # an agent: 18 MiB of its own and its part of shared memory; kernel memory of its namespaces 4 MiB
POD_MIB = 9  # pause, the container's shim and an `echo` 5.5 MiB, namespaces 3; nginx is less, tomcat about 150 MiB
RESERVE_MIB = 200  # the rest of the machine keeps
RECORDS_MIB = 16  # in /run: a lab's records, events and journal
LOG_MIB = 0.25  # in /run: the log of one program if space is scarce (pods/container_log.py)
MEMINFO = Path("/proc/meminfo")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def needed_mib(nodes: int, pods: int, members: int = 1) -> int:
    """Return the memory that a running lab of this size, with so many etcd members, takes."""
    return LAB_MIB + members * ETCD_MIB + nodes * NODE_MIB + pods * POD_MIB


def most_nodes(available_mib: int, pods_per_node: int, members: int = 1) -> int:
    """Return how many nodes with so many pods each fit."""
    left = available_mib - RESERVE_MIB - needed_mib(0, 0, members)
    return max(0, left // (NODE_MIB + pods_per_node * POD_MIB))


ROOM_REMEDY = "files removed there, or a larger file system: sudo mount -o remount,size=20% /run"


def too_big(nodes: int, pods: int, available_mib: int, members: int = 1) -> str | None:
    """Return why the machine cannot hold the lab; None if it can."""
    needed = needed_mib(nodes, pods, members)
    if needed + RESERVE_MIB <= available_mib:
        return None
    pods_per_node = -(-pods // max(1, nodes))
    limit = most_nodes(available_mib, pods_per_node, members)
    got = f"{nodes} nodes and {pods} pods, about {_shown(needed)}; {_shown(available_mib)} of memory are free"
    return f"environment: more nodes than this machine holds (got {got}; want at most {limit} nodes of this kind)"


def available_mib(meminfo: Path = MEMINFO, cgroup: Path = CGROUP_ROOT) -> int:
    """Return the memory available without swapping, within this control group's limit."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) // 1024
    try:
        limit, used = (int((cgroup / name).read_text()) >> 20 for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such control group, or `max`
        return free
    return min(free, max(0, limit - used))


class MachineSize(NamedTuple):
    """All that a node offers its pods."""

    thousandths: int
    """Of a processor."""
    bytes: int
    """Of memory."""


@cache
def machine_size() -> MachineSize:
    """Return the size of this machine."""
    total = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemTotal:"))
    return MachineSize(1000 * (os.cpu_count() or 1), int(total.split()[1]) << 10)


def needed_room_mib(nodes: int, pods: int, members: int = 1) -> int:
    """Return the space below /run that a lab of this size needs for records and logs."""
    return RECORDS_MIB + round(LOG_MIB * (nodes + pods + members))


def room_mib(directory: Path) -> tuple[int, int]:
    """Return free and total space in the file system of a directory, or of its nearest existing ancestor."""
    while not directory.is_dir():
        directory = directory.parent
    found = os.statvfs(directory)
    return (found.f_bavail * found.f_frsize) >> 20, (found.f_blocks * found.f_frsize) >> 20


def too_little_room(directory: Path, needed_mib: int) -> str | None:
    """Return why a lab cannot be recorded in this directory; None if it can."""
    free, size = room_mib(directory)
    if free >= needed_mib:
        return None
    got = f"{_shown(free)} of {_shown(size)} are free; a lab's records and logs need {_shown(needed_mib)}"
    return f"environment: too little room in {directory} (got {got}; want {ROOM_REMEDY})"


def _shown(mib: int) -> str:
    return f"{mib} MiB" if mib < 10_240 else f"{mib / 1024:.0f} GiB"
