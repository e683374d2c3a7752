"""The control socket's protocol, shared by both ends: JSON lines, with file descriptors beside the first one.

A client connects to `<rundir>/control.sock`, sends one line `{"verb": name, "arguments": {…}}` (with up to three
descriptors as SCM_RIGHTS: the standard streams of a program to run) and reads lines until one of them is final:

    {"progress": …}                          any number of these
    {"result": …}                            final: the answer
    {"error": text, "exit": code}            final: what went wrong and the exit code for it

Every line, of either end, has `"protocol": PROTOCOL` too: the two ends may be different versions of the testbed, and
then report it instead of misreading each other. Closing the connection ends everything that the request started.
"""

import array
import json
import socket
import struct
from typing import Any

PROTOCOL = 2
"""Grows when requests or answers change their shape. Labs of protocol 1 did not state it."""
UNSAID = 1
LINE_LIMIT = 64 * 1024
"""Bytes of one request; an answer may be longer."""
MAX_DESCRIPTORS = 3
CONTROL_SOCKET = "control.sock"


class WrittenOnce(dict[str, Any]):
    """A JSON object that keeps its text, for what is sent many times; it must not change. A copy is a plain dict."""

    __slots__ = ("_text",)
    _text: str

    @property
    def text(self) -> str:
        """Return its JSON; of parts that are written already, their text."""
        try:
            return self._text
        except AttributeError:
            self._text = f"{{{','.join(f'{_plain_text(name)}:{_text_of(value)}' for name, value in self.items())}}}"
            return self._text

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (dict(self),)


_plain_text = json.JSONEncoder(separators=(",", ":")).encode


def _text_of(value: object) -> str:
    if isinstance(value, WrittenOnce):
        return value.text
    if isinstance(value, list) and all(isinstance(one, WrittenOnce) for one in value):
        return f"[{','.join(one.text for one in value)}]"
    return _plain_text(value)


def line_of(message: dict[str, Any]) -> bytes:
    """Return a message in its wire format."""
    return WrittenOnce({"protocol": PROTOCOL, **message}).text.encode() + b"\n"


def send_line(connection: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one message. Raises OSError if the other end is gone."""
    data = line_of(message)
    sent = 0
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sent = connection.sendmsg([data], rights)
    # An empty send may fail: the receiver of the whole line may have answered and closed.
    if sent < len(data):
        connection.sendall(data[sent:])


def protocol_of(message: dict[str, Any]) -> int:
    """Return the protocol in a message, or in a lab's record."""
    named = message.get("protocol")
    return named if type(named) is int else UNSAID


def peer_uid(connection: socket.socket) -> int:
    """Return the user id of the process at the other end, from the kernel: who connected, or who listens there."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


class RequestReader:
    """One request that arrives in pieces: a line, with descriptors beside any of its pieces."""

    def __init__(self) -> None:
        self._data = b""
        self._descriptors: list[int] = []

    def read(self, connection: socket.socket) -> tuple[bytes, tuple[int, ...]] | None:
        """Read what has arrived; return the whole line with its descriptors, which the caller must close, or None so
        far.

        Raises OSError (BlockingIOError: nothing has arrived), and ValueError if it is not a valid request; the caller
        then closes.
        """
        # Room for more descriptors than allowed, or the kernel would silently cut off the excess.
        space = socket.CMSG_SPACE(2 * MAX_DESCRIPTORS * array.array("i").itemsize)
        chunk, ancillary, flags, _address = connection.recvmsg(LINE_LIMIT + 1, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                self._descriptors.extend(received)
        self._data += chunk
        line, newline, rest = self._data.partition(b"\n")
        wrong = {
            f"a request over {LINE_LIMIT} bytes": len(line) > LINE_LIMIT,
            f"a request with more than {MAX_DESCRIPTORS} descriptors": len(self._descriptors) > MAX_DESCRIPTORS
            or bool(flags & socket.MSG_CTRUNC),
            "half a request": not chunk,
            "more than one request": bool(rest),
        }
        for what, applies in wrong.items():
            if applies:
                raise ValueError(what)
        if not newline:
            return None
        descriptors, self._descriptors = tuple(self._descriptors), []
        return line, descriptors

    def close(self) -> None:
        """Close unclaimed descriptors."""
        close_all(self._descriptors)
        self._descriptors = []


def close_all(descriptors: list[int] | tuple[int, ...]) -> None:
    """Close descriptors received with a request."""
    for descriptor in descriptors:
        socket.close(descriptor)
