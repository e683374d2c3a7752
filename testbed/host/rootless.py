"""Labs of an ordinary user: root in their own user namespace, and unprivileged outside it.

The user's id is root's there (id 0) and the only one. The kernel denies what it reserves for the machine's own root:
other users, negative OOM scores, socket buffers beyond the machine's limit (agents log the size that they got).
"""

import os
from pathlib import Path

from testbed.cluster.manifest import identity_of
from testbed.cluster.spec import Cluster
from testbed.host.doctor import MachineCheck, ScratchNamespaces, room_check, tun_check
from testbed.processes import namespaces

NEEDED_FOR = "up --rootless"
SWITCHING_IMAGES = ("nginx", "httpd")
"""Programs that switch to another user after their start."""
_SWITCHES = (
    # Of old Debian, of Ubuntu since 23.10, and of the kernel, with the value that forbids it.
    (Path("/proc/sys/kernel/unprivileged_userns_clone"), "0", "sudo sysctl kernel.unprivileged_userns_clone=1"),
    (
        Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        "1",
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (Path("/proc/sys/user/max_user_namespaces"), "0", "sudo sysctl user.max_user_namespaces=10000"),
)


def enter_user_namespace() -> None:
    """Become root of a new user namespace in which only the caller's user and group exist.

    Raises OSError. The caller must be single-threaded, and creates its other namespaces afterwards, so that it owns
    those too.
    """
    user, group = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.CLONE_NEWUSER)
    # user_namespaces(7): without this a user could leave a group that denies them access to a file.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def checks(runtime_directory: Path | None) -> tuple[MachineCheck, ...]:
    """Check this machine and user for a rootless lab."""
    room = () if runtime_directory is None else (room_check(runtime_directory / "testbed", NEEDED_FOR),)
    tun = tun_check(Path("/dev/net/tun"))
    return (user_namespace_check(), runtime_directory_check(runtime_directory), *room, tun)


def user_namespace_check() -> MachineCheck:
    """Check, by trying, that a user may create namespaces and be root in them."""
    remedy = "the kernel or a container engine forbids it; sudo testbed up needs none"
    for path, forbidding, command in _SWITCHES:
        try:
            if path.read_text().strip() == forbidding:
                remedy = f"{path.relative_to('/proc/sys')} is {forbidding}: {command}"
        except OSError:
            continue
    try:
        with ScratchNamespaces(as_user=True) as scratch:
            found = scratch.attempt(["ip", "link", "set", "lo", "up"], "") or "can be made"
    except OSError as error:
        found = str(error)
    return MachineCheck(
        "user namespaces", found == "can be made", found, "namespaces for every user", remedy, NEEDED_FOR
    )


def runtime_directory_check(directory: Path | None) -> MachineCheck:
    """Check for a directory of the user's own for a lab's state."""
    found, remedy = (
        "XDG_RUNTIME_DIR is not set",
        "log in as that user, or export XDG_RUNTIME_DIR=a directory of mode 0700",
    )
    ok = False
    if directory is not None:
        ok = os.access(directory, os.W_OK | os.X_OK) and directory.stat().st_uid == os.geteuid()
        found = str(directory) if ok else f"{directory} is not a directory that you own and may write"
    return MachineCheck("runtime directory", ok, found, "XDG_RUNTIME_DIR, the user's own", remedy, NEEDED_FOR)


def refusals(cluster: Cluster) -> list[str]:
    """List what in this cluster needs more than one user, one line each."""
    lines = []
    if cluster.underlay.switch == "ovs":
        lines.append("underlay.switch: not tried without root (got ovs with --rootless; want sudo, or switch: bridge)")
    for spec in cluster.pod_specs:
        for container in spec.all_containers:
            who = identity_of(spec, container)
            user, others = who.user, [one for one in (who.group, *who.groups) if one]
            if container.recipe in SWITCHING_IMAGES and not container.command:
                why = f"image {container.recipe} switches to another user after its start"
            elif user:
                why = f"runAsUser: {user}"
            elif others:
                why = f"group {others[0]}"
            else:
                continue
            line = (
                f"container {container.name}: {why}, and without root there is only one "
                "(got --rootless, no subordinate ids; want: sudo testbed up, or the images echo, shell and tomcat)"
            )
            if line not in lines:
                lines.append(line)
    return lines
