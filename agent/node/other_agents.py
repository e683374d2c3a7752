"""Agents that run beside us: in the same network namespace, with the same devices, routes and rules."""

import os
from collections.abc import Iterator
from pathlib import Path

FLANNELD = "flanneld"
"""The name of the process, as /proc/PID/comm has it."""


def running_flannelds() -> list[int]:
    """Return the processes called flanneld in the caller's network namespace, as far as we may look at them."""
    own = os.stat("/proc/thread-self/ns/net").st_ino
    return [pid for pid, name in _processes() if name == FLANNELD and _network_of(pid) == own]


def _processes() -> Iterator[tuple[int, str]]:
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                yield int(directory.name), (directory / "comm").read_text().rstrip("\n")
            except OSError:
                continue  # it has ended


def _network_of(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None  # it has ended, or we may not look
