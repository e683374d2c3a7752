"""Programs of the lab on streams of this process: exec, logs, and connections into a pod."""

import contextlib
import fcntl
import os
import pty
import socket
import struct
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed.control.answers.lab import EndedAnswer
from testbed.control.client import LabConnection, LabRecord
from testbed.control.questions import EXEC, FORWARD, LOGS, Question
from testbed.errors import TestbedError


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int = 0
    error: TestbedError | None = None
    """Why it did not start."""


class StreamProgram:
    """A program that runs in the lab; its streams are this side's ends of pipes, or of a terminal."""

    def __init__(
        self,
        record: LabRecord,
        question: Question[EndedAnswer],
        ended: Callable[[Ended], None],
        *,
        terminal: bool = False,
        **arguments: object,
    ) -> None:
        """Start it; `ended` is called from another thread. Raises TestbedError when the lab does not answer at all."""
        self.terminal = terminal
        if terminal:
            ours, theirs = pty.openpty()
            self.stdin = self.stdout = ours
            self.stderr: int | None = None
            given = (theirs, theirs, theirs)
        else:
            (read_in, self.stdin), (self.stdout, write_out), (self.stderr, write_err) = (os.pipe() for _ in range(3))
            given = (read_in, write_out, write_err)
        self._stdin_closed = False
        self._connection = LabConnection(record)
        self._ended = ended
        threading.Thread(target=self._run, args=(question, given, arguments), name="program", daemon=True).start()

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of its terminal."""
        if self.terminal:
            fcntl.ioctl(self.stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, data: bytes) -> None:
        """Write to its input; blocks while it reads none. Input that it no longer accepts is dropped."""
        with contextlib.suppress(OSError):
            while data and not self._stdin_closed:
                data = data[os.write(self.stdin, data) :]

    def close_stdin(self) -> None:
        """End its input; a terminal's ends with the terminal."""
        if not self.terminal and not self._stdin_closed:
            self._stdin_closed = True
            os.close(self.stdin)

    def close(self) -> None:
        """Close this side of the streams."""
        self.close_stdin()
        for descriptor in {self.stdout, *([] if self.stderr is None else [self.stderr])}:
            os.close(descriptor)

    def hang_up(self) -> None:
        """End it, as when a client goes."""
        self._connection.shutdown()

    def _run(self, question: Question[EndedAnswer], given: tuple[int, ...], arguments: dict[str, object]) -> None:
        ended = Ended(error=TestbedError("the lab ended"))
        try:
            with self._connection, contextlib.closing(self._connection.ask(question, given, **arguments)) as messages:
                for message in messages:
                    if "result" in message:
                        ended = Ended(code=message["result"]["exit"])
        except TestbedError as error:
            ended = Ended(error=error)
        finally:
            # Its output ends when the last writer has closed it.
            for descriptor in dict.fromkeys(given):
                os.close(descriptor)
            self._ended(ended)


def start_exec(
    record: LabRecord,
    ended: Callable[[Ended], None],
    namespace: str,
    pod: str,
    container: str | None,
    argv: list[str],
    *,
    terminal: bool,
) -> StreamProgram:
    """Run a command in a pod. Raises TestbedError."""
    return StreamProgram(
        record,
        EXEC,
        ended,
        terminal=terminal,
        name=pod,
        namespace=namespace,
        container=container,
        argv=argv,
        tty=terminal,
    )


def start_logs(
    record: LabRecord,
    ended: Callable[[Ended], None],
    namespace: str,
    pod: str,
    container: str | None,
    *,
    follow: bool,
    previous: bool,
    tail: int | None,
) -> StreamProgram:
    """Print a container's log. Raises TestbedError."""
    return StreamProgram(
        record,
        LOGS,
        ended,
        name=pod,
        namespace=namespace,
        container=container,
        follow=follow,
        previous=previous,
        tail=tail,
    )


class PodDoor:
    """A socket of this process through which connections get to a port of a pod, made in the pod's namespace."""

    def __init__(self, record: LabRecord, directory: Path, namespace: str, pod: str, port: int) -> None:
        """Raises TestbedError, in the lab's words, when the pod cannot be reached now."""
        self._path = directory / f"door-{os.getpid()}-{id(self):x}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(16)
        self._connection = LabConnection(record)
        name = f"{namespace}/{pod}"
        self._quiet = open(os.devnull, "wb")  # noqa: SIM115 - closed with the door
        streams = (self._listener.fileno(), self._quiet.fileno(), self._quiet.fileno())
        try:
            self._messages = self._connection.ask(FORWARD, streams, kind="pods", name=name, port=str(port))
            next(self._messages)
        except TestbedError:
            self.close()
            raise

    @property
    def path(self) -> str:
        """Return where to connect."""
        return str(self._path)

    def close(self) -> None:
        """End it and its connections."""
        self._connection.close()
        self._listener.close()
        self._quiet.close()
        self._path.unlink(missing_ok=True)
