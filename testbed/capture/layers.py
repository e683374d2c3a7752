"""The headers of a frame in order, each with its position and fields, as a picture shows them. Pure."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.datapath.packet import UDP
from testbed.capture.headers import (
    ETHERNET,
    IPIP,
    TCP,
    UDP_HEADER,
    Encapsulation,
    Packet,
    carried,
    flag_names,
    read_packet,
)

ETHER_TYPES = {0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP"}
WIREGUARD_HEADER, WIREGUARD_TAG = 16, 16  # WireGuard whitepaper, §5.4.6
WIREGUARD_DATA = 4
VXLAN_BYTES = 8  # RFC 7348 §5


@dataclass(frozen=True, slots=True)
class HeaderField:
    """A value, and the bytes that it was parsed from."""

    name: str
    value: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A header, or the data after the last one."""

    name: str
    """`Ethernet`, `IPv4`, `IPv6`, `UDP`, `TCP`, `ICMP`, `VXLAN`, `WireGuard`, `encrypted`, `tag`, `payload`."""
    offset: int
    length: int
    depth: int
    """1 inside the packet that an overlay carries, else 0."""
    fields: tuple[HeaderField, ...] = ()


def layers_of(frame: bytes, link_header: int, overlay: Encapsulation) -> tuple[Layer, ...]:
    """Return every header of a frame whose network header is at `link_header`, and its payload, without gaps."""
    found = [_ethernet(frame, 0, 0)] if link_header == ETHERNET else []
    outer = read_packet(frame, link_header)
    if outer is None:
        return (*found, *_payload(link_header, len(frame), 0))
    inner = next(carried(frame, outer, overlay), None)
    if inner is None:
        return (*found, *_packet(frame, outer, 0, overlay))
    found += [_network(frame, outer, 0)]
    if outer.header.protocol != IPIP:
        found.append(_transport(frame, outer, 0))
    if overlay.kind == "vxlan":
        found += [_vxlan(frame, outer.payload), _ethernet(frame, outer.payload + VXLAN_BYTES, 1)]
    return (*found, *_packet(frame, inner, 1, overlay))


def _packet(frame: bytes, packet: Packet, depth: int, overlay: Encapsulation) -> Iterator[Layer]:
    yield _network(frame, packet, depth)
    if packet.payload > packet.transport:
        yield _transport(frame, packet, depth)
    ports = (packet.source_port, packet.destination_port)
    is_sealed = packet.header.protocol == UDP and any(port in overlay.sealed_ports for port in ports)
    if is_sealed and frame[packet.payload : packet.payload + 1] == bytes([WIREGUARD_DATA]):
        yield from _wireguard(frame, packet)
    else:
        yield from _payload(packet.payload, packet.end, depth)


def _payload(start: int, end: int, depth: int) -> Iterator[Layer]:
    if end > start:
        yield Layer("payload", start, end - start, depth)


def _ethernet(frame: bytes, at: int, depth: int) -> Layer:
    kind = int.from_bytes(frame[at + 12 : at + 14], "big")
    return Layer(
        "Ethernet",
        at,
        ETHERNET,
        depth,
        (
            HeaderField("destination", frame[at : at + 6].hex(":"), at, 6),
            HeaderField("source", frame[at + 6 : at + 12].hex(":"), at + 6, 6),
            HeaderField("type", ETHER_TYPES.get(kind, f"0x{kind:04x}"), at + 12, 2),
        ),
    )


def _network(frame: bytes, packet: Packet, depth: int) -> Layer:
    at, header = packet.offset, packet.header
    if header.version == 6:
        fields = (
            HeaderField("payload length", str(header.total_length - header.length), at + 4, 2),
            HeaderField("next header", packet.protocol, at + 6, 1),
            HeaderField("hop limit", str(header.ttl), at + 7, 1),
            HeaderField("source", str(header.source), at + 8, 16),
            HeaderField("destination", str(header.destination), at + 24, 16),
        )
        return Layer("IPv6", at, header.length, depth, fields)
    flags, checksum = struct.unpack_from("!H", frame, at + 6)[0], struct.unpack_from("!H", frame, at + 10)[0]
    fields_4 = (
        HeaderField("total length", str(header.total_length), at + 2, 2),
        HeaderField("identification", f"0x{header.identification:04x}", at + 4, 2),
        HeaderField("flags", "do not fragment" if flags & 0x4000 else f"0x{flags:04x}", at + 6, 2),
        HeaderField("ttl", str(header.ttl), at + 8, 1),
        HeaderField("protocol", packet.protocol, at + 9, 1),
        HeaderField("checksum", f"0x{checksum:04x}", at + 10, 2),
        HeaderField("source", str(header.source), at + 12, 4),
        HeaderField("destination", str(header.destination), at + 16, 4),
    )
    return Layer("IPv4", at, header.length, depth, fields_4)


def _transport(frame: bytes, packet: Packet, depth: int) -> Layer:
    at, length = packet.transport, packet.payload - packet.transport
    if packet.header.protocol == UDP:
        size, checksum = struct.unpack_from("!HH", frame, at + 4)
        fields: tuple[HeaderField, ...] = (
            *_ports(packet, at),
            HeaderField("length", str(size), at + 4, 2),
            HeaderField("checksum", f"0x{checksum:04x}", at + 6, 2),
        )
        return Layer("UDP", at, UDP_HEADER, depth, fields)
    if packet.header.protocol == TCP:
        window, checksum = struct.unpack_from("!HH", frame, at + 14)
        fields = (
            *_ports(packet, at),
            HeaderField("sequence", str(packet.sequence), at + 4, 4),
            HeaderField("acknowledgement", str(packet.acknowledgement), at + 8, 4),
            HeaderField("flags", flag_names(packet.flags or 0), at + 13, 1),
            HeaderField("window", str(window), at + 14, 2),
            HeaderField("checksum", f"0x{checksum:04x}", at + 16, 2),
        )
        return Layer("TCP", at, length, depth, fields)
    kind, code = packet.icmp or (0, 0)
    (checksum,) = struct.unpack_from("!H", frame, at + 2)
    fields = (
        HeaderField("type", str(kind), at, 1),
        HeaderField("code", str(code), at + 1, 1),
        HeaderField("checksum", f"0x{checksum:04x}", at + 2, 2),
        HeaderField("identifier", str(packet.icmp_id), at + 4, 2),
        HeaderField("sequence", str(packet.sequence), at + 6, 2),
    )
    return Layer("ICMP" if packet.header.version == 4 else "ICMPv6", at, length, depth, fields)


def _ports(packet: Packet, at: int) -> tuple[HeaderField, HeaderField]:
    return (
        HeaderField("source port", str(packet.source_port), at, 2),
        HeaderField("destination port", str(packet.destination_port), at + 2, 2),
    )


def _vxlan(frame: bytes, at: int) -> Layer:
    fields = (
        HeaderField("flags", f"0x{frame[at]:02x}", at, 1),
        HeaderField("VNI", str(int.from_bytes(frame[at + 4 : at + 7], "big")), at + 4, 3),
    )
    return Layer("VXLAN", at, VXLAN_BYTES, 0, fields)


def _wireguard(frame: bytes, packet: Packet) -> Iterator[Layer]:
    at, end = packet.payload, packet.end
    _, receiver, counter = struct.unpack_from("<IIQ", frame.ljust(at + WIREGUARD_HEADER), at)
    fields = (
        HeaderField("type", str(WIREGUARD_DATA), at, 1),
        HeaderField("receiver", f"0x{receiver:08x}", at + 4, 4),
        HeaderField("counter", str(counter), at + 8, 8),
    )
    yield Layer("WireGuard", at, WIREGUARD_HEADER, 0, fields)
    sealed = end - at - WIREGUARD_HEADER - WIREGUARD_TAG
    if sealed > 0:
        yield Layer("encrypted", at + WIREGUARD_HEADER, sealed, 1)
    yield Layer("tag", end - WIREGUARD_TAG, WIREGUARD_TAG, 0)
