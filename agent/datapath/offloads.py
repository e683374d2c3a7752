"""Bulk transfers that this kernel supports. All of them are optional: without them, packets move one at a time."""

import fcntl
import logging
import socket
from dataclasses import dataclass

log = logging.getLogger(__name__)

UDP_SEGMENT = 103  # linux/udp.h
UDP_GRO = 104
TUNSETOFFLOAD = 0x400454D0  # linux/if_tun.h
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40
"""The kernel accepts USO4 only together with USO6; inner IPv6 is dropped anyway. No TSO6, for the same reason."""


@dataclass(frozen=True, slots=True)
class Offloads:
    """Which bulk transfers the kernel granted."""

    vnet_header: bool = False
    """The TUN device describes how to cut a packet, in both directions (IFF_VNET_HDR)."""
    tun_tcp: bool = False
    """The TUN device hands over TCP super-packets, checksums left to us (TUN_F_CSUM, TUN_F_TSO4)."""
    tun_udp: bool = False
    """The same for runs of UDP datagrams, in both directions (TUN_F_USO4; Linux 6.2)."""
    udp_segment: bool = False
    """One send, many datagrams (UDP_SEGMENT; Linux 4.18)."""
    udp_gro: bool = False
    """One receive, many datagrams (UDP_GRO; Linux 5.0)."""

    def missing(self) -> tuple[str, ...]:
        """Return the missing ones by the kernel's names."""
        names = {
            "IFF_VNET_HDR": self.vnet_header,
            "TUN_F_TSO4": self.tun_tcp,
            "TUN_F_USO4": self.tun_udp,
            "UDP_SEGMENT": self.udp_segment,
            "UDP_GRO": self.udp_gro,
        }
        return tuple(name for name, granted in names.items() if not granted)


def switch_on(tun: int, vnet_header: bool, udp: socket.socket) -> Offloads:
    """Request all of them from the kernel; `vnet_header`: the TUN device was opened with IFF_VNET_HDR."""
    tcp_flags = TUN_F_CSUM | TUN_F_TSO4
    tun_udp = vnet_header and _offload(tun, tcp_flags | TUN_F_USO4 | TUN_F_USO6)
    return Offloads(
        vnet_header=vnet_header,
        tun_tcp=tun_udp or (vnet_header and _offload(tun, tcp_flags)),
        tun_udp=tun_udp,
        # Only probed: 0 leaves the size to each send.
        udp_segment=_option(udp, UDP_SEGMENT, 0),
        udp_gro=_option(udp, UDP_GRO, 1),
    )


def _offload(tun: int, flags: int) -> bool:
    try:
        fcntl.ioctl(tun, TUNSETOFFLOAD, flags)
    except OSError:
        return False
    return True


def _option(udp: socket.socket, option: int, value: int) -> bool:
    try:
        udp.setsockopt(socket.IPPROTO_UDP, option, value)
    except OSError:
        return False
    return True
