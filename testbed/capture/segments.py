"""Cuts super-packets into the packets that a wire would have carried, with complete checksums. Pure.

Between virtual interfaces Linux moves up to 64 KiB as one packet and leaves segmentation and checksums to the last
interface (GSO). The result here is what that interface would have sent: each piece gets the headers of the whole, with
its own lengths, identification, sequence number, flags and checksums.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from agent.datapath.packet import UDP, internet_checksum
from testbed.capture.headers import TCP, Encapsulation, Packet, carried, read_packet
from testbed.capture.network_header import IPV6_HEADER

GSO_TCP4, GSO_TCP6, GSO_UDP_SEGMENT = 1, 4, 5  # linux/virtio_net.h
FIN, PSH, CWR = 0x01, 0x08, 0x80
ONLY_LAST, ONLY_FIRST = FIN | PSH, CWR
CHECKSUM_PLACE = {TCP: 16, UDP: 6}


@dataclass(frozen=True, slots=True)
class Offload:
    """Work that the kernel still had to do on a captured packet: segmentation and checksum."""

    needs_checksum: bool = False
    gso_type: int = 0
    gso_size: int = 0
    """Payload bytes per resulting packet."""
    checksum_start: int = 0
    """From the start of the frame."""
    checksum_offset: int = 0


def cut(frame: bytes, link_header: int, offload: Offload, overlay: Encapsulation) -> list[bytes]:
    """Return the frames that a wire would have carried, in order; the frame itself if it needs no cut."""
    outermost = read_packet(frame, link_header)
    if outermost is None:
        return [frame]
    if offload.gso_size and offload.gso_type in (GSO_TCP4, GSO_TCP6, GSO_UDP_SEGMENT):
        layers = _layers(frame, outermost, overlay)
        if layers[-1].payload > layers[-1].transport:
            return _pieces(frame, layers, offload.gso_size)
    return [_completed(frame, outermost.end, offload) if offload.needs_checksum else frame]


def _layers(frame: bytes, outermost: Packet, overlay: Encapsulation) -> list[Packet]:
    """Return the nested packets, of which the innermost is cut.

    Datagrams of our own data path are cut themselves; in a kernel tunnel, the inner packet is cut.
    """
    inner = None if overlay.kind == "udp" else next(carried(frame, outermost, overlay), None)
    return [outermost] if inner is None else [outermost, inner]


def _pieces(frame: bytes, layers: Sequence[Packet], size: int) -> list[bytes]:
    innermost = layers[-1]
    headers, payload = frame[: innermost.payload], frame[innermost.payload : innermost.end]
    count = max(1, -(-len(payload) // size))
    return [
        _piece(headers, payload[number * size : (number + 1) * size], layers, number, number == count - 1, size)
        for number in range(count)
    ]


def _piece(headers: bytes, payload: bytes, layers: Sequence[Packet], number: int, last: bool, size: int) -> bytes:
    piece = bytearray(headers + payload)
    innermost = layers[-1]
    if innermost.header.protocol == TCP:
        at = innermost.transport
        sequence = ((innermost.sequence or 0) + number * size) & 0xFFFFFFFF
        flags = piece[at + 13] & ~(0 if last else ONLY_LAST) & ~(ONLY_FIRST if number else 0)
        struct.pack_into("!I", piece, at + 4, sequence)
        piece[at + 13] = flags
    # From the inside out: an outer checksum covers the inner one.
    for layer in reversed(layers):
        _finish_network_header(piece, layer, number)
        if layer.header.protocol == UDP:
            struct.pack_into("!H", piece, layer.transport + 4, len(piece) - layer.transport)
        _checksum_transport(piece, layer, required=layer is innermost)
    return bytes(piece)


def _finish_network_header(piece: bytearray, layer: Packet, number: int) -> None:
    at = layer.offset
    if layer.header.version == 6:
        struct.pack_into("!H", piece, at + 4, len(piece) - at - IPV6_HEADER)
        return
    struct.pack_into("!HH", piece, at + 2, len(piece) - at, (layer.header.identification + number) & 0xFFFF)
    struct.pack_into("!H", piece, at + 10, 0)
    struct.pack_into("!H", piece, at + 10, internet_checksum(bytes(piece[at : layer.transport])))


def _checksum_transport(piece: bytearray, layer: Packet, *, required: bool) -> None:
    """Compute the checksum of TCP or UDP; a tunnel's datagram without one stays without (RFC 7348 §5)."""
    protocol = layer.header.protocol
    if protocol not in CHECKSUM_PLACE:
        return
    place = layer.transport + CHECKSUM_PLACE[protocol]
    if not required and piece[place : place + 2] == b"\0\0":
        return
    piece[place : place + 2] = b"\0\0"
    # RFC 8200 §8.1; the sum equals that of IPv4's shorter pseudo header.
    addresses = layer.header.source.packed + layer.header.destination.packed
    pseudo = addresses + struct.pack("!II", len(piece) - layer.transport, protocol)
    value = internet_checksum(pseudo + bytes(piece[layer.transport :]))
    struct.pack_into("!H", piece, place, value or (0xFFFF if protocol == UDP else 0))


def _completed(frame: bytes, end: int, offload: Offload) -> bytes:
    """Complete the checksum: the field holds the pseudo header's sum, so add the covered bytes."""
    place = offload.checksum_start + offload.checksum_offset
    if place + 2 > end:
        return frame
    value = internet_checksum(frame[offload.checksum_start : end]) or 0xFFFF
    return frame[:place] + struct.pack("!H", value) + frame[place + 2 :]
