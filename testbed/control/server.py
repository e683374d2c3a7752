"""The lab's end of the control socket: access control, one thread per request, nothing left behind by any client.

    connect ─> uid known? ─> waiting room (one thread for all) ── whole request ──> a thread that answers
                                 too late, too long, half, too many waiting: an error, and closed

So clients that send nothing, or half a request, cost one descriptor each and delay no other client. The kernel
identifies the client (SO_PEERCRED): root may use every verb, the user who ran `sudo testbed up` only the read-only
ones. Other users cannot even connect: the socket belongs to that user, with mode 0600, in a directory of root's.
"""

import contextlib
import json
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from agent.daemon.memory import LARGE_BYTES, release_free_memory
from agent.errors import AgentError
from testbed.control.questions import AnswerT, Question
from testbed.control.wire import (
    PROTOCOL,
    RequestReader,
    close_all,
    line_of,
    peer_uid,
    protocol_of,
    send_line,
)
from testbed.errors import InvalidInput, TestbedError, WrongEnvironment
from testbed.processes.readable import readable

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
"""From the connection to the end of the request."""
MAX_WAITING = 64
"""Clients without a complete request; of more, the longest waiting one is disconnected."""
DELIVERY_LIMIT_S = 30.0
"""A client that has not read its answer by then loses it: until then the lab keeps it."""
MAX_ANSWERED = 256
"""Concurrent requests, such as open shells."""
NO_THREAD = (
    "the lab can start no thread: a limit of processes is reached"
    " (end some of them, or raise ulimit -u, pids.max of the control group, kernel.threads-max)"
)


class Request:
    """One request: its arguments, the client's standard streams if it sent them, and a way to report progress."""

    def __init__(self, connection: socket.socket, arguments: dict[str, Any], streams: tuple[int, ...]) -> None:
        self.arguments = arguments
        self.streams = streams
        self._connection = connection

    def argument(self, name: str, kind: type, default: object = None) -> Any:  # noqa: ANN401 - JSON, checked here
        """Return an argument of the request. Raises TestbedError (usage) if it has another type."""
        value = self.arguments.get(name, default)
        if kind is float and type(value) is int:
            # JSON knows one kind of number, and a caller writes 60 for 60 s.
            with contextlib.suppress(OverflowError):
                value = float(value)
        if value is not None and not isinstance(value, kind):
            raise InvalidInput(f"{name}: wrong type (got {value!r}; want {kind.__name__})")
        return value

    def progress(self, value: object) -> None:
        """Send an intermediate line. Raises OSError when the client is gone."""
        send_line(self._connection, {"progress": value})

    def client_left(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for the client to close its end."""
        return bool(readable([self.fileno()], timeout_s)) and not self._connection.recv(1)

    def fileno(self) -> int:
        """Return the descriptor, for poll loops that wait for the client's end among others."""
        return self._connection.fileno()


@dataclass(frozen=True, slots=True)
class Verb(Generic[AnswerT]):
    """The lab's implementation of one request."""

    question: Question[AnswerT]
    run: Callable[[Request], AnswerT]
    changes: bool = True
    """False: it is read-only, so the lab's owner may use it without being root."""


AnyVerb = Verb[Any]


@dataclass(slots=True)
class _Waiting:
    """A client with an incomplete request."""

    connection: socket.socket
    uid: int
    reader: RequestReader
    until_s: float


class ControlServer:
    """Listens on `path` and answers with `verbs`, each request in its own thread."""

    def __init__(self, path: Path, verbs: Iterable[AnyVerb], owner_uid: int) -> None:
        self._verbs = {verb.question.name: verb for verb in verbs}
        self._owner_uid = owner_uid
        self._answered = threading.BoundedSemaphore(MAX_ANSWERED)
        self._counting = threading.Lock()
        self._running = 0
        self._large_delivered = False
        self._waiting: dict[socket.socket, _Waiting] = {}
        """In order of arrival, which is also that of `until_s`."""
        self._selector = selectors.DefaultSelector()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket.bind(str(path))
        path.chmod(0o600)
        os.chown(path, owner_uid, -1)
        self._socket.setblocking(False)
        self._socket.listen(128)
        self._selector.register(self._socket, selectors.EVENT_READ)

    def start(self) -> None:
        """Answer from now on, in background threads."""
        threading.Thread(target=self._attend, name="control", daemon=True).start()

    def _attend(self) -> None:
        while True:
            first = next(iter(self._waiting.values()), None)
            limit_s = None if first is None else max(0.0, first.until_s - time.monotonic())
            for key, _ in self._selector.select(limit_s):
                if key.fileobj is self._socket:
                    self._accept()
                elif key.data.connection in self._waiting:
                    self._read(key.data)
            while (first := next(iter(self._waiting.values()), None)) and first.until_s <= time.monotonic():
                self._turn_away(first, f"no whole request within {REQUEST_TIMEOUT_S:g} s")

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError as failure:
            # Probably out of descriptors: the longest waiting client gives one back.
            log.warning("control: %s", failure)
            if self._waiting:
                self._turn_away(next(iter(self._waiting.values())), "too many clients")
            else:
                time.sleep(0.05)  # the connection stays in the queue, so the next look would find it at once
            return
        connection.setblocking(False)
        client = _Waiting(connection, peer_uid(connection), RequestReader(), time.monotonic() + REQUEST_TIMEOUT_S)
        if client.uid not in (0, self._owner_uid):
            _try_to_send(connection, {"error": "not your lab (try with sudo)", "exit": 3})
            connection.close()
            return
        if len(self._waiting) >= MAX_WAITING:
            self._turn_away(next(iter(self._waiting.values())), f"more than {MAX_WAITING} clients without a request")
        self._waiting[connection] = client
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _read(self, client: _Waiting) -> None:
        try:
            request = client.reader.read(client.connection)
        except BlockingIOError:
            return
        except (OSError, ValueError) as failure:
            self._turn_away(client, str(failure))
            return
        if request is None:
            return
        self._forget(client)
        if not self._answered.acquire(blocking=False):
            close_all(request[1])
            _try_to_send(client.connection, {"error": f"{MAX_ANSWERED} requests are already running", "exit": 1})
            client.connection.close()
            return
        client.connection.setblocking(True)
        with self._counting:
            self._running += 1
        try:
            threading.Thread(target=self._serve, args=(client, *request), name="control client", daemon=True).start()
        except RuntimeError as failure:
            # A pod may use every process that the machine allows, for a while.
            log.warning("control: %s", failure)
            _try_to_send(client.connection, {"error": NO_THREAD, "exit": 1})
            self._release(client.connection, request[1])

    def _forget(self, client: _Waiting) -> None:
        self._selector.unregister(client.connection)
        del self._waiting[client.connection]

    def _turn_away(self, client: _Waiting, why: str) -> None:
        log.info("control: %s", why)
        self._forget(client)
        client.reader.close()
        _try_to_send(client.connection, {"error": why, "exit": 1})
        client.connection.close()

    def _serve(self, client: _Waiting, line: bytes, streams: tuple[int, ...]) -> None:
        connection = client.connection
        try:
            # As text only: its source need not stay in memory until a slow reader has all of it.
            answer = line_of({"result": self._answer(client, line, streams)})
            self._deliver(connection, answer)
            if len(answer) >= LARGE_BYTES:
                self._large_delivered = True
        except TestbedError as failure:
            _try_to_send(connection, {"error": str(failure), "exit": failure.exit_code}, patience_s=1)
        except (OSError, AgentError) as failure:
            # The kernel refused, or the client is gone.
            log.info("control: %s", failure)
            _try_to_send(connection, {"error": str(failure), "exit": 1}, patience_s=1)
        except Exception as failure:
            # A bug in one verb must not end the lab; the log has the traceback.
            log.exception("control: unexpected error")
            _try_to_send(connection, {"error": f"internal error: {failure!r} (see lab.log)", "exit": 1}, patience_s=1)
        finally:
            self._release(connection, streams)

    def _release(self, connection: socket.socket, streams: tuple[int, ...]) -> None:
        """Close what belongs to a request, which has been answered."""
        close_all(streams)
        connection.close()
        self._answered.release()
        with self._counting:
            self._running -= 1
            release = self._large_delivered and not self._running
            self._large_delivered = self._large_delivered and not release
        if release:
            release_free_memory()

    def _deliver(self, connection: socket.socket, answer: bytes) -> None:
        try:
            connection.settimeout(DELIVERY_LIMIT_S)
            connection.sendall(answer)
        except OSError as failure:
            # It is gone, or too slow; nothing may follow half an answer.
            log.info("control: answer not delivered: %s", failure)

    def _answer(self, client: _Waiting, line: bytes, streams: tuple[int, ...]) -> object:
        try:
            message = json.loads(line)
            if isinstance(message, dict) and (protocol := protocol_of(message)) != PROTOCOL:
                raise TestbedError(_other_protocol(protocol))
            name, arguments = message["verb"], message.get("arguments", {})
            verb = self._verbs[name]
        except (ValueError, TypeError, KeyError, RecursionError) as failure:
            raise InvalidInput("not a request of this lab (another version of testbed?)") from failure
        if not isinstance(arguments, dict):
            raise InvalidInput(f"{name}: arguments are not a mapping (another version of testbed?)")
        if client.uid != 0 and (verb.changes or client.uid != self._owner_uid):
            raise WrongEnvironment(f"{name}: needs root (try: sudo testbed {name} …)")
        return verb.run(Request(client.connection, arguments, streams))


def _other_protocol(protocol: int) -> str:
    said = f"(protocol {PROTOCOL}; this command speaks {protocol})"
    if protocol < PROTOCOL:
        return f"this lab runs a newer testbed {said}: use that one, or take the lab down (testbed down)"
    return f"this lab runs an older testbed {said}: take it down and bring it up again (testbed down)"


def _try_to_send(connection: socket.socket, message: dict[str, Any], patience_s: float = 0.0) -> None:
    """Send a client its error, if it reads it in time; without patience only as much as fits into the
    socket's buffer.
    """
    with contextlib.suppress(OSError):
        connection.settimeout(patience_s)
        send_line(connection, message)
