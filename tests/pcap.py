"""Reads the packets of a classic pcap file: just enough for the recordings in tests/vectors."""

import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

REAL_FLANNELD = Path(__file__).parent / "vectors" / "real-flanneld"
ETHERNET = 1  # LINKTYPE_ETHERNET
RAW_IP = (12, 101)  # DLT_RAW as tcpdump writes it on some systems, LINKTYPE_RAW


class Datagram(NamedTuple):
    """A UDP datagram with its outer addresses."""

    source: tuple[str, int]
    destination: tuple[str, int]
    payload: bytes


def ip_packets(path: Path) -> list[bytes]:
    """Return every IPv4 packet of the file, without its link header."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    link_type = struct.unpack_from(order + "I", data, 20)[0]
    assert link_type == ETHERNET or link_type in RAW_IP, link_type
    packets, offset = [], 24
    while offset < len(data):
        captured, length = struct.unpack_from(order + "II", data, offset + 8)
        assert captured == length, "the recording was cut"
        frame = data[offset + 16 : offset + 16 + captured]
        offset += 16 + captured
        packet = frame[14:] if link_type == ETHERNET else frame
        is_ipv4 = frame[12:14] == b"\x08\x00" if link_type == ETHERNET else packet[0] >> 4 == 4
        if is_ipv4:
            packets.append(packet[: int.from_bytes(packet[2:4], "big")])
    return packets


def udp_datagrams(path: Path, port: int) -> list[Datagram]:
    """Return every UDP datagram from or to `port`."""
    found = []
    for packet in ip_packets(path):
        header_length = (packet[0] & 0xF) * 4
        source_port, destination_port = struct.unpack_from("!HH", packet, header_length)
        if packet[9] == 17 and port in (source_port, destination_port):
            source, destination = str(IPv4Address(packet[12:16])), str(IPv4Address(packet[16:20]))
            payload = packet[header_length + 8 :]
            found.append(Datagram((source, source_port), (destination, destination_port), payload))
    return found
