"""One real probe: a TCP connection and some bytes, a UDP datagram, or an ICMP echo request.

The socket is opened in the sender's network namespace and the kernel does the rest, so the probe takes the path of any
program's packets. TCP's first sequence number is chosen here (TCP_REPAIR), so that it can be recognised.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import select
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address

from agent.datapath.packet import internet_checksum
from agent.kernel.values import IPAddress
from testbed.processes.namespaces import in_network_of
from testbed.trace.recognise import ECHO_REPLY, ECHO_REQUEST, Mark, Protocol

TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21  # linux/tcp.h
SEND_QUEUE, REPAIR_OFF = 2, -1
SIOCOUTQ = 0x5411  # linux/sockios.h
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER: no TIME_WAIT, so that the next probe may use the same port at once."""
FILLER = b"overlay-testbed "


@dataclass(frozen=True, slots=True)
class WantedPacket:
    """The packet to send."""

    protocol: Protocol
    destination: IPAddress
    destination_port: int | None
    source_port: int | None
    size: int
    """Payload bytes."""


class TracedPacket:
    """A socket in the namespace of process `pid`; nothing is sent before `send`. Raises OSError."""

    def __init__(self, pid: int, wanted: WantedPacket) -> None:
        self.wanted = wanted
        self._cookie = secrets.randbits(32)
        # A separate identifier for each: connection trackers treat packets with one identifier as one connection.
        self._echo_id = secrets.randbits(16)
        self._socket: socket.socket = in_network_of(pid, self._open)
        self.source_port = None if wanted.protocol == "icmp" else int(self._socket.getsockname()[1])
        self._said = False
        self.outcome: str | None = None
        """`answered`, `refused` or the kernel's error in words; None while nothing came back."""

    @property
    def mark(self) -> Mark:
        """Return its recognisable properties."""
        ports = (self.source_port, self.wanted.destination_port) if self.wanted.protocol == "udp" else ()
        version = self.wanted.destination.version
        return Mark(self.wanted.protocol, self._cookie, tuple(port for port in ports if port), version)

    @property
    def source(self) -> IPAddress:
        """Return the sender's address, once it is connected or connecting."""
        return ip_address(self._socket.getsockname()[0].partition("%")[0])

    def fileno(self) -> int:
        """Return the descriptor, readable when something came back."""
        return self._socket.fileno()

    def send(self) -> None:
        """Start the probe."""
        try:
            self._socket.connect((str(self.wanted.destination), self.wanted.destination_port or 0))
            if self.wanted.protocol != "tcp":
                self._socket.send(self._echo_request() if self.wanted.protocol == "icmp" else self._payload())
        except BlockingIOError:
            pass
        except OSError as failure:
            self._fail(failure)

    def settled(self) -> bool:
        """Read pending replies; return whether everything expected came back."""
        if self.outcome is None and self._is_ready():
            if self.wanted.protocol == "tcp":
                self._finish_connecting()
            else:
                self._read_answer()
        if self.outcome != "answered" or self.wanted.protocol != "tcp":
            return self.outcome is not None
        return self.unacknowledged() == 0

    def unacknowledged(self) -> int:
        """Return payload bytes that the other end has not confirmed; TCP only."""
        with contextlib.suppress(OSError):
            return int(struct.unpack("i", fcntl.ioctl(self._socket, SIOCOUTQ, bytes(4)))[0])
        return 0

    def close(self) -> None:
        """Close it, a connection by a reset."""
        self._socket.close()

    def _open(self) -> socket.socket:
        wanted = self.wanted
        version = wanted.destination.version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        if wanted.protocol == "icmp":
            opened = socket.socket(family, socket.SOCK_RAW, self.mark.number)
        else:
            kind = socket.SOCK_STREAM if wanted.protocol == "tcp" else socket.SOCK_DGRAM
            opened = socket.socket(family, kind)
            try:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                opened.bind(("0.0.0.0" if version == 4 else "::", wanted.source_port or 0))
                if wanted.protocol == "tcp":
                    self._choose_sequence(opened)
            except OSError:
                opened.close()
                raise
        opened.setblocking(False)
        return opened

    def _choose_sequence(self, opened: socket.socket) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        opened.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
        # The kernel treats 0 as "not chosen".
        self._cookie = self._cookie or 1
        opened.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("@I", self._cookie))
        opened.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _payload(self) -> bytes:
        marked = struct.pack("!I", self._cookie) + FILLER * (self.wanted.size // len(FILLER) + 1)
        return marked[: max(4, self.wanted.size)]

    def _echo_request(self) -> bytes:
        rest = struct.pack("!HH", self._echo_id, 1) + self._payload()
        kind = ECHO_REQUEST[self.wanted.destination.version]
        # IPv6's covers addresses; the kernel writes it (RFC 3542 §3.1).
        checksum = internet_checksum(struct.pack("!BBH", kind, 0, 0) + rest)
        return struct.pack("!BBH", kind, 0, checksum) + rest

    def _is_ready(self) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT if self.wanted.protocol == "tcp" else select.POLLIN)
        return bool(poll.poll(0))

    def _finish_connecting(self) -> None:
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._fail(OSError(number, os.strerror(number)))
            return
        self.outcome = "answered"
        with contextlib.suppress(OSError):
            self._socket.send((FILLER * (self.wanted.size // len(FILLER) + 1))[: self.wanted.size])

    def _read_answer(self) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as failure:
            self._fail(failure)
            return
        if self.wanted.protocol == "udp" or self._is_echo_reply(data):
            self.outcome = "answered"

    def _is_echo_reply(self, packet: bytes) -> bool:
        version = self.wanted.destination.version
        # IPv6 raw sockets do not deliver the header (RFC 3542 §3).
        icmp = packet[(packet[0] & 0xF) * 4 :] if version == 4 else packet
        return icmp[:1] == bytes([ECHO_REPLY[version]]) and icmp[8:12] == struct.pack("!I", self._cookie)

    def _fail(self, failure: OSError) -> None:
        self.outcome = "refused" if failure.errno == errno.ECONNREFUSED else (failure.strerror or str(failure)).lower()
