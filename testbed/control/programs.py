"""Programs that a client runs inside the lab with its own standard streams: exec, shell, logs -f, etcdctl."""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from testbed.control.answers.lab import EndedAnswer
from testbed.control.server import Request
from testbed.errors import InvalidInput, WrongEnvironment
from testbed.processes.readable import readable

HANGUP_GRACE_S = 1.0
STREAMS = 3
USUAL_UMASK = 0o022
"""A user's program creates files with the usual mode; the lab's own files are private."""


def run_for_client(
    request: Request, argv: Sequence[str], environment: Mapping[str, str] | None = None, *, take_terminal: bool = False
) -> EndedAnswer:
    """Run `argv` on the client's streams until it ends or the client leaves; return its exit code (128 + signal).

    `take_terminal`: the first stream is a terminal that should control the program's session.
    """
    if len(request.streams) != STREAMS:
        raise InvalidInput("this verb needs the client's three standard streams")
    stdin, stdout, stderr = request.streams
    command = ["setsid", "--ctty", "--wait", *argv] if take_terminal else list(argv)
    try:
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=None if environment is None else dict(environment),
            umask=USUAL_UMASK,
            # `setsid --ctty` creates the session itself and must not lead one already.
            start_new_session=not take_terminal,
        )
    except FileNotFoundError as failure:
        raise WrongEnvironment(f"{command[0]}: not found on this machine") from failure
    try:
        process.returncode = wait_with_client(request, process.pid)
    except OSError:
        # Out of descriptors: nothing would notice that the client leaves.
        process.kill()
        process.wait()
        raise
    return {"exit": process.returncode}


def wait_with_client(request: Request, pid: int) -> int:
    """Wait for child process `pid`; if the client leaves first, hang up the child's session."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(request.fileno(), select.POLLIN | select.POLLRDHUP)
        ready = dict(poll.poll())
        if pidfd not in ready:
            sessions = _sessions_below(pid)
            for number in (signal.SIGHUP, signal.SIGKILL):
                _signal_session(pid, number)
                _signal_members(sessions, number)
                if readable([pidfd], HANGUP_GRACE_S):
                    break
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _sessions_below(pid: int) -> frozenset[int]:
    """Return the sessions led by descendants of a process, such as a shell in its own terminal."""
    below, found = {pid}, set()
    for one in sorted(_processes(), key=lambda process: process.started):
        if one.parent in below:
            below.add(one.pid)
            if one.session == one.pid:
                found.add(one.session)
    return frozenset(found)


def _signal_members(sessions: frozenset[int], number: int) -> None:
    """Signal the remaining members of these sessions; those that started their own session, as daemons do, stay."""
    for one in _processes() if sessions else ():
        if one.session in sessions:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(one.pid, number)


class _Process(NamedTuple):
    pid: int
    parent: int
    session: int
    started: int


def _processes() -> Iterator[_Process]:
    """Yield every process of the lab, including those in pods' PID namespaces."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
                yield _Process(int(name), int(fields[1]), int(fields[3]), int(fields[19]))


def _signal_session(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
