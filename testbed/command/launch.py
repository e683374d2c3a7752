"""Start a lab's PID 1 in namespaces of its own, and take a lab away again. The host side of `up` and `down`."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed.command import bridge_netfilter
from testbed.command.client import (
    CLUSTER_FILE,
    LAB_FILE,
    RUN_ROOT,
    LabRecord,
    TestbedError,
    read_record,
    run_roots,
    start_ticks,
)
from testbed.lab.lab_options import LabOptions
from testbed.places import PAUSE
from testbed.pods import namespaces

NAMESPACES = namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DOWN_LIMIT_S = 10.0
READY = b"r"


@dataclass(slots=True)
class Launched:
    """A lab that is starting."""

    record: LabRecord
    lifeline: int
    """Closing it before `keep` ends the lab."""
    progress: int
    kept: bool = False

    def keep(self) -> None:
        """Let the lab outlive this process."""
        os.write(self.lifeline, READY)
        self.kept = True

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the lab tells while it starts, up to `ready` or `failed`; ends early when the lab dies."""
        with os.fdopen(os.dup(self.progress), "rb") as lines:
            for line in lines:
                message = json.loads(line)
                yield message
                # PID 1 has the other end open too, so the pipe does not end by itself.
                if "ready" in message or "failed" in message:
                    return

    def abandon(self) -> None:
        """End the lab and remove its directory."""
        os.close(self.lifeline)
        remove(self.record)


@contextlib.contextmanager
def starting(root: Path, name: str) -> Iterator[None]:
    """Hold the right to start the lab `name` in `root`. Raises TestbedError when another `up` is at it."""
    root.mkdir(parents=True, exist_ok=True, mode=0o755)
    path = root / f".{name}.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(lock)):
            # Its last holder has removed it between our two calls.
            raise BlockingIOError
    except BlockingIOError as error:
        os.close(lock)
        raise TestbedError(f"lab {name}: another `up` is starting it (want: wait for that one)") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def prepare(root: Path, options: LabOptions, cluster_text: str, hosts: str) -> Path:
    """Make the lab's run directory with everything that its init reads. A dead lab's leftovers are removed first."""
    rundir = root / options.name
    if rundir.exists():
        shutil.rmtree(rundir)
    # Without root the user is the lab's own root.
    owner = int(os.environ.get("SUDO_UID") or 0) if os.geteuid() == 0 else 0
    rundir.mkdir(mode=0o700)
    if owner:
        os.chown(rundir, owner, -1)
    (rundir / "logs").mkdir(mode=0o700)
    (rundir / CLUSTER_FILE).touch(mode=0o600)
    (rundir / CLUSTER_FILE).write_text(cluster_text)
    replace(options, owner_uid=owner).write(rundir)
    # /etc/hosts of every node, where any user reads it.
    (rundir / "hosts").write_text(hosts)
    return rundir


def launch(name: str, rundir: Path, cluster_file: str, since: str) -> Launched:
    """Start the lab's PID 1. Raises TestbedError (environment) when the namespaces cannot be made."""
    lifeline_read, lifeline_write = os.pipe()
    progress_read, progress_write = os.pipe()
    pid_read, pid_write = os.pipe()
    # Opened out here: inside, an open file would keep the lab's view of /run from becoming read-only.
    log = os.open(rundir / "lab.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    between = os.fork()
    if between == 0:
        _become_parent_of_init(rundir, log, lifeline_read, progress_write, pid_write)
    for descriptor in (log, lifeline_read, progress_write, pid_write):
        os.close(descriptor)
    with os.fdopen(pid_read) as answer:
        told = answer.read()
    os.waitpid(between, 0)
    if not told.isdigit():
        raise TestbedError(f"cannot make the lab's namespaces: {told or 'no answer'} (want root)", 3)
    pid = int(told)
    record = LabRecord(name, pid, start_ticks(pid) or -1, rundir, cluster_file, since)
    (rundir / LAB_FILE).write_text(
        json.dumps({"pid": pid, "start_ticks": record.start_ticks, "cluster_file": cluster_file, "since": since})
    )
    # The owner finds the lab by this file.
    (rundir / LAB_FILE).chmod(0o644)
    return Launched(record, lifeline_write, progress_read)


def _become_parent_of_init(rundir: Path, log: int, lifeline: int, progress: int, answer: int) -> None:
    """In a forked child: enter new namespaces, fork the lab's PID 1, tell its pid and go. Never returns."""
    try:
        os.setsid()
        if os.geteuid() != 0:
            from testbed.command.rootless import enter_user_namespace

            enter_user_namespace()
        namespaces.unshare(NAMESPACES)
        init = os.fork()
        if init == 0:
            _become_init(rundir, log, lifeline, progress)
        os.write(answer, str(init).encode())
    except OSError as failure:
        os.write(answer, str(failure).encode())
    finally:
        os._exit(0)


def _become_init(rundir: Path, log: int, lifeline: int, progress: int) -> None:
    """In the first process of the new PID namespace: become `pause --init`. Never returns."""
    rootless = rundir.parent != RUN_ROOT
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        for descriptor in (lifeline, progress):
            os.set_inheritable(descriptor, True)
        # Descriptors of whoever called us must not live on in the lab.
        keep = sorted({0, 1, 2, lifeline, progress})
        for low, high in zip(keep, [*keep[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(low + 1, high)
        os.chdir("/")
        # What a lab keeps is nobody else's; programs of users start with the usual mask again.
        os.umask(0o077)
        namespaces.give_up_the_machine()
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        environment = {
            "PATH": PATH,
            # Without root, root's own home stays closed.
            "HOME": "/tmp" if rootless else "/root",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if rootless:
            # Verbs that are called inside the lab find it by this.
            environment["XDG_RUNTIME_DIR"] = str(rundir.parent.parent)
        supervisor = [sys.executable, "-m", "testbed.lab.lab_init", str(rundir), str(progress)]
        os.execve(PAUSE, [str(PAUSE), "--init", str(lifeline), "--", *supervisor], environment)
    finally:
        os._exit(127)


def remove(lab: LabRecord) -> None:
    """Kill the lab's PID 1, wait until the kernel has taken everything away, and remove its directory.

    Raises TestbedError when processes of it are still there after the limit.
    """
    if lab.alive:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(lab.pid)
            try:
                # Looked at again behind the descriptor: the pid may have become another process's meanwhile.
                if lab.alive:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    select.select([pidfd], [], [], DOWN_LIMIT_S)
            finally:
                os.close(pidfd)
    deadline = time.monotonic() + DOWN_LIMIT_S
    while start_ticks(lab.pid) == lab.start_ticks:
        if time.monotonic() > deadline:
            raise TestbedError(f"lab {lab.name}: process {lab.pid} is still there after {DOWN_LIMIT_S:g} s")
        time.sleep(0.01)
    shutil.rmtree(lab.rundir, ignore_errors=True)
    _put_the_host_back()


def remove_leftovers() -> list[str]:
    """Remove the directories of labs that died, and what they had of the host; returns their names."""
    removed = []
    mine = [root for root in run_roots() if root.is_dir() and os.access(root, os.W_OK)]
    for entry in sorted(entry for root in mine for entry in root.iterdir()):
        record = read_record(entry)
        if record is not None and not record.alive:
            shutil.rmtree(entry, ignore_errors=True)
            removed.append(entry.name)
    _put_the_host_back()
    return removed


def _put_the_host_back() -> None:
    if why := bridge_netfilter.put_back():
        print(f"warning: {why}", file=sys.stderr)


def nsenter_line(lab: LabRecord) -> str:
    """The command that enters the lab's own namespaces from the host."""
    if lab.rootless:
        return f"nsenter --target {lab.pid} --user --preserve-credentials --net --mount --pid --ipc"
    return f"sudo nsenter --target {lab.pid} --net --mount --pid --ipc"


def pause_is_built() -> bool:
    """Whether the C program is there and runs."""
    return PAUSE.exists() and subprocess.run([PAUSE, "-v"], capture_output=True, check=False).returncode == 0
