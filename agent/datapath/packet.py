"""IPv4 headers, checksums and the one ICMP message that the overlay sends. Pure; addresses are plain 32-bit numbers.

Numbers, not IPv4Address objects, because every packet comes through here: one object per address would cost more than
all checks together. The header is a NamedTuple for the same reason (a frozen dataclass takes ten times as long).
"""

import struct
from typing import NamedTuple

from agent.datapath.counters import DropReason

MIN_HEADER_LENGTH = 20  # bytes, RFC 791 §3.1
ICMP = 1
UDP = 17
ICMP_DESTINATION_UNREACHABLE = 3  # RFC 792; code 0 is "net unreachable"
ICMP_NET_UNREACHABLE = 0
ICMP_REPLY_TTL = 64  # RFC 1700, default of most systems
ICMP_QUOTED_PAYLOAD = 8  # bytes of the offender after its header, RFC 792
ICMP_QUERIES = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43})
"""Echo, router discovery, timestamp, information, address mask, extended echo. All other types count as errors."""

_HEADER = struct.Struct("!BBHHHBBHII")
_ICMP_HEADER = struct.Struct("!BBHI")


class IPv4Header(NamedTuple):
    """The fixed 20 bytes (RFC 791 §3.1), as they are on the wire."""

    version_ihl: int
    tos: int
    total_length: int
    identification: int
    flags_and_offset: int
    ttl: int
    protocol: int
    checksum: int
    source: int
    destination: int

    @property
    def length(self) -> int:
        """Return the header's length in bytes, options included."""
        return (self.version_ihl & 0xF) * 4

    @property
    def fragment_offset(self) -> int:
        """Return the offset in units of 8 bytes; 0 for whole packets and first fragments."""
        return self.flags_and_offset & 0x1FFF


def parse_ipv4(packet: bytes, *, truncated: bool = False) -> IPv4Header | DropReason:
    """Parse the header; return it, or its error (`short`, `version`, `ihl` or `length`).

    The checksum is not checked. `truncated`: `packet` is only the start of what was received, so its length proves
    nothing.
    """
    size = len(packet)
    if size < MIN_HEADER_LENGTH:
        return DropReason.SHORT
    header = IPv4Header._make(_HEADER.unpack_from(packet))
    if header.version_ihl == 0x45:
        header_length = MIN_HEADER_LENGTH
    elif header.version_ihl >> 4 != 4:
        return DropReason.VERSION
    else:
        header_length = header.length
        if header_length < MIN_HEADER_LENGTH or header_length > size:
            return DropReason.IHL
    if header.total_length < header_length or (header.total_length > size and not truncated):
        return DropReason.LENGTH
    return header


def internet_checksum(data: bytes) -> int:
    """Return the ones' complement checksum (RFC 1071) of `data`, whose checksum field is 0. Odd lengths are padded."""
    number = int.from_bytes(data, "big") << (8 * (len(data) % 2))
    # 2^16 is 1 modulo 2^16 - 1, so the whole number and the sum of its words have the same remainder.
    total = number % 0xFFFF or (0xFFFF if number else 0)
    return ~total & 0xFFFF


def header_checksum_is_right(packet: bytes, header_length: int) -> bool:
    """Report whether the header's words add up to ones' complement zero (RFC 1071). The header must not be all zero."""
    return int.from_bytes(packet[:header_length], "big") % 0xFFFF == 0


def net_unreachable(packet: bytes, header: IPv4Header, source: int) -> bytes | None:
    """Build an ICMP destination net unreachable (RFC 792) from `source` to the sender of `packet`.

    None where RFC 1122 §3.2.2 forbids an answer: to an ICMP error, to a fragment other than the first, to a packet from
    or for a group of hosts, or from an address that is no host's.
    """
    if header.fragment_offset or not _is_one_host(header.source) or is_multicast_or_broadcast(header.destination):
        return None
    length = header.length
    if header.protocol == ICMP and (header.total_length == length or packet[length] not in ICMP_QUERIES):
        return None
    quoted = packet[: min(length + ICMP_QUOTED_PAYLOAD, header.total_length)]
    message = _ICMP_HEADER.pack(ICMP_DESTINATION_UNREACHABLE, ICMP_NET_UNREACHABLE, 0, 0) + quoted
    message = _with_checksum(message, 2)
    total_length = MIN_HEADER_LENGTH + len(message)
    reply = _HEADER.pack(0x45, 0, total_length, 0, 0, ICMP_REPLY_TTL, ICMP, 0, source, header.source)
    return _with_checksum(reply, 10) + message


def is_multicast_or_broadcast(address: int) -> bool:
    """Match 224.0.0.0/4 and 255.255.255.255; a subnet's own broadcast address cannot be recognised here."""
    return address >> 28 == 0xE or address == 0xFFFFFFFF


def _is_one_host(address: int) -> bool:
    first = address >> 24
    return first not in (0, 127) and first < 224


def _with_checksum(data: bytes, offset: int) -> bytes:
    return data[:offset] + internet_checksum(data).to_bytes(2, "big") + data[offset + 2 :]
