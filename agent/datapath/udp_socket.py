"""The overlay's UDP socket on the underlay: bound to one address and port, with buffers for bursts."""

import errno
import logging
import socket
from ipaddress import IPv4Address

from agent.errors import EnvironmentMissing
from agent.kernel.sockets import port_holder

log = logging.getLogger(__name__)

BUFFER_BYTES = 8 * 1024 * 1024
"""In each direction; with the kernel's default (208 KiB), bursts of TCP are dropped."""
SO_SNDBUFFORCE = 32  # asm-generic/socket.h
SO_RCVBUFFORCE = 33


def open_udp_socket(address: IPv4Address, port: int) -> socket.socket:
    """Open a non-blocking socket bound to `address`:`port`.

    Raises EnvironmentMissing, which names the port's holder.
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        udp.bind((str(address), port))
    except OSError as error:
        udp.close()
        raise EnvironmentMissing(_why_not_bound(address, port, error)) from error
    _enlarge(udp, socket.SO_RCVBUF, SO_RCVBUFFORCE, "receive")
    _enlarge(udp, socket.SO_SNDBUF, SO_SNDBUFFORCE, "send")
    return udp


def _why_not_bound(address: IPv4Address, port: int, error: OSError) -> str:
    where = f"UDP port {port} on {address}"
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(port)
        return (
            f"{where}: already in use{f' by {holder}' if holder else ''} (want: a free port; Backend.Port changes it)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where}: this node does not have the address (want: an address of the interface of --iface)"
    return f"{where}: {error.strerror}"


def _enlarge(udp: socket.socket, option: int, force_option: int, direction: str) -> None:
    try:
        udp.setsockopt(socket.SOL_SOCKET, force_option, BUFFER_BYTES)
    except PermissionError:
        udp.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        # The kernel doubles the requested size to include its own bookkeeping.
        granted = udp.getsockopt(socket.SOL_SOCKET, option) // 2
        if granted < BUFFER_BYTES:
            log.warning("UDP %s buffer: %d bytes instead of %d (want: CAP_NET_ADMIN)", direction, granted, BUFFER_BYTES)
