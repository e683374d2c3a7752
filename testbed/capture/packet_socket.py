"""One AF_PACKET socket for all interfaces of one network namespace, with the kernel's own time stamps.

The socket stays in the namespace where it was opened, so its owner may be anywhere. It is opened without a protocol,
gets its filter, and only then starts to receive: nothing that the filter refuses is ever queued.
"""

import array
import contextlib
import ctypes
import fcntl
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from testbed.capture.filters import Instruction, encode
from testbed.capture.segments import Offload

log = logging.getLogger(__name__)

ETH_P_ALL = 0x0003  # linux/if_ether.h
SOL_PACKET = 263  # linux/socket.h
PACKET_STATISTICS = 6  # linux/if_packet.h
PACKET_VNET_HDR = 15
OUTGOING = socket.PACKET_OUTGOING
OTHERHOST = socket.PACKET_OTHERHOST
SO_ATTACH_FILTER = 26  # asm-generic/socket.h
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SIOCGIFMTU = 0x8921  # linux/sockios.h
SIOCGIFHWADDR = 0x8927
INTERFACE_REQUEST = struct.Struct("16si20x")
"""struct ifreq with a number."""
VNET_HEADER = struct.Struct("=BBHHHH")
"""struct virtio_net_hdr: flags, GSO type, header length, GSO size, checksum's start and offset; the host's order."""
LARGEST_FRAME = 256 * 1024
BUFFER_BYTES = 8 * 1024 * 1024
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772  # linux/if_arp.h
ETHERNET_HEADER = 14
STAMPS_LIMIT_S = 0.25

_TIMESPEC = struct.Struct("@ll")
_FILTER_PROGRAM = struct.Struct("@HxxxxxxP")
_COUNTS = struct.Struct("@II")
_ADDRESS = struct.Struct("@HHiHBB8s")
"""struct sockaddr_ll: family, protocol in network order, interface's index (0: all), and what bind does not read."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """One frame at one interface."""

    at_ns: int
    """Since the epoch."""
    interface: str
    """Empty if the interface was deleted before its name was read."""
    packet_type: int
    """PACKET_HOST, PACKET_OTHERHOST, PACKET_OUTGOING, …"""
    hardware_type: int
    """ARPHRD_…"""
    offload: Offload
    frame: bytes
    """With the link's header."""

    @property
    def link_header(self) -> int:
        """Return the bytes before the network header."""
        return ETHERNET_HEADER if self.hardware_type in (ARPHRD_ETHER, ARPHRD_LOOPBACK) else 0


class PacketSocket:
    """Receives from every interface of the caller's network namespace from `listen` on."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)

    def listen(self, program: list[Instruction]) -> None:
        """Receive what `program` accepts, on all interfaces, including later ones. Raises OSError."""
        listening = self._socket
        # The kernel reads it through a pointer, so it must live until the call returns.
        code = array.array("B", encode(program))
        address, _length = code.buffer_info()
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, _FILTER_PROGRAM.pack(len(program), address))
        try:
            listening.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        except PermissionError:
            # In a user namespace, the machine's limit cannot be exceeded.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            granted = listening.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
            log.warning("capture buffer: %d bytes instead of %d (want: root)", granted, BUFFER_BYTES)
        listening.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        listening.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        _bind_to_all(listening)

    def receive(self) -> SeenFrame | None:
        """Return the next frame; None if none is waiting. Raises OSError, EINVAL for one that cannot be described."""
        try:
            data, ancillary, _flags, address = self._socket.recvmsg(LARGEST_FRAME, 64)
        except BlockingIOError:
            return None
        at_ns = time.time_ns()
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack_from(payload)
                at_ns = seconds * 1_000_000_000 + nanoseconds
        flags, gso_type, _, gso_size, start, offset = VNET_HEADER.unpack_from(data)
        offload = Offload(bool(flags & 1), gso_type & 0x7F, gso_size, start, offset)
        name, _protocol, packet_type, hardware_type, _hardware = address
        return SeenFrame(at_ns, name, packet_type, hardware_type, offload, data[VNET_HEADER.size :])

    def waiting(self, most: int) -> Iterator[SeenFrame]:
        """Yield the frames that have arrived, at most so many."""
        for _ in range(most):
            try:
                seen = self.receive()
            except OSError:
                continue  # a frame that the kernel could not describe, or an interface that went down
            if seen is None:
                return
            yield seen

    def has_link_header(self, interface: str) -> bool:
        """Report whether an interface's frames start with an Ethernet header. Raises OSError if it is gone."""
        request = INTERFACE_REQUEST.pack(interface.encode(), 0)
        answer = fcntl.ioctl(self._socket, SIOCGIFHWADDR, request)
        return int.from_bytes(answer[16:18], sys.byteorder) in (ARPHRD_ETHER, ARPHRD_LOOPBACK)

    def mtu(self, interface: str) -> int | None:
        """Return an interface's MTU in bytes; None if it is gone."""
        request = INTERFACE_REQUEST.pack(interface.encode(), 0)
        with contextlib.suppress(OSError):
            _name, mtu = INTERFACE_REQUEST.unpack(fcntl.ioctl(self._socket, SIOCGIFMTU, request))
            return int(mtu)
        return None

    def lost(self) -> int:
        """Return the number of frames that did not fit into the queue since the last call."""
        counts = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, _COUNTS.size)
        return int(_COUNTS.unpack(counts)[1])

    def fileno(self) -> int:
        """Return the descriptor for poll loops."""
        return self._socket.fileno()

    def close(self) -> None:
        """Release the namespace. This takes the kernel some milliseconds, in which it waits for other processors."""
        self._socket.close()


def _bind_to_all(listening: socket.socket) -> None:
    """Bind to all interfaces, which Python's own bind cannot: it requires a name."""
    address = _ADDRESS.pack(socket.AF_PACKET, socket.htons(ETH_P_ALL), 0, 0, 0, 0, bytes(8))
    if _libc.bind(listening.fileno(), address, len(address)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bind a packet socket: {os.strerror(number)}")


def await_stamps(limit_s: float = STAMPS_LIMIT_S) -> bool:
    """Wait until the kernel stamps packets on arrival; return whether it does.

    The first socket on the machine that requests stamps enables them shortly *afterwards*; earlier packets are stamped
    when they are read. Where the loopback of the caller's namespace carries nothing, it cannot know, and returns False.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as canary, contextlib.suppress(OSError):
        canary.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        canary.bind(("127.0.0.1", 0))
        canary.settimeout(limit_s)
        return _until(lambda: _stamped_on_arrival(canary), limit_s)
    return False


def _stamped_on_arrival(canary: socket.socket) -> bool:
    canary.sendto(b"now?", canary.getsockname())
    sent_ns = time.time_ns()
    time.sleep(0.0005)
    try:
        _data, ancillary, _flags, _address = canary.recvmsg(16, 64)
    except TimeoutError:
        return False
    seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
    return bool(seconds * 1_000_000_000 + nanoseconds <= sent_ns)


def _until(true: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            return False
    return True
