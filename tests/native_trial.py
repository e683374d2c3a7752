"""Runs packets through the native data path without a kernel, and through forwarder.py, and makes the two comparable.

Native reads and writes super-packets. Here they are cut into packets by other code, written from the virtio
specification (§5.1.6.2) and RFC 9293, so that a mistake in native does not hide behind itself.
"""

import os
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple

from agent.datapath.counters import Counters
from agent.datapath.forwarder import Forwarder, SendDatagram, WriteToTun
from agent.datapath.forwarding_table import TunnelEndpoint
from agent.datapath.native.library import LIBRARY, NativeLibrary
from agent.datapath.offloads import Offloads
from agent.datapath.packet import internet_checksum
from tests.packets import with_transport_checksum

EVERYTHING = Offloads(vnet_header=True, tun_tcp=True, tun_udp=True, udp_segment=True, udp_gro=True)
NOTHING = Offloads()
VNET = struct.Struct("=BBHHHH")
NO_VNET = bytes(VNET.size)
NEEDS_CHECKSUM = 1
GSO_TCP4, GSO_TCP6, GSO_UDP = 1, 4, 5
RECORD = struct.Struct("=IIHH")
LOG_BYTES = 4_000_000
TCP_CWR, TCP_FIN_AND_PSH = 0x80, 0x09


class Receive(NamedTuple):
    """What one receive from the socket gave."""

    data: bytes
    source: tuple[str, int]
    segment: int = 0
    """Size of each datagram but the last (UDP_GRO); 0: one datagram."""

    def datagrams(self) -> list[bytes]:
        """Return the datagrams as they were sent."""
        if not self.segment or self.segment >= len(self.data):
            return [self.data]
        return [self.data[at : at + self.segment] for at in range(0, len(self.data), self.segment)]


@dataclass
class Outcome:
    """What became of packets."""

    sent: list[tuple[bytes, TunnelEndpoint]] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    carried: tuple[int, int, int, int] = (0, 0, 0, 0)
    """tx packets, tx bytes, rx packets, rx bytes."""
    groups: list[int] = field(default_factory=list, compare=False)
    """Packets per write, or datagrams per send."""


def vnet(
    gso_type: int, gso_size: int, *, flags: int = 1, header: int = 28, start: int = 20, offset: int | None = None
) -> bytes:
    """Return a virtio header as the kernel puts it before a super-packet; its `header` is often too small there as
    well.
    """
    if offset is None:
        offset = 6 if gso_type == GSO_UDP else 16
    return VNET.pack(flags, gso_type, header, gso_size, start, offset)


def cut(read: bytes) -> list[bytes]:
    """Return the packets that a super-packet behind its virtio header stands for."""
    flags, gso_type, _header, gso_size, start, offset = VNET.unpack_from(read)
    packet = read[VNET.size :]
    if gso_type == 0:
        if flags & NEEDS_CHECKSUM:
            value = internet_checksum(packet[start:]) or 0xFFFF
            at = start + offset
            packet = packet[:at] + struct.pack("!H", value) + packet[at + 2 :]
        return [packet]
    ip_length = (packet[0] & 0xF) * 4
    length = ip_length + (8 if gso_type == GSO_UDP else (packet[ip_length + 12] >> 4) * 4)
    payload = packet[length:]
    starts = range(0, len(payload), gso_size) or [0]
    return [_piece(packet[:length], ip_length, payload[at : at + gso_size], at, at // gso_size, at == starts[-1])
            for at in starts]  # fmt: skip


def _piece(headers: bytes, ip_length: int, payload: bytes, offset: int, number: int, last: bool) -> bytes:
    ip, transport = bytearray(headers[:ip_length]), bytearray(headers[ip_length:])
    struct.pack_into("!HH", ip, 2, len(headers) + len(payload), (struct.unpack_from("!H", ip, 4)[0] + number) & 0xFFFF)
    struct.pack_into("!H", ip, 10, 0)
    struct.pack_into("!H", ip, 10, internet_checksum(bytes(ip)))
    if ip[9] == 6:
        sequence = struct.unpack_from("!I", transport, 4)[0]
        struct.pack_into("!I", transport, 4, (sequence + offset) & 0xFFFFFFFF)
        if not last:
            transport[13] &= ~TCP_FIN_AND_PSH
        if number:
            transport[13] &= ~TCP_CWR
    else:
        struct.pack_into("!H", transport, 4, 8 + len(payload))
    return with_transport_checksum(bytes(ip), bytes(transport) + payload)


def reference_out(forwarder: Forwarder, reads: Sequence[bytes]) -> Outcome:
    """Return what forwarder.py does with the packets that these reads stand for."""
    outcome = Outcome()
    for read in reads:
        for packet in cut(read):
            action = forwarder.from_tun(packet)
            if isinstance(action, SendDatagram):
                outcome.sent.append((action.payload, action.endpoint))
            elif isinstance(action, WriteToTun):
                assert action.answers is not None
                outcome.drops[action.answers.value] += 1
                outcome.written.append(action.packet)
            else:
                outcome.drops[action.reason.value] += 1
    outcome.carried = (len(outcome.sent), sum(len(payload) for payload, _ in outcome.sent), 0, 0)
    return outcome


def reference_in(forwarder: Forwarder, receives: Sequence[Receive]) -> Outcome:
    """Return what forwarder.py does with these datagrams, as the Python pump hands them over."""
    outcome = Outcome()
    size = forwarder.node.overlay_mtu
    for receive in receives:
        for datagram in receive.datagrams():
            action = forwarder.from_udp(datagram[: size + 1], receive.source, len(datagram) > size)
            if isinstance(action, WriteToTun):
                outcome.written.append(action.packet)
            else:
                outcome.drops[action.reason.value] += 1
    outcome.carried = (0, 0, len(outcome.written), sum(map(len, outcome.written)))
    return outcome


@cache
def native_library() -> NativeLibrary:
    """Return the one in use; NATIVE_LIBRARY names another build of it, e.g. one with sanitizers."""
    return NativeLibrary(Path(os.environ.get("NATIVE_LIBRARY", LIBRARY)))


def native_out(forwarder: Forwarder, reads: Sequence[bytes], offloads: Offloads = EVERYTHING) -> Outcome:
    """Return what the native data path does with these reads; without virtio headers when `offloads` has none."""
    library = native_library()
    if not offloads.vnet_header:
        reads = [read[VNET.size :] for read in reads]
    # A block of exactly this size: reading behind it is seen by the sanitizers.
    data = library.ffi.new("uint8_t[]", b"".join(reads) or 1)
    sizes = library.ffi.new("uint32_t[]", [len(read) for read in reads])
    return _trial(library, forwarder, offloads, "native_trial_out", data, sizes, len(reads))


def native_in(forwarder: Forwarder, receives: Sequence[Receive], offloads: Offloads = EVERYTHING) -> Outcome:
    """Return what the native data path does with these receives."""
    library = native_library()
    new = library.ffi.new
    data = new("uint8_t[]", b"".join(receive.data for receive in receives) or 1)
    arrays = (
        new("uint32_t[]", [len(receive.data) for receive in receives]),
        new("uint16_t[]", [receive.segment for receive in receives]),
        new("uint32_t[]", [int(IPv4Address(receive.source[0])) for receive in receives]),
        new("uint16_t[]", [receive.source[1] for receive in receives]),
    )
    return _trial(library, forwarder, offloads, "native_trial_in", data, *arrays, len(receives))


def _trial(library: NativeLibrary, forwarder: Forwarder, offloads: Offloads, function: str, *arguments: Any) -> Outcome:  # noqa: ANN401 - cffi's
    rules = library.rules(forwarder)
    counters = library.ffi.new("struct native_counters *")
    log = library.ffi.new("uint8_t[]", LOG_BYTES)
    try:
        call = getattr(library.c, function)
        used = call(rules, library.offloads(offloads), *arguments, counters, log, LOG_BYTES)
    finally:
        library.c.native_rules_free(rules)
    assert used <= LOG_BYTES, "the log is too small"
    return _outcome(bytes(library.ffi.buffer(log, used)), library.as_counters(counters), offloads)


def _outcome(log: bytes, counters: Counters, offloads: Offloads) -> Outcome:
    outcome = Outcome(drops=Counter({reason: count for reason, count in counters.drops.items() if count}))
    outcome.carried = (counters.tx_packets, counters.tx_bytes, counters.rx_packets, counters.rx_bytes)
    at = 0
    while at < len(log):
        length, address, port, piece = RECORD.unpack_from(log, at)
        data = log[at + RECORD.size : at + RECORD.size + length]
        at += RECORD.size + length
        if address:
            endpoint = TunnelEndpoint(str(IPv4Address(address)), port)
            datagrams = Receive(data, endpoint, piece).datagrams()
            outcome.sent += [(datagram, endpoint) for datagram in datagrams]
            outcome.groups.append(len(datagrams))
        else:
            packets = cut(data) if offloads.vnet_header else [data]
            outcome.written += packets
            outcome.groups.append(len(packets))
    return outcome
