"""Whether this machine has the memory for a lab, by an estimate from measured labs."""

from pathlib import Path

LAB_MIB = 100  # the lab's supervisor and one etcd: 48 + 20 MiB, and room for what they do
NODE_MIB = 22  # an agent 14 MiB of its own and its part of what all share; kernel memory of its namespaces 4 MiB
POD_MIB = 9  # pause, the container's shim and an `echo` 5.5 MiB, namespaces 3; nginx is less, tomcat about 150 MiB
RESERVE_MIB = 200  # what the rest of the machine keeps
MEMINFO = Path("/proc/meminfo")
CGROUP_ROOT = Path("/sys/fs/cgroup")


def needed_mib(nodes: int, pods: int) -> int:
    """How much memory a lab of this size takes once it runs."""
    return LAB_MIB + nodes * NODE_MIB + pods * POD_MIB


def most_nodes(available_mib: int, pods_per_node: int) -> int:
    """How many nodes with so many pods each fit in."""
    return max(0, (available_mib - RESERVE_MIB - LAB_MIB) // (NODE_MIB + pods_per_node * POD_MIB))


def too_big(nodes: int, pods: int, available_mib: int) -> str | None:
    """Why the machine cannot hold the lab, in words; None when it can."""
    needed = needed_mib(nodes, pods)
    if needed + RESERVE_MIB <= available_mib:
        return None
    pods_per_node = -(-pods // max(1, nodes))
    limit = most_nodes(available_mib, pods_per_node)
    got = f"{nodes} nodes and {pods} pods, about {_shown(needed)}; {_shown(available_mib)} of memory are free"
    return f"environment: more nodes than this machine holds (got {got}; want at most {limit} nodes of this kind)"


def available_mib(meminfo: Path = MEMINFO, cgroup: Path = CGROUP_ROOT) -> int:
    """Memory that can be had without swapping, within this control group's limit."""
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) // 1024
    try:
        limit, used = (int((cgroup / name).read_text()) >> 20 for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such control group, or `max`
        return free
    return min(free, max(0, limit - used))


def _shown(mib: int) -> str:
    return f"{mib} MiB" if mib < 10_240 else f"{mib / 1024:.0f} GiB"
