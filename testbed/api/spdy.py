"""The frames of SPDY/3.1 that kubectl's port-forward sends inside a WebSocket (draft-mbelshe-httpbis-spdy-00).

Each connection has a stream for its data and one for its errors. Kubernetes' client leaves flow control to TCP, and so
does this.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from testbed.api.spdy_dictionary import DICTIONARY

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, HEADERS = 1, 2, 3, 6, 8
FLAG_FIN = 1
VERSION = 3
CONTROL = 0x8000
LARGEST_FRAME = 1 << 20
"""Bytes; a client that announces more is not Kubernetes'."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The client opened a stream."""

    stream: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `last`: none will follow."""

    stream: int
    payload: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The client reset a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Pinged:
    """Must be answered with the same number."""

    number: int


Frame: TypeAlias = Opened | Data | Reset | Pinged


class ProtocolError(Exception):
    """The data is not SPDY/3.1."""


class Session:
    """One end of a session: bytes in, frames out, and the other way round."""

    def __init__(self) -> None:
        self._buffer = b""
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes as they arrive; yield complete frames. Raises ProtocolError."""
        self._buffer += data
        while len(self._buffer) >= 8:
            first, second, third = struct.unpack_from("!HHI", self._buffer)
            flags, length = third >> 24, third & 0xFFFFFF
            if length > LARGEST_FRAME:
                raise ProtocolError(f"a frame of {length} bytes")
            if len(self._buffer) < 8 + length:
                return
            payload, self._buffer = self._buffer[8 : 8 + length], self._buffer[8 + length :]
            if first & CONTROL:
                yield from self._control(first & 0x7FFF, second, flags, payload)
            else:
                yield Data((first << 16 | second) & 0x7FFFFFFF, payload, bool(flags & FLAG_FIN))

    def _control(self, version: int, kind: int, flags: int, payload: bytes) -> Iterator[Frame]:
        if version != VERSION:
            raise ProtocolError(f"version {version}")
        try:
            if kind == SYN_STREAM:
                stream = struct.unpack_from("!I", payload)[0] & 0x7FFFFFFF
                yield Opened(stream, self._headers(payload[10:]))
                if flags & FLAG_FIN:
                    yield Data(stream, b"", last=True)
            elif kind == HEADERS:
                # Their compression spans frames, so they must be read.
                self._headers(payload[4:])
            elif kind == RST_STREAM:
                yield Reset(struct.unpack_from("!I", payload)[0] & 0x7FFFFFFF)
            elif kind == PING:
                yield Pinged(struct.unpack_from("!I", payload)[0])
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise ProtocolError(str(error)) from error

    def _headers(self, block: bytes) -> Mapping[str, str]:
        plain = self._inflate.decompress(block, LARGEST_FRAME)
        (count,) = struct.unpack_from("!I", plain)
        offset, texts = 4, list[str]()
        for _ in range(min(count, 100) * 2):
            (length,) = struct.unpack_from("!I", plain, offset)
            texts.append(plain[offset + 4 : offset + 4 + length].decode())
            offset += 4 + length
        return {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=True)}

    def reply(self, stream: int) -> bytes:
        """Return the frame that accepts a stream."""
        block = self._deflate.compress(struct.pack("!I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control_frame(SYN_REPLY, struct.pack("!I", stream) + block)

    @staticmethod
    def data(stream: int, payload: bytes, *, last: bool = False) -> bytes:
        """Return a frame with bytes of a stream."""
        return struct.pack("!II", stream, (FLAG_FIN if last else 0) << 24 | len(payload)) + payload

    @staticmethod
    def reset(stream: int) -> bytes:
        """Return the frame that resets a stream."""
        return _control_frame(RST_STREAM, struct.pack("!II", stream, 5))

    @staticmethod
    def pong(number: int) -> bytes:
        """Return the answer to a ping."""
        return _control_frame(PING, struct.pack("!I", number))


def _control_frame(kind: int, payload: bytes) -> bytes:
    return struct.pack("!HHI", CONTROL | VERSION, kind, len(payload)) + payload
