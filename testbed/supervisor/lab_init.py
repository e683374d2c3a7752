"""The only child of a lab's PID 1: makes the mount tree private, builds the lab, answers its verbs.

Started by `testbed.host.launch` as `python -m testbed.supervisor.lab_init RUNDIR PROGRESS_FD [GATE_FD]` in new network,
mount, PID and IPC namespaces. Output goes to RUNDIR/lab.log; progress goes as JSON lines through the descriptor to
`up`.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from agent.daemon.memory import freeze_startup_objects, limit_malloc_arenas
from testbed.cgroups.groups import claim
from testbed.control.client import CLUSTER_FILE
from testbed.control.options import MACHINES, read_options
from testbed.control.server import ControlServer
from testbed.control.wire import CONTROL_SOCKET
from testbed.host.limits import use_hard_limits
from testbed.host.named_programs import OURS, PRIVATE_TMPFS
from testbed.plain_files import plain, read_plain
from testbed.pods import devices, kernel_view
from testbed.pods.tmpfs import MIB, mount_tmpfs
from testbed.processes import namespaces

CGROUPS = Path("/run/cgroups")
"""Machines and containers have another /run."""
RECORDS_MIB = 256
"""Addresses and container documents: 10 KiB per pod. Volumes and machines' files are separate."""
SWITCH_INTERVAL_S = 0.001
"""How long a thread that writes a long answer may keep others waiting at a time; Python's default is 5 ms."""
log = logging.getLogger("testbed")


def make_mounts_private(rundir: Path, needed: Iterable[Path]) -> None:
    """Give the lab its own view of the file system and the kernel.

    The host's files are read-only; /run, /dev and the temporary directories belong to the lab, the lab's run directory
    is writable at the host's path, and `needed` directories stay visible. Only the network's part of /proc and /sys is
    writable.
    """
    namespaces.make_mounts_private()
    shared = namespaces.clone_tree(str(rundir))
    with contextlib.ExitStack() as opened:
        taken = devices.take(opened, devices.DEVICES + devices.NETWORK_DEVICES)
        # Device nodes elsewhere in the host's tree are useless in a lab.
        attributes = namespaces.MOUNT_ATTR_RDONLY | namespaces.MOUNT_ATTR_NODEV
        namespaces.set_mount_attributes("/", attributes, recursive=True)
        devices.fill("/dev", taken)
    cover_temporary_directories(needed)
    kernel_view.mount_proc("/proc", network=True)
    kernel_view.mount_sys("/sys", network=True)
    for directory in (str(rundir), "/run/netns", "/run/lock"):
        os.makedirs(directory, exist_ok=True)
    namespaces.attach_tree(shared, str(rundir))
    os.close(shared)
    mount_tmpfs(rundir / MACHINES, RECORDS_MIB * MIB, 0o700)
    if os.path.exists("/etc/hosts"):
        with contextlib.suppress(FileNotFoundError), open(rundir / "hosts", "rb", opener=plain) as hosts:
            namespaces.mount(f"/proc/self/fd/{hosts.fileno()}", "/etc/hosts", flags=namespaces.MS_BIND)


def cover_temporary_directories(needed: Iterable[Path]) -> None:
    """Mount empty file systems over /run and the temporary directories of this mount namespace; `needed` directories
    below them stay as they are: people clone into /tmp.
    """
    hidden = [path for path in needed if any(map(path.is_relative_to, PRIVATE_TMPFS))]
    kept = {path: namespaces.clone_tree(str(path)) for path in hidden}
    for directory, options in PRIVATE_TMPFS.items():
        # If the host unmounts a disk, as below /run/media, the lab must not keep it in use.
        namespaces.umount_below(directory)
        if os.path.isdir(directory):
            namespaces.mount("tmpfs", directory, "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, options)
    for path, tree in kept.items():
        path.mkdir(parents=True, exist_ok=True)
        namespaces.attach_tree(tree, str(path))
        os.close(tree)


def main() -> None:
    """Run the lab; never returns before it ends."""
    rundir, progress_fd = Path(sys.argv[1]), int(sys.argv[2])
    gate = int(sys.argv[3]) if len(sys.argv) > 3 else None
    limit_malloc_arenas()
    os.set_inheritable(progress_fd, False)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    # A lab of a hundred nodes has two thousand open descriptors; a login shell's limit is 1,024.
    use_hard_limits()
    # Everything in the lab ends with this process, through the kernel.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # Not SIG_IGN: the lab's programs would inherit it and ignore Ctrl-C.
    signal.signal(signal.SIGINT, lambda *_: None)

    def report(message: dict[str, object]) -> None:
        try:
            os.write(progress_fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            log.info("`up` has ended")

    try:
        run(rundir, report, gate)
    except Exception as failure:
        log.exception("the lab could not be started")
        report({"failed": f"{type(failure).__name__}: {failure}"})
        # Stay for inspection, unless `up` closes the lifeline.
    os.close(progress_fd)
    while True:
        time.sleep(3600)


def run(rundir: Path, report: Callable[[dict[str, object]], None], gate: int | None) -> None:
    """Build the lab, reporting each phase; `gate` is a descriptor that leads to an existing etcd cluster."""
    started = time.monotonic()
    options = read_options(rundir)
    claimed = claim(rundir.name)
    make_mounts_private(rundir, OURS)
    groups = claimed.attach(CGROUPS)
    from testbed.cluster.image_names import read_rules
    from testbed.cluster.images import RECIPES
    from testbed.cluster.overlay import with_backend
    from testbed.cluster.spec import read_cluster
    from testbed.lab.existing_etcd import Outside
    from testbed.plain_files import MAX_BYTES
    from testbed.supervisor.lab import Lab
    from testbed.supervisor.start import LabNotReady, LabStart
    from testbed.supervisor.verbs import verbs_of

    rules = read_rules(options.images, RECIPES)
    cluster = read_cluster(read_plain(rundir / CLUSTER_FILE, MAX_BYTES), CLUSTER_FILE, rules)
    if options.backend is not None:
        cluster = with_backend(cluster, options.backend)
    lab = Lab(cluster, rundir, options, groups, None if gate is None else Outside.receive(gate))
    if any(spec.has_limits for spec in cluster.pod_specs) and (complaint := groups.complain_once()):
        log.warning("%s", complaint)
        report({"warning": complaint})
    ControlServer(rundir / CONTROL_SOCKET, verbs_of(lab), options.owner_uid).start()

    def progress(phase: str, state: str, detail: str) -> None:
        elapsed = round(time.monotonic() - started, 2)
        log.info("%s %s %s", phase, state, detail)
        report({"phase": phase, "state": state, "detail": detail, "seconds": elapsed})

    try:
        LabStart(lab, progress).run()
    except LabNotReady as failure:
        log.error("%s", failure)
        report({"failed": str(failure)})
    else:
        # Not before: while many threads compute, changes of threads cost a tenth.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        report({"ready": round(time.monotonic() - started, 2)})
        # Nothing is answered during a collection, and a full one over the modules takes 20 to 40 ms.
        freeze_startup_objects()


if __name__ == "__main__":
    main()
