"""Starts a lab's PID 1 in new namespaces: the host side of `up`."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.control.client import LAB_FILE, RUN_ROOT, LabRecord, start_ticks
from testbed.control.existing_etcd import RECORD, ExistingEtcd
from testbed.control.wire import PROTOCOL
from testbed.errors import TestbedError, WrongEnvironment
from testbed.host.gate import Gate, leave_existing, open_gate
from testbed.host.lab_directories import READABLE, remove_directory, sudo_user
from testbed.host.lab_process import init_command, kill
from testbed.host.removal import DOWN_LIMIT_S, put_the_host_back
from testbed.places import PAUSE, SYSTEM_PATH
from testbed.plain_files import plain, replace_plain
from testbed.processes import namespaces

OOM_SCORE_ADJ = "300"
"""In 1,000ths of memory (Documentation/filesystems/proc.rst): as if a lab's processes used this much more."""
NAMESPACES = namespaces.CLONE_NEWNET | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC
READY = b"r"


class LabEnded(TestbedError):
    """The lab's first process ended before the lab was kept."""


@dataclass(slots=True)
class Launched:
    """A lab that is starting."""

    record: LabRecord
    lifeline: int
    """Closing it before `keep` ends the lab."""
    progress: int
    process: int
    """A pidfd of its PID 1; -1 if that had ended at once."""
    gate: Gate | None
    """To an existing etcd cluster."""
    kept: bool = False

    def keep(self) -> None:
        """Let the lab outlive this process. Raises LabEnded."""
        try:
            os.write(self.lifeline, READY)
        except BrokenPipeError as gone:
            raise LabEnded("the lab ended while it started") from gone
        self.kept = True

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the lab's messages during its start, up to `ready` or `failed`; end early if the lab dies."""
        with os.fdopen(os.dup(self.progress), "rb") as lines:
            for line in lines:
                message = json.loads(line)
                yield message
                # PID 1 also holds the other end, so the pipe does not end by itself.
                if "ready" in message or "failed" in message:
                    return

    def abandon(self) -> None:
        """End the lab and remove its directory. Raises TestbedError if something stays."""
        leave_existing(self.record.rundir)
        os.close(self.lifeline)
        if self.process >= 0:
            kill(self.process, self.record.name, DOWN_LIMIT_S)
            os.close(self.process)
        if self.gate is not None:
            self.gate.await_end()
        put_the_host_back()
        remove_directory(self.record.rundir)


def launch(name: str, rundir: Path, existing: ExistingEtcd | None = None) -> Launched:
    """Start the lab's PID 1. Raises TestbedError (environment) if that fails, leaving nothing behind.

    `existing` is the etcd cluster that the lab uses instead of its own.
    """
    try:
        if existing is None:
            return _launch(name, rundir, None)
        record = {"prefix": existing.claim.prefix, "endpoints": existing.endpoints}
        replace_plain(rundir / RECORD, json.dumps(record).encode())
        gate = open_gate(existing)
        # The gate ends when no process has the lab's end: here it is closed, whatever comes of the lab.
        with gate.lab_end:
            return _launch(name, rundir, gate)
    except OSError as failure:
        remove_directory(rundir)
        raise WrongEnvironment(f"lab {name}: cannot be started ({failure})") from failure


def _launch(name: str, rundir: Path, gate: Gate | None) -> Launched:
    lifeline_read, lifeline_write = os.pipe()
    progress_read, progress_write = os.pipe()
    pid_read, pid_write = os.pipe()
    # Opened outside: inside, an open file would keep the lab's view of /run from becoming read-only.
    log = plain(rundir / "lab.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    between = os.fork()
    if between == 0:
        to_gate = None if gate is None else gate.lab_end.fileno()
        _become_parent_of_init(rundir, log, lifeline_read, progress_write, pid_write, to_gate)
    for descriptor in (log, lifeline_read, progress_write, pid_write):
        os.close(descriptor)
    with os.fdopen(pid_read) as answer:
        printed = answer.read()
    os.waitpid(between, 0)
    if not printed.isdigit():
        raise OSError(f"no namespaces: {printed or 'no answer'}; want root")
    pid = int(printed)
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        process = -1
    owner = sudo_user() if os.geteuid() == 0 else os.geteuid()
    record = LabRecord(name, pid, start_ticks(pid) or -1, rundir, owner)
    launched = Launched(record, lifeline_write, progress_read, process, gate)
    # All users find the lab by this file; the socket decides who may use it.
    facts = {"pid": pid, "start_ticks": record.start_ticks, "owner": owner, "protocol": PROTOCOL}
    try:
        replace_plain(rundir / LAB_FILE, json.dumps(facts).encode(), READABLE)
    except OSError:
        launched.abandon()
        raise
    return launched


def _become_parent_of_init(rundir: Path, log: int, lifeline: int, progress: int, answer: int, gate: int | None) -> None:
    """Enter new namespaces, fork the lab's PID 1, report its pid and exit, in a forked child. Never returns."""
    try:
        os.setsid()
        if os.geteuid() != 0:
            from testbed.host.rootless import enter_user_namespace

            enter_user_namespace()
        namespaces.unshare(NAMESPACES)
        init = os.fork()
        if init == 0:
            _become_init(rundir, log, lifeline, progress, gate)
        os.write(answer, str(init).encode())
    except OSError as failure:
        os.write(answer, str(failure).encode())
    finally:
        os._exit(0)


def _go_first_when_memory_ends() -> None:
    """Make the kernel, when memory runs out, kill a lab before the `up` that reports it and before the user's other
    processes.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJ)


def _become_init(rundir: Path, log: int, lifeline: int, progress: int, gate: int | None) -> None:
    """Become `pause --init`, in the first process of the new PID namespace. Never returns."""
    rootless = rundir.parent != RUN_ROOT
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        given = (lifeline, progress, *(() if gate is None else (gate,)))
        for descriptor in given:
            os.set_inheritable(descriptor, True)
        # Descriptors of our caller must not live on in the lab.
        keep = sorted({0, 1, 2, *given})
        for low, high in zip(keep, [*keep[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(low + 1, high)
        os.chdir("/")
        # The lab's own files are private; users' programs start with the usual umask again.
        os.umask(0o077)
        _go_first_when_memory_ends()
        namespaces.give_up_the_machine()
        for number in (signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        environment = {
            "PATH": SYSTEM_PATH,
            # Without root, root's own home stays closed.
            "HOME": "/tmp" if rootless else "/root",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if rootless:
            # Verbs called inside the lab use it to find the lab.
            environment["XDG_RUNTIME_DIR"] = str(rundir.parent.parent)
        os.execve(PAUSE, init_command(PAUSE, lifeline, sys.executable, rundir, progress, gate), environment)
    finally:
        os._exit(127)
