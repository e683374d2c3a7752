"""Matches wireguard's datagrams to the packets that they carry, by order and size. Pure.

The content is encrypted. But the kernel encrypts each packet that reaches its device into one datagram, in order for
each peer, and pads it to a multiple of 16 bytes (WireGuard whitepaper, §5.4.6). So the first datagram of a packet's
size that leaves the node after the packet entered the device belongs to that packet, unless another one of the same
size was just before it in the queue.
"""

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from agent.kernel.values import IPAddress
from testbed.capture.headers import Encapsulation, Packet, Wrapped, read_packet
from testbed.trace.watch import Sighting

TRANSPORT_DATA = 4
HEADER_BYTES, TAG_BYTES, FILLED_UP_TO = 16, 16, 16

Datagram = tuple[IPAddress, IPAddress, int, int]
"""Its identity: source and destination address, receiver's index, counter."""


def match_encrypted(sightings: Sequence[Sighting], overlay: Encapsulation, devices: Collection[str]) -> list[Sighting]:
    """Return the sightings with the probe's packets in the datagrams that carry them, and without all other datagrams.

    `devices` are the overlay's, on which the packets are seen before they are encrypted.
    """
    datagrams = _datagrams(sightings, overlay.sealed_ports)
    if not datagrams:
        return list(sightings)
    sealed = {id(one) for copies in datagrams.values() for one in copies}
    plain = [one for one in sightings if id(one) not in sealed]
    entered = [one for one in plain if one.outgoing and one.interface in devices]
    for one in sorted(entered, key=lambda one: (one.place, one.number)):
        found = _first_behind(one, datagrams)
        if found is not None:
            plain += _with_inside(datagrams.pop(found), one)
    return plain


def _datagrams(sightings: Sequence[Sighting], ports: Collection[int]) -> dict[Datagram, list[Sighting]]:
    datagrams: dict[Datagram, list[Sighting]] = {}
    for one in sightings:
        outer = one.wrapped.inner
        if outer.destination_port in ports and outer.protocol == "udp":
            kind, receiver, counter = struct.unpack_from("<IIQ", one.frame.ljust(outer.payload + 16), outer.payload)
            if kind == TRANSPORT_DATA:
                key = (outer.header.source, outer.header.destination, receiver, counter)
                datagrams.setdefault(key, []).append(one)
    return datagrams


def _first_behind(packet: Sighting, datagrams: Mapping[Datagram, Sequence[Sighting]]) -> Datagram | None:
    """Return the datagram whose first sighting is the next one of the right size in the packet's place."""

    def candidates() -> Iterator[tuple[int, Datagram]]:
        for key, copies in datagrams.items():
            left = [one.number for one in copies if one.place == packet.place and one.outgoing]
            if left and min(left) > packet.number and _fits(packet.wrapped.inner, copies[0].wrapped.inner):
                yield min(left), key

    return min(candidates(), default=(0, None))[1]


def _fits(inner: Packet, outer: Packet) -> bool:
    length = inner.header.total_length
    # At the device's MTU there is no room for padding.
    return 0 <= outer.end - outer.payload - HEADER_BYTES - TAG_BYTES - length < FILLED_UP_TO


def _with_inside(copies: Sequence[Sighting], packet: Sighting) -> Iterator[Sighting]:
    inner = packet.wrapped.inner
    inside = packet.frame[inner.offset : inner.end]
    for one in copies:
        outer = one.wrapped.inner
        at = outer.payload + HEADER_BYTES
        frame = one.frame[:at] + inside
        read = read_packet(frame, at)
        if read is not None:
            yield replace(one, frame=frame, wrapped=Wrapped(read, outer), sealed=one.frame)
