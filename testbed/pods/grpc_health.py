"""One request to a program's health service, grpc.health.v1.Health/Check: gRPC's HTTP/2 by hand, for one small call.

grpc opens its sockets in its own threads, so they cannot be in a node's network namespace; and the supervisor would
load it only for this. The answer is in the first message: no response headers need decoding.
"""

import socket
import struct
import time
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING = 0, 1, 3, 4, 6
ACKNOWLEDGED, END_STREAM, END_HEADERS, PADDED = 1, 1, 4, 8
STREAM = 1
FRAME_HEADER, MESSAGE_HEADER = 9, 5
MOST_BYTES = 64 * 1024
"""Limit for a whole answer; a longer one is invalid."""
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


class _GrpcFrame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def check(host: str, port: int, service: str, timeout_s: float) -> str:
    """Send the request; return why the program is not serving, or "". Raises OSError, including TimeoutError."""
    deadline = time.monotonic() + timeout_s
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(request(service))
        received, taken = b"", 0
        message = b""
        while taken <= MOST_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            if not (data := connection.recv(4096)):
                break
            taken += len(data)
            frames, received = split(received + data)
            for frame in frames:
                if frame.kind in (SETTINGS, PING) and not frame.flags & ACKNOWLEDGED:
                    echoed = frame.payload if frame.kind == PING else b""
                    connection.sendall(_frame(frame.kind, ACKNOWLEDGED, 0, echoed))
                if frame.stream != STREAM:
                    continue
                message += _content(frame) if frame.kind == DATA else b""
                if frame.kind == RESET or (frame.kind in (DATA, HEADERS) and frame.flags & END_STREAM):
                    return verdict(message, service)
    return "the answer is not gRPC"


def request(service: str) -> bytes:
    """Return the complete request, including settings. Pure."""
    name = service.encode()
    body = b"" if not name else b"\x0a" + _varint(len(name)) + name
    # Indices of HPACK's static table: POST, http; then the path, the authority and the content type by their names.
    headers = (
        b"\x83\x86"
        + b"\x04" + _text("/grpc.health.v1.Health/Check")
        + b"\x01" + _text("localhost")
        + b"\x0f\x10" + _text("application/grpc")
        + b"\x00" + _text("te") + _text("trailers")
    )  # fmt: skip
    return b"".join(
        (
            PREFACE,
            _frame(SETTINGS, 0, 0, b""),
            _frame(HEADERS, END_HEADERS, STREAM, headers),
            _frame(DATA, END_STREAM, STREAM, b"\x00" + struct.pack("!I", len(body)) + body),
        )
    )


def split(data: bytes) -> tuple[list[_GrpcFrame], bytes]:
    """Return the complete frames in the received data, and the rest. Pure."""
    frames = []
    while len(data) >= FRAME_HEADER:
        length = int.from_bytes(data[:3], "big")
        if len(data) < FRAME_HEADER + length:
            break
        stream = int.from_bytes(data[5:FRAME_HEADER], "big") & 0x7FFFFFFF
        frames.append(_GrpcFrame(data[3], data[4], stream, data[FRAME_HEADER : FRAME_HEADER + length]))
        data = data[FRAME_HEADER + length :]
    return frames, data


def verdict(message: bytes, service: str) -> str:
    """Return why a health check's answer is a failure; empty for SERVING. Pure."""
    if len(message) < MESSAGE_HEADER:
        return f"no health service answers{f' for {service}' if service else ''} (want grpc.health.v1.Health)"
    body = message[MESSAGE_HEADER:]
    # Default values are omitted, and a server of this version never sends unknown fields.
    number = body[1] if body[:1] == b"\x08" and len(body) > 1 else 0
    status = STATUSES[number] if number < len(STATUSES) else str(number)
    return "" if status == "SERVING" else f"the health service answers {status}"


def _content(frame: _GrpcFrame) -> bytes:
    if not frame.flags & PADDED:
        return frame.payload
    return frame.payload[1 : len(frame.payload) - frame.payload[0]] if frame.payload else b""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def _varint(number: int) -> bytes:
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*groups, number))
