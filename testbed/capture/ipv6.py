"""IPv6 packets for people: one line of words for each, also inside an overlay's datagram. Pure.

Traces follow IPv4; captures show both families.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from agent.datapath.packet import UDP
from testbed.capture.headers import TCP, UDP_HEADER, Overlay, flag_names

HEADER = 40  # RFC 8200 §3
ICMPV6 = 58
NO_NEXT_HEADER = 59
FRAGMENT = 44
EXTENSIONS = frozenset({0, 43, 60, 135})
"""Hop-by-hop options, routing, destination options, mobility: next header, length in units of 8 bytes less one."""
MOST_EXTENSIONS = 8
NAMES = {TCP: "tcp", UDP: "udp", ICMPV6: "icmp6", NO_NEXT_HEADER: "nothing"}
ICMPV6_WORDS = {  # RFC 4443, 4861, 3810
    1: "unreachable",
    2: "packet too big",
    3: "time exceeded",
    4: "parameter problem",
    128: "echo request",
    129: "echo reply",
    130: "multicast query",
    133: "router solicitation",
    134: "router advertisement",
    135: "who has",
    136: "is at",
    143: "multicast report",
}
ERRORS = range(1, 5)
"""They quote what they are about."""
ABOUT_AN_ADDRESS = (135, 136)
"""Neighbour solicitation and advertisement: the address stands behind 8 bytes of header."""


@dataclass(frozen=True, slots=True)
class IPv6Packet:
    """One packet: its headers as values, and where they lie in the frame."""

    source: IPv6Address
    destination: IPv6Address
    hop_limit: int
    length: int
    """All of it, in bytes."""
    protocol: int
    """Behind the extension headers."""
    transport: int
    end: int
    fragment_offset: int = 0
    source_port: int | None = None
    destination_port: int | None = None


def read_ipv6(frame: bytes, offset: int) -> IPv6Packet | None:
    """The packet that begins at `offset`; None when there is none. A frame may end before the packet does."""
    if len(frame) < offset + HEADER or frame[offset] >> 4 != 6:
        return None
    payload, protocol, hop_limit = struct.unpack_from("!HBB", frame, offset + 4)
    addresses = (IPv6Address(frame[offset + at : offset + at + 16]) for at in (8, 24))
    at, end, cut = offset + HEADER, min(len(frame), offset + HEADER + payload), 0
    for _ in range(MOST_EXTENSIONS):
        if end - at < 8 or protocol not in (*EXTENSIONS, FRAGMENT):
            break
        following, size = frame[at], 8 if protocol == FRAGMENT else 8 * (frame[at + 1] + 1)
        if protocol == FRAGMENT:
            cut = int.from_bytes(frame[at + 2 : at + 4], "big") >> 3
        protocol, at = following, at + size
    source_port = destination_port = None
    if protocol in (TCP, UDP) and not cut and end - at >= 4:
        source_port, destination_port = struct.unpack_from("!HH", frame, at)
    source, destination = addresses
    return IPv6Packet(
        *(source, destination, hop_limit, HEADER + payload, protocol, at, end, cut, source_port, destination_port)
    )


def words(frame: bytes, packet: IPv6Packet) -> str:
    """Ends, what it is, how long, and how far it may still go."""
    what = f"{NAMES.get(packet.protocol, str(packet.protocol))} {_kind(frame, packet)}".strip()
    return f"{ends(packet)} {what}, {packet.length} bytes, hop limit {packet.hop_limit}"


def ends(packet: IPv6Packet) -> str:
    """Source and destination, with ports where there are some."""
    source = _end(packet.source, packet.source_port)
    return f"{source} > {_end(packet.destination, packet.destination_port)}"


def carried_at(overlay: Overlay, protocol: int, transport: int, ports: tuple[int | None, int | None]) -> int | None:
    """Where the packet begins that an overlay's datagram carries; None for a packet that is no such datagram."""
    if overlay.port and protocol == UDP and overlay.port in ports:
        return transport + UDP_HEADER + overlay.header_bytes
    return None


def _kind(frame: bytes, packet: IPv6Packet) -> str:
    if packet.fragment_offset:
        return "fragment"
    at, room = packet.transport, packet.end - packet.transport
    if packet.protocol == TCP and room >= 14:
        return flag_names(frame[at + 13])
    if packet.protocol != ICMPV6 or room < 4:
        return ""
    kind = frame[at]
    said = ICMPV6_WORDS.get(kind, f"type {kind}")
    if kind in ABOUT_AN_ADDRESS and room >= 24:
        return f"{said} {IPv6Address(frame[at + 8 : at + 24])}"
    about = read_ipv6(frame[: packet.end], at + 8) if kind in ERRORS else None
    return f"{said} about {ends(about)}" if about else said


def _end(address: IPv6Address, port: int | None) -> str:
    return str(address) if port is None else f"[{address}]:{port}"
