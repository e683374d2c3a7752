"""The control socket's protocol, shared by both ends: JSON lines, with file descriptors beside the first one.

A client connects to `<rundir>/control.sock`, sends one line `{"verb": name, "arguments": {…}}` (with up to three
descriptors as SCM_RIGHTS: the standard streams of a program to run) and reads lines until one of them is final:

    {"progress": …}                          any number of these
    {"result": …}                            final: the answer
    {"error": text, "exit": code}            final: what went wrong and the exit code for it

Closing the connection ends whatever the request started.
"""

import array
import json
import socket
from typing import Any

LINE_LIMIT = 64 * 1024
"""Bytes of one request; an answer may be longer."""
MAX_DESCRIPTORS = 3
CONTROL_SOCKET = "control.sock"


def send_line(connection: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one message. Raises OSError when the other end is gone."""
    data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    sent = 0
    if descriptors:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        sent = connection.sendmsg([data], rights)
    connection.sendall(data[sent:])


def receive_request(connection: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """Read one request line and its descriptors, which the caller must close.

    Raises ValueError when the line is too long or the other end stopped in the middle of it.
    """
    data = b""
    descriptors: list[int] = []
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    while not data.endswith(b"\n"):
        chunk, ancillary, _flags, _address = connection.recvmsg(LINE_LIMIT, space, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                descriptors.extend(received)
        data += chunk
        if not chunk or len(data) > LINE_LIMIT:
            close_all(descriptors)
            raise ValueError("half a request" if len(data) <= LINE_LIMIT else f"a request over {LINE_LIMIT} bytes")
    return data, tuple(descriptors)


def close_all(descriptors: list[int] | tuple[int, ...]) -> None:
    """Close descriptors received with a request."""
    for descriptor in descriptors:
        socket.close(descriptor)
