"""Builds IPv4 packets for tests, right or wrong in chosen places, and right IPv6 ones."""

import struct
from ipaddress import IPv4Address, IPv6Address

from agent.datapath.packet import internet_checksum


def ipv4(
    source: str,
    destination: str,
    payload: bytes = b"",
    *,
    ttl: int = 64,
    protocol: int = 17,
    tos: int = 0,
    identification: int = 0x1234,
    flags_and_offset: int = 0,
    options: bytes = b"",
    version_ihl: int | None = None,
    total_length: int | None = None,
    checksum: int | None = None,
) -> bytes:
    """Build a packet whose header is correct unless a field is given."""
    header_length = 20 + len(options)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | header_length // 4 if version_ihl is None else version_ihl,
        tos,
        header_length + len(payload) if total_length is None else total_length,
        identification & 0xFFFF,
        flags_and_offset,
        ttl,
        protocol,
        0,
        IPv4Address(source).packed,
        IPv4Address(destination).packed,
    )
    header += options
    right = internet_checksum(header)
    return header[:10] + struct.pack("!H", right if checksum is None else checksum) + header[12:] + payload


def ipv6(
    source: str, destination: str, payload: bytes = b"", *, protocol: int = 17, ttl: int = 64, extension: bytes = b""
) -> bytes:
    """A packet; `extension` is a header between, whose first byte then has to name `protocol`, and which is a fragment
    header if it is 8 bytes long (RFC 8200 §4.5)."""
    header = struct.pack("!IHBB", 6 << 28, len(extension + payload), 44 if extension else protocol, ttl)
    return header + IPv6Address(source).packed + IPv6Address(destination).packed + extension + payload


def udp(source_port: int, destination_port: int, payload: bytes = b"x") -> bytes:
    """Build a UDP datagram without a checksum."""
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def tcp(
    sequence: int,
    payload: bytes = b"",
    *,
    ports: tuple[int, int] = (40000, 80),
    acknowledgement: int = 7,
    flags: int = 0x10,
    window: int = 500,
    urgent: int = 0,
    options: bytes = b"",
    reserved: int = 0,
) -> bytes:
    """Build a TCP segment without its checksum."""
    offset = (20 + len(options)) // 4 << 4 | reserved
    fixed = struct.pack("!HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, acknowledgement, offset, flags, window, 0, urgent)
    return fixed + options + payload


def with_transport_checksum(ip_header: bytes, segment: bytes) -> bytes:
    """Set the checksum of the packet's TCP segment or UDP datagram (RFC 9293 §3.1, RFC 768)."""
    at = 16 if ip_header[9] == 6 else 6
    segment = segment[:at] + b"\0\0" + segment[at + 2 :]
    pseudo = ip_header[12:20] + struct.pack("!HH", ip_header[9], len(segment))
    value = internet_checksum(pseudo + segment)
    if ip_header[9] == 17:
        value = value or 0xFFFF
    return ip_header + segment[:at] + struct.pack("!H", value) + segment[at + 2 :]


def right(packet: bytes) -> bytes:
    """Return the same packet with a correct transport checksum."""
    length = (packet[0] & 0xF) * 4
    return with_transport_checksum(packet[:length], packet[length:])
