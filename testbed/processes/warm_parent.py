"""Our end of a warm parent (`testbed/processes/warm_process.py`), which creates processes that are our children.

Without it (it cannot be started, or the kernel has no clone3) the caller starts an interpreter for each instead.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.plain_files import plain

ANSWER_LIMIT_S = 20.0
"""Its imports at the start take half a second on a quiet machine."""
ANSWER_BYTES = 4096
END_LIMIT_S = 5.0
"""For the end of a fork that may not begin, which has nothing else to do."""
REAP_EVERY_S = 0.01
BEGIN = b"\0"
"""Lets a fork begin."""
ROOM = " " * 2000
"""Room for the command lines of its forks, which are written over its own."""
NEVER = frozenset({errno.ENOSYS, errno.EINVAL, errno.EPERM})
"""The kernel's errors for a fork that it does not support at all, however often it is retried."""


class ForkedProcess:
    """A process created for us by a warm parent: our child, like those of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._ending = threading.Lock()
        self._code: int | None = None

    def wait(self) -> int:
        """Wait for its end; return its exit code, or the negated signal that ended it. For one thread at a time."""
        if self._code is None:
            os.waitid(os.P_PIDFD, self._descriptor, os.WEXITED | os.WNOWAIT)
            with self._ending:
                # From here on another process may reuse its id.
                self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                os.close(self._descriptor)
        return self._code

    def send_signal(self, sig: int) -> None:
        """Send it a signal; do nothing once it has ended."""
        with self._ending, contextlib.suppress(ProcessLookupError):
            if self._code is None:
                signal.pidfd_send_signal(self._descriptor, sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class WarmParent:
    """A warm parent, started when first needed and again whenever it is gone. For use from several threads."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Take `command`, to which the descriptor of its socket is appended."""
        self._command = tuple(command)
        self._environment = dict(environment)
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._impossible = False

    @property
    def pid(self) -> int | None:
        """Return its process id, while there is one."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """End it; the processes that it created continue."""
        with self._turn:
            self._close()

    def prepare(self) -> None:
        """Let it import now what will be needed; return at once. Failures show at the first `start`."""
        with self._turn, contextlib.suppress(OSError):
            self._open()

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], log: Path, descriptors: Sequence[int]
    ) -> ForkedProcess | None:
        """Start `words` in a new session; return None if it must be started without a warm parent.

        Raises OSError if no process can be created now.
        """
        request = json.dumps({"words": list(words), "environment": dict(environment)}).encode()
        with open(log, "ab", opener=plain) as file, self._turn:
            answer = self._ask(request, [file.fileno(), *descriptors])
        if isinstance(answer, ForkedProcess):
            return answer
        number = answer.get("errno")
        if isinstance(number, int) and number not in NEVER:
            raise OSError(number, f"fork: {answer['error']}")
        self._impossible |= bool(answer)
        return None

    def _ask(self, request: bytes, descriptors: Sequence[int]) -> ForkedProcess | Mapping[str, object]:
        """Return the new process, or the warm parent's answer without one, restarting it if it is gone.

        Empty if there is no answer. A fork that we do not know, since its answer is late or lost, ends.
        """
        for _ in range(2):
            if self._impossible:
                break
            ours, theirs = socket.socketpair()
            with ours, theirs:
                with contextlib.suppress(OSError, ValueError):
                    channel = self._open()
                    socket.send_fds(channel, [request], [theirs.fileno(), *descriptors])
                    answer: dict[str, object] = json.loads(channel.recv(ANSWER_BYTES))
                    pid = answer.get("pid")
                    if not isinstance(pid, int):
                        return answer
                    process = ForkedProcess(pid)
                    ours.sendall(BEGIN)
                    return process
                # Not only closed: other forks of ours may hold it for a moment.
                ours.shutdown(socket.SHUT_RDWR)
            group = self.pid
            self._close()
            if group is not None:
                _reap_unknown(group)
        return {}

    def _open(self) -> socket.socket:
        if self._channel is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [*self._command, str(theirs.fileno()), ROOM],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                    start_new_session=True,
                )
            ours.settimeout(ANSWER_LIMIT_S)
            self._channel = ours
        return self._channel

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _reap_unknown(group: int) -> None:
    """Wait for the end of a fork that was not reported, if there is one: it has not left its creator's group."""
    deadline = time.monotonic() + END_LIMIT_S
    with contextlib.suppress(ChildProcessError):
        while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is None and time.monotonic() < deadline:
            time.sleep(REAP_EVERY_S)
