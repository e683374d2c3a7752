"""What the headers of IPv4 and IPv6 have in common, as values. Pure."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from agent.datapath.packet import IPv4Header, parse_ipv4
from agent.kernel.values import IPAddress

LONGEST_IPV4 = 60
IPV6_HEADER = 40  # RFC 8200 §3
MORE_FRAGMENTS = 0x2000
FRAGMENT = 44
EXTENSIONS = frozenset({0, 43, 60, 135})
"""Hop-by-hop options, routing, destination options, mobility: next header, length in units of 8 bytes less one."""
MOST_EXTENSIONS = 8


@dataclass(frozen=True, slots=True)
class NetworkHeader:
    """A packet's own header, with options or extension headers."""

    version: int
    source: IPAddress
    destination: IPAddress
    ttl: int
    """IPv6 calls it hop limit."""
    protocol: int
    """Of the following header."""
    length: int
    """Of the header, in bytes."""
    total_length: int
    """Of the packet, in bytes."""
    identification: int = 0
    """IPv4's. IPv6 has it only in fragments, which a node on the path may reassemble and cut again: 0."""
    fragment_offset: int = 0
    """In units of 8 bytes."""
    is_fragment: bool = False


def read_network_header(frame: bytes, offset: int) -> NetworkHeader | None:
    """Parse the header at `offset`; None if there is none. A frame may end before its packet does."""
    if offset >= len(frame):
        return None
    return _ipv6(frame, offset) if frame[offset] >> 4 == 6 else _ipv4(frame, offset)


def _ipv4(frame: bytes, offset: int) -> NetworkHeader | None:
    header = parse_ipv4(frame[offset : offset + LONGEST_IPV4], truncated=True)
    if not isinstance(header, IPv4Header):
        return None
    return NetworkHeader(
        4,
        IPv4Address(header.source),
        IPv4Address(header.destination),
        header.ttl,
        header.protocol,
        header.length,
        header.total_length,
        header.identification,
        header.fragment_offset,
        is_fragment=bool(header.flags_and_offset & MORE_FRAGMENTS or header.fragment_offset),
    )


def _ipv6(frame: bytes, offset: int) -> NetworkHeader | None:
    if len(frame) < offset + IPV6_HEADER:
        return None
    payload, protocol, hop_limit = struct.unpack_from("!HBB", frame, offset + 4)
    source, destination = (IPv6Address(frame[offset + at : offset + at + 16]) for at in (8, 24))
    at, end = offset + IPV6_HEADER, min(len(frame), offset + IPV6_HEADER + payload)
    fragment_offset, is_fragment = 0, False
    for _ in range(MOST_EXTENSIONS):
        if end - at < 8 or protocol not in (*EXTENSIONS, FRAGMENT):
            break
        following, size = frame[at], 8 if protocol == FRAGMENT else 8 * (frame[at + 1] + 1)
        if protocol == FRAGMENT:
            fragment_offset, is_fragment = int.from_bytes(frame[at + 2 : at + 4], "big") >> 3, True
        protocol, at = following, at + size
    return NetworkHeader(
        6,
        source,
        destination,
        hop_limit,
        protocol,
        at - offset,
        IPV6_HEADER + payload,
        fragment_offset=fragment_offset,
        is_fragment=is_fragment,
    )
