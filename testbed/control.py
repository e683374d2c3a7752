"""The lab's end of the control socket: who may ask, one thread per question, nothing left behind by a client that goes.

The kernel tells who connected (SO_PEERCRED): root may ask for anything, the user who ran `sudo testbed up` for the
verbs that only look. Everybody else cannot even reach the socket, which lies in a directory of mode 0700.
"""

import contextlib
import json
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.wire import close_all, receive_request, send_line

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
MAX_CLIENTS = 256


class VerbFailed(Exception):
    """The asked thing failed: one line for the user, and the exit code for it."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Request:
    """One question: its arguments, the client's standard streams if it sent them, and a way to tell progress."""

    def __init__(self, connection: socket.socket, arguments: dict[str, Any], streams: tuple[int, ...]) -> None:
        self.arguments = arguments
        self.streams = streams
        self._connection = connection

    def argument(self, name: str, kind: type, default: object = None) -> Any:  # noqa: ANN401 - JSON, checked here
        """An argument of the request. Raises VerbFailed (usage) when it has another type."""
        value = self.arguments.get(name, default)
        if value is not None and not isinstance(value, kind):
            raise VerbFailed(f"{name}: wrong type (got {value!r}; want {kind.__name__})", 2)
        return value

    def progress(self, value: object) -> None:
        """Send an intermediate line. Raises OSError when the client is gone."""
        send_line(self._connection, {"progress": value})

    def client_left(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for the client to close its end."""
        readable, _, _ = select.select([self._connection], [], [], timeout_s)
        return bool(readable) and not self._connection.recv(1)

    def fileno(self) -> int:
        """For poll loops that wait for the client's end among other things."""
        return self._connection.fileno()


@dataclass(frozen=True, slots=True)
class Verb:
    """What the lab does for one name."""

    run: Callable[[Request], object]
    changes: bool = True
    """False: it only looks, so the lab's owner may ask without being root."""


class ControlServer:
    """Listens on `path` and answers with `verbs`, each request in a thread of its own."""

    def __init__(self, path: Path, verbs: Mapping[str, Verb], owner_uid: int) -> None:
        self._verbs = verbs
        self._owner_uid = owner_uid
        self._clients = threading.BoundedSemaphore(MAX_CLIENTS)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket.bind(str(path))
        path.chmod(0o600)
        os.chown(path, owner_uid, -1)
        self._socket.listen(128)

    def start(self) -> None:
        """Answer from now on, in background threads."""
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            self._clients.acquire()
            threading.Thread(target=self._serve, args=(connection,), name="control client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        streams: tuple[int, ...] = ()
        try:
            connection.settimeout(REQUEST_TIMEOUT_S)
            line, streams = receive_request(connection)
            connection.settimeout(None)
            send_line(connection, {"result": self._answer(connection, line, streams)})
        except VerbFailed as failure:
            _try_to_send(connection, {"error": str(failure), "exit": failure.exit_code})
        except (OSError, ValueError) as failure:
            log.info("control: %s", failure)
            _try_to_send(connection, {"error": str(failure), "exit": 1})
        except Exception as failure:
            # A bug in one verb must not end the lab; the log has where it was.
            log.exception("control: unexpected")
            _try_to_send(connection, {"error": f"internal error: {failure!r} (see lab.log)", "exit": 1})
        finally:
            close_all(streams)
            connection.close()
            self._clients.release()

    def _answer(self, connection: socket.socket, line: bytes, streams: tuple[int, ...]) -> object:
        try:
            message = json.loads(line)
            name, arguments = message["verb"], message.get("arguments", {})
            verb = self._verbs[name]
        except (ValueError, TypeError, KeyError) as failure:
            raise VerbFailed("not a request of this lab (another version of testbed?)", 2) from failure
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _pid, uid, _gid = struct.unpack("3i", credentials)
        if uid != 0 and (verb.changes or uid != self._owner_uid):
            raise VerbFailed(f"{name}: needs root (try: sudo testbed {name} …)", 3)
        return verb.run(Request(connection, arguments, streams))


def _try_to_send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(1.0)
        send_line(connection, message)
