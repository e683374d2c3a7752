"""A private /dev: the machine's harmless devices, bound, with the terminals and links that programs expect.

Device nodes work only where they are bound from the machine's /dev: every other mount is `nodev`, because root may use
mknod. Never the disks: the lab must not change the machine.

Standard library only; loaded by a container's first process.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping

from testbed.processes import namespaces as ns

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
NETWORK_DEVICES = ("net/tun",)
"""Additional devices of a lab, its machines and privileged containers."""
DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
TTY = 5
"""The group of terminals, in a container's /etc/group and on Debian."""


def take(opened: contextlib.ExitStack, names: Iterable[str]) -> dict[str, int]:
    """Return detached bind mounts of the devices that exist in our /dev, open until `opened` ends."""
    taken = {}
    for name in names:
        if os.path.exists(f"/dev/{name}"):
            taken[name] = ns.clone_tree(f"/dev/{name}")
            opened.callback(os.close, taken[name])
    return taken


def fill(target: str, devices: Mapping[str, int]) -> None:
    """Mount a /dev with these devices at `target`; its `shm` is an empty directory."""
    ns.mount("tmpfs", target, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "size=64k,mode=0755")
    for name, tree in devices.items():
        directory = os.path.dirname(f"{target}/{name}")
        os.makedirs(directory, exist_ok=True)
        # For every user, whatever the caller's umask.
        os.chmod(directory, 0o755)
        os.close(os.open(f"{target}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        ns.attach_tree(tree, f"{target}/{name}")
    os.mkdir(f"{target}/pts")
    os.mkdir(f"{target}/shm")
    options = "newinstance,ptmxmode=0666,mode=0620" + (f",gid={TTY}" if _group_exists(TTY) else "")
    ns.mount("devpts", f"{target}/pts", "devpts", ns.MS_NOSUID | ns.MS_NOEXEC, options)
    for name, leads_to in DEVICE_LINKS.items():
        os.symlink(leads_to, f"{target}/{name}")


def _group_exists(group: int) -> bool:
    """Report whether our user namespace has the group; a rootless one may have only the user's own (gid 0 inside)."""
    with open("/proc/self/gid_map", encoding="ascii") as ranges:
        starts = [(int(inside), int(length)) for inside, _, length in map(str.split, ranges)]
    return any(inside <= group < inside + length for inside, length in starts)
