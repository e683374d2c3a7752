"""A lab's view of the kernel: /proc and /sys, where only the network's own part is writable.

The kernel has one /proc/sys for the whole machine, but /proc/sys/net belongs to the caller's network namespace; so do
the links below /sys. Every other writable part belongs to the machine and is mounted read-only: over each new instance
of /proc and /sys, since each mount starts without it.

Standard library only; loaded by a container's first process.
"""

import os
from collections.abc import Iterable

from testbed.processes import namespaces as ns

KERNEL_VIEW = ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC
"""Flags of /proc and /sys."""
WHOLE_MACHINE = ("acpi", "bus", "driver", "dynamic_debug", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger")
"""Entries of /proc that change the machine, besides those of processes."""
NETWORK_SETTINGS = "sys/net"
NOT_OF_A_NETWORK = ("sys/net/netfilter/nf_hooks_lwtunnel",)
"""Network settings that the whole machine shares. This one cannot even be undone."""
LINKS = ("class/net", "devices/virtual/net")
"""Entries of /sys about the links of one network namespace; programs set up bridges there."""

# Hidden by container engines (containerd `oci/spec.go`, runtime-spec masked paths).
MASKED = ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
MASKED_IN_SYS = ("firmware", "devices/virtual/powercap")


def mount_proc(target: str, *, network: bool) -> None:
    """Mount the /proc of our PID namespace with the machine's parts read-only; `network`: network settings stay
    writable.

    A rootless lab may mount it only where it sees another one.
    """
    ns.mount("proc", target, "proc", KERNEL_VIEW)
    settings = ns.clone_tree(f"{target}/{NETWORK_SETTINGS}") if network else None
    for path in _present(target, WHOLE_MACHINE):
        ns.mount(path, path, flags=ns.MS_BIND)
        ns.make_read_only(path)
    if settings is not None:
        _attach(settings, f"{target}/{NETWORK_SETTINGS}")
        guard_network_settings(target)


def guard_network_settings(proc: str = "/proc") -> None:
    """Make shared network settings read-only; call it in each network namespace."""
    for path in _present(proc, NOT_OF_A_NETWORK):
        ns.mount(path, path, flags=ns.MS_BIND)
        ns.make_read_only(path)


def mount_sys(target: str, *, network: bool) -> None:
    """Mount the /sys of our network namespace read-only; `network`: links stay writable."""
    # Other mounts may share the super block, so only this mount is made read-only.
    ns.mount("sysfs", target, "sysfs", KERNEL_VIEW)
    links = {path: ns.clone_tree(path) for path in _present(target, LINKS)} if network else {}
    ns.make_read_only(target)
    for path, tree in links.items():
        _attach(tree, path)


def hide_from_containers() -> None:
    """Hide what a container without privileges must not see. After the two above, at / itself."""
    for path in (*_present("/proc", MASKED), *_present("/sys", MASKED_IN_SYS)):
        if os.path.isdir(path):
            ns.mount("tmpfs", path, "tmpfs", KERNEL_VIEW | ns.MS_RDONLY, "size=0")
        else:
            ns.mount("/dev/null", path, flags=ns.MS_BIND)


def close_below(directory: str) -> None:
    """Make every /proc and /sys at or below a directory read-only, network settings included."""
    for mount in ns.mounts_below(directory):
        # A read-only mount may cover another namespace's settings, where no path leads to.
        if mount.kind in ("proc", "sysfs") and not mount.read_only:
            ns.set_mount_attributes(mount.path, ns.MOUNT_ATTR_RDONLY, recursive=False)


def _present(directory: str, names: Iterable[str]) -> list[str]:
    paths = [f"{directory}/{name}" for name in names]
    return [path for path in paths if os.path.exists(path)]


def _attach(tree: int, path: str) -> None:
    ns.attach_tree(tree, path)
    os.close(tree)
