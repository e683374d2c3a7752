"""Find the process that holds a UDP port of a network namespace."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PortHolder:
    """A process with a socket bound to the port; prints as `name (pid N)`."""

    name: str
    pid: int

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def port_holder(port: int, process: int | str = "thread-self") -> PortHolder | None:
    """Find a process that holds the UDP port in the network namespace of `process`, as far as /proc shows it.

    None for a free port, and for one whose holder is not in this PID namespace.
    """
    inodes = _inodes_bound_to(port, process)
    for descriptor in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        try:
            target = os.readlink(descriptor)
            if target.removeprefix("socket:[").removesuffix("]") in inodes:
                holder = descriptor.parent.parent
                return PortHolder((holder / "comm").read_text().strip(), int(holder.name))
        except OSError:
            continue
    return None


def _inodes_bound_to(port: int, process: int | str) -> set[str]:
    found = set()
    for table in ("udp", "udp6"):
        try:
            lines = Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found
