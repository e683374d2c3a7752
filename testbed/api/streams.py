"""Programs of the lab on streams of this process: exec, logs, and connections into a pod.

Nothing here blocks a thread while it waits for output or room: a client may follow a log that says nothing for hours.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import socket
import struct
import termios
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from testbed.cluster.object_key import ObjectKey
from testbed.control.answers.lab import EndedAnswer
from testbed.control.client import LabConnection, LabRecord
from testbed.control.questions import EXEC, FORWARD, LOGS, Question
from testbed.control.server import NO_THREAD
from testbed.errors import TestbedError

CHUNK_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int = 0
    error: TestbedError | None = None
    """Why it did not start."""


class StreamProgram:
    """A program that runs in the lab; its streams are this side's ends of pipes, or of a terminal."""

    def __init__(
        self, record: LabRecord, question: Question[EndedAnswer], *, terminal: bool = False, **arguments: object
    ) -> None:
        """Start it, from the event loop. Raises TestbedError when the lab does not answer at all."""
        with contextlib.ExitStack() as undo:
            self._connection = LabConnection(record)
            undo.callback(self._connection.close)
            if terminal:
                ours, theirs = _closed_by(undo, pty.openpty())
                self._stdin = self.stdout = ours
                self.stderr: int | None = None
                given = (theirs, theirs, theirs)
            else:
                (read_in, self._stdin), (self.stdout, write_out), (self.stderr, write_err) = (
                    _closed_by(undo, os.pipe()) for _ in range(3)
                )
                given = (read_in, write_out, write_err)
            for descriptor in self._descriptors(terminal):
                os.set_blocking(descriptor, False)
            self._terminal = terminal
            self._stdin_closed = False
            self._loop = asyncio.get_running_loop()
            self.ended: asyncio.Future[Ended] = self._loop.create_future()
            try:
                threading.Thread(
                    target=self._run, args=(question, given, arguments), name="program", daemon=True
                ).start()
            except RuntimeError as failure:
                # A pod may use every process that the machine allows, for a while.
                raise TestbedError(NO_THREAD) from failure
            undo.pop_all()

    def _descriptors(self, terminal: bool) -> set[int]:
        return {self.stdout, *(() if terminal or self.stderr is None else (self._stdin, self.stderr))}

    def resize(self, size: bytes) -> None:
        """Set the size of its terminal, given as JSON; any other is ignored."""
        with contextlib.suppress(ValueError, KeyError, TypeError, struct.error):
            wanted = json.loads(size)
            packed = struct.pack("HHHH", int(wanted["Height"]), int(wanted["Width"]), 0, 0)
            if self._terminal:
                fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, packed)

    async def write(self, data: bytes) -> None:
        """Write to its input, as fast as it reads. Input that it no longer accepts is dropped."""
        with contextlib.suppress(OSError):
            while data and not self._stdin_closed:
                try:
                    data = data[os.write(self._stdin, data) :]
                except BlockingIOError:
                    await _until_ready(self._loop.add_writer, self._loop.remove_writer, self._stdin)

    def close_stdin(self) -> None:
        """End its input; a terminal's ends with the terminal."""
        if not self._terminal and not self._stdin_closed:
            self._stdin_closed = True
            os.close(self._stdin)

    def close(self) -> None:
        """Close this side of the streams; nothing may wait for them any more."""
        self.close_stdin()
        for descriptor in self._descriptors(self._terminal) - ({self._stdin} if self._stdin_closed else set()):
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
            self._loop.call_soon_threadsafe(self._note_end, ended)

    def _note_end(self, ended: Ended) -> None:
        if not self.ended.done():
            self.ended.set_result(ended)


def _closed_by(undo: contextlib.ExitStack, ends: tuple[int, int]) -> tuple[int, int]:
    for end in ends:
        undo.callback(os.close, end)
    return ends


async def read_some(descriptor: int) -> bytes:
    """Return the next output of a program, after waiting for it; empty at its end."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            await _until_ready(loop.add_reader, loop.remove_reader, descriptor)
        except OSError:
            # A terminal whose other side is closed reports an error instead of an end.
            return b""


async def _until_ready(
    add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool], descriptor: int
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(descriptor)


def start_exec(
    record: LabRecord, pod: ObjectKey, container: str | None, argv: list[str], *, terminal: bool
) -> StreamProgram:
    """Run a command in a pod. Raises TestbedError."""
    return StreamProgram(
        record,
        EXEC,
        terminal=terminal,
        name=pod.name,
        namespace=pod.namespace,
        container=container,
        argv=argv,
        tty=terminal,
    )


def start_logs(record: LabRecord, pod: ObjectKey, options: Mapping[str, str | float | None]) -> StreamProgram:
    """Print a container's log, with options of our own verb. Raises TestbedError."""
    return StreamProgram(record, LOGS, terminal=False, name=pod.name, namespace=pod.namespace, **options)


class PodDoor:
    """A socket of this process through which connections get to a port of a pod, made in the pod's namespace."""

    def __init__(self, record: LabRecord, pod: ObjectKey, port: int) -> None:
        """Raises TestbedError, in the lab's words, when the pod cannot be reached now."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A free abstract name: it needs no file, whose path could be too long.
        self._listener.bind("")
        self._listener.listen(16)
        self._connection = LabConnection(record)
        self._messages = self._connection.ask(
            FORWARD, (self._listener.fileno(), QUIET, QUIET), kind="pods", name=str(pod), port=str(port)
        )
        try:
            next(self._messages)
        except TestbedError:
            self.close()
            raise

    @property
    def name(self) -> bytes:
        """Return where to connect."""
        name: bytes = self._listener.getsockname()
        return name

    def close(self) -> None:
        """End it and its connections."""
        self._connection.close()
        self._listener.close()


QUIET = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
"""For what a relay says: clients get the reason of each failure on its own stream."""
