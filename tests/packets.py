"""Builds IPv4 packets for tests, right or wrong in chosen places."""

import struct
from ipaddress import IPv4Address

from agent.datapath.packet import internet_checksum


def ipv4(
    source: str,
    destination: str,
    payload: bytes = b"",
    *,
    ttl: int = 64,
    protocol: int = 17,
    flags_and_offset: int = 0,
    options: bytes = b"",
    version_ihl: int | None = None,
    total_length: int | None = None,
    checksum: int | None = None,
) -> bytes:
    """A packet whose header is right unless a field is given."""
    header_length = 20 + len(options)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | header_length // 4 if version_ihl is None else version_ihl,
        0,
        header_length + len(payload) if total_length is None else total_length,
        0x1234,
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


def udp(source_port: int, destination_port: int, payload: bytes = b"x") -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
