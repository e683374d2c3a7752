"""Checks whether something in a pod listens on a TCP port, with a kernel query for that port alone.

/proc/PID/net/tcp shows it too, but for that the kernel scans its table of the sockets of all namespaces, which takes
milliseconds however few there are. linux/inet_diag.h, sock_diag.h.
"""

import contextlib
import errno
import os
import socket
import struct
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from testbed.pods.pod_state import listening_ports
from testbed.processes.namespaces import in_network_of

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
TCP_LISTEN = 10
NO_COOKIE = 0xFFFFFFFF
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2, up to the socket's identity
PORTS = struct.Struct(">HH")  # struct inet_diag_sockid: ports, addresses, interface and cookie
REST = struct.Struct("=III")
ANSWER = struct.Struct("=BBBB")  # the beginning of struct inet_diag_msg
CODE = struct.Struct("=i")
TIMEOUT_S = 2.0


class ListeningSockets:
    """Queries the network namespace of one process. Close it: while open, it keeps the namespace."""

    def __init__(self, pid: int | None) -> None:
        """Open it; None means the caller's own namespace. Raises OSError."""
        self.pid = pid
        self._socket = _open() if pid is None else in_network_of(pid, _open)
        self._socket.settimeout(TIMEOUT_S)

    def close(self) -> None:
        """Release the namespace."""
        self._socket.close()

    def on(self, address: str, port: int) -> bool:
        """Report whether a connection to this address and port would be accepted. Raises OSError."""
        self._socket.send(question(ip_address(address), port))
        return listens(self._socket.recv(4096))


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)


@cache
def can_ask() -> bool:
    """Report whether this kernel answers; one without tcp_diag reports no listener for any port."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, contextlib.closing(ListeningSockets(None)) as listening:
            return listening.on(*server.getsockname())
    except OSError:
        return False


def question(address: IPv4Address | IPv6Address, port: int) -> bytes:
    """Return the request for the socket that receives packets to this address and port. Pure."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    identity = PORTS.pack(port, 0) + address.packed.ljust(16, b"\0") + bytes(16) + REST.pack(0, NO_COOKIE, NO_COOKIE)
    body = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << TCP_LISTEN) + identity
    return HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + body


def listens(answer: bytes) -> bool:
    """Report whether the kernel's answer is a listening socket. Pure. Raises OSError."""
    _, kind, *_ = HEADER.unpack_from(answer)
    if kind == NLMSG_ERROR:
        (code,) = CODE.unpack_from(answer, HEADER.size)
        if -code == errno.ENOENT:
            return False
        raise OSError(-code, os.strerror(-code))
    return bool(ANSWER.unpack_from(answer, HEADER.size)[1] == TCP_LISTEN)


def open_ports(pause_pid: int | None) -> frozenset[int]:
    """Return TCP ports with a listener in the pod, the slow way; none if the pod has no namespaces."""
    ports: frozenset[int] = frozenset()
    if pause_pid is not None:
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                ports |= listening_ports(Path(f"/proc/{pause_pid}/net/{table}").read_text(encoding="ascii"))
    return ports
