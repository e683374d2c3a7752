"""The native data path decides as forwarder.py does, and cuts and joins packets so that nobody can tell.

Each case goes through both; the number of packets per write shows what was joined.
"""

import errno
import resource
import struct
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any

import pytest

from agent.datapath.counters import DropReason
from agent.datapath.forwarder import Forwarder, OwnNode
from agent.datapath.forwarding_table import ForwardingTable, TunnelEndpoint
from agent.datapath.native.library import NativeLibrary
from agent.datapath.offloads import Offloads
from tests.native_trial import (
    EVERYTHING,
    GSO_TCP4,
    GSO_TCP6,
    GSO_UDP,
    NO_VNET,
    NOTHING,
    Outcome,
    Receive,
    native_in,
    native_out,
    reference_in,
    reference_out,
    vnet,
)
from tests.packets import ipv4, right, tcp, udp
from tests.pcap import REAL_FLANNELD, ip_packets, udp_datagrams

PORT = 8285
NODE = OwnNode(IPv4Network("10.0.46.0/24"), overlay_mtu=1472, port=PORT)
PEER = TunnelEndpoint("192.168.8.228", PORT)
FORWARDER = Forwarder(NODE, ForwardingTable({IPv4Network("10.0.90.0/24"): PEER}))
OWN_POD, PEER_POD, NOBODY = "10.0.46.2", "10.0.90.2", "10.0.77.5"
DATA = bytes(range(256)) * 6
OFFLOADS = [EVERYTHING, NOTHING, Offloads(vnet_header=True, tun_tcp=True), Offloads(udp_segment=True, udp_gro=True)]


def both_in(*receives: Receive, forwarder: Forwarder = FORWARDER, offloads: Offloads = EVERYTHING) -> Outcome:
    """Return the outcome, which is the same by the native data path and by forwarder.py."""
    outcome = native_in(forwarder, receives, offloads)
    assert outcome == reference_in(forwarder, receives)
    return outcome


def both_out(*reads: bytes, forwarder: Forwarder = FORWARDER, offloads: Offloads = EVERYTHING) -> Outcome:
    """Return the outcome, which is the same by the native data path and by forwarder.py."""
    outcome = native_out(forwarder, reads, offloads)
    assert outcome == reference_out(forwarder, reads)
    return outcome


def segment(
    number: int,
    size: int = 100,
    *,
    of: int = 100,
    source: str = PEER_POD,
    ttl: int = 64,
    tos: int = 0,
    flags_and_offset: int = 0x4000,
    id_step: int = 1,
    ip_options: bytes = b"",
    **fields: Any,  # noqa: ANN401 - of tcp()
) -> bytes:
    """Build segment `number` of a flow whose full segments hold `of` bytes."""
    payload = DATA[number : number + size]
    body = tcp(1000 + number * of, payload, **fields)
    packet = ipv4(
        source,
        OWN_POD,
        body,
        protocol=6,
        identification=500 + number * id_step,
        ttl=ttl,
        tos=tos,
        flags_and_offset=flags_and_offset,
        options=ip_options,
    )
    return right(packet)


def datagram(number: int, size: int = 100) -> bytes:
    """Build datagram `number` of a UDP flow."""
    return right(ipv4(PEER_POD, OWN_POD, udp(5000, 6000, DATA[number : number + size]), identification=number))


def zero_sum(number: int) -> bytes:
    """Return a datagram without a checksum whose right one would be 0, sent as 0xFFFF."""
    packet = right(ipv4(PEER_POD, OWN_POD, udp(1, 2, bytes(2)), identification=number))
    return packet[:26] + b"\0\0" + packet[26:28]


def spoilt(packet: bytes) -> bytes:
    return packet[:-1] + bytes([packet[-1] ^ 4])


NOP, TIMESTAMP_1, TIMESTAMP_2 = b"\1\1\1\1", b"\1\1\x08\x0a" + bytes(8), b"\1\1\x08\x0a" + bytes(7) + b"\1"

JOINED = {
    "in order": ([segment(0), segment(1), segment(2)], [3]),
    "reordered": ([segment(1), segment(0), segment(2)], [1, 1, 1]),
    "same again": ([segment(0), segment(0)], [1, 1]),
    "gap": ([segment(0), segment(2, id_step=0)], [1, 1]),
    "PSH in the middle ends a group": ([segment(0), segment(1, flags=0x18), segment(2)], [2, 1]),
    "PSH first": ([segment(0, flags=0x18), segment(1)], [1, 1]),
    "PSH last": ([segment(0), segment(1), segment(2, flags=0x18)], [3]),
    "SYN": ([segment(0, flags=0x12), segment(1)], [1, 1]),
    "FIN": ([segment(0), segment(1, flags=0x11)], [1, 1]),
    "RST": ([segment(0), segment(1, flags=0x14)], [1, 1]),
    "URG": ([segment(0), segment(1, flags=0x30)], [1, 1]),
    "ECE": ([segment(0), segment(1, flags=0x50)], [1, 1]),
    "CWR": ([segment(0, flags=0x90), segment(1, flags=0x90)], [1, 1]),
    "no ACK": ([segment(0, flags=0), segment(1, flags=0)], [1, 1]),
    "reserved bits": ([segment(0, reserved=1), segment(1, reserved=1)], [1, 1]),
    "options equal": ([segment(0, options=TIMESTAMP_1), segment(1, options=TIMESTAMP_1)], [2]),
    "options different": ([segment(0, options=TIMESTAMP_1), segment(1, options=TIMESTAMP_2)], [1, 1]),
    "options of another length": ([segment(0, options=TIMESTAMP_1), segment(1, options=NOP)], [1, 1]),
    "options of full length": ([segment(n, options=bytes(40)) for n in range(2)], [2]),
    "length 0": ([segment(0, 0, of=0), segment(1, 0, of=0)], [1, 1]),
    "length 0 behind data": ([segment(0), segment(1, 0)], [1, 1]),
    "length 1": ([segment(n, 1, of=1) for n in range(3)], [3]),
    "length max": ([segment(n, 1432, of=1432) for n in range(3)], [3]),
    "last shorter": ([segment(0), segment(1), segment(2, 50), segment(3)], [3, 1]),
    "larger behind smaller": ([segment(0, 50, of=50), segment(1, 100, of=50)], [1, 1]),
    "acknowledgement differs": ([segment(0), segment(1, acknowledgement=8)], [1, 1]),
    "window differs": ([segment(0), segment(1, window=501)], [1, 1]),
    "urgent pointer differs": ([segment(0), segment(1, urgent=1)], [1, 1]),
    "checksum wrong in the first": ([spoilt(segment(0)), segment(1), segment(2)], [1, 2]),
    "checksum wrong in the second": ([segment(0), spoilt(segment(1)), segment(2)], [1, 1, 1]),
    "checksum wrong in the last": ([segment(0), segment(1), spoilt(segment(2))], [2, 1]),
    "DF set": ([segment(0), segment(1, flags_and_offset=0)], [1, 1]),
    "DF unset": ([segment(n, flags_and_offset=0) for n in range(2)], [2]),
    "reserved bit": ([segment(0), segment(1, flags_and_offset=0xC000)], [1, 1]),
    "more fragments": ([segment(n, flags_and_offset=0x2000) for n in range(2)], [1, 1]),
    "later fragments": ([segment(n, flags_and_offset=100) for n in range(2)], [1, 1]),
    "TTL differs": ([segment(0), segment(1, ttl=63)], [1, 1]),
    "ToS differs": ([segment(0), segment(1, tos=0x10)], [1, 1]),
    "ECN differs": ([segment(0, tos=2), segment(1, tos=3)], [1, 1]),
    "ToS equal": ([segment(n, tos=0xBA) for n in range(2)], [2]),
    "id not following": ([segment(0), segment(1, id_step=2)], [1, 1]),
    "id always 0": ([segment(n, id_step=0) for n in range(2)], [1, 1]),
    "IPv4 options": ([segment(n, ip_options=NOP) for n in range(2)], [1, 1]),
    "bytes behind the packet": ([segment(0) + b"x", segment(1) + b"x"], [1, 1]),
    "another source": ([segment(0), segment(1, source="10.0.90.3")], [1, 1]),
    "another port": ([segment(0), segment(1, ports=(40001, 80))], [1, 1]),
    "flows by turns": ([segment(n // 2, ports=(40000 + n % 2, 80)) for n in range(4)], [1, 1, 1, 1]),
    "sequence wraps": ([segment(n, 100, of=2**31 // 5) for n in range(2)], [1, 1]),
    "limit of pieces": ([segment(n, 10, of=10) for n in range(70)], [64, 6]),
    "limit of 65,535 bytes": ([segment(n, 1432, of=1432) for n in range(50)], [45, 5]),
    "TCP header beyond the end": (
        [ipv4(PEER_POD, OWN_POD, bytes(12) + b"\xf0\x10" + bytes(26), protocol=6)] * 2,
        [1, 1],
    ),
    "TCP header too short": ([ipv4(PEER_POD, OWN_POD, bytes(13) + b"\x10" + bytes(26), protocol=6)] * 2, [1, 1]),
    "UDP equal sizes": ([datagram(n) for n in range(5)], [5]),
    "UDP last shorter": ([datagram(0), datagram(1, 99), datagram(2)], [2, 1]),
    "UDP larger": ([datagram(0), datagram(1, 101)], [1, 1]),
    "UDP checksum zero": ([ipv4(PEER_POD, OWN_POD, udp(1, 2), identification=n) for n in range(2)], [1, 1]),
    "UDP checksum zero that would be right": ([zero_sum(n) for n in range(2)], [1, 1]),
    "UDP checksum wrong": ([datagram(0), spoilt(datagram(1))], [1, 1]),
    "UDP empty": ([datagram(n, 0) for n in range(2)], [1, 1]),
    "UDP length lies": (
        [right(ipv4(PEER_POD, OWN_POD, udp(1, 2, b"xy") + b"z", identification=n)) for n in range(2)],
        [1, 1],
    ),
    "UDP behind TCP": ([segment(0), datagram(1), segment(1)], [1, 1, 1]),
    "ICMP": ([ipv4(PEER_POD, OWN_POD, bytes(8), protocol=1, identification=n) for n in range(2)], [1, 1]),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_segments_are_joined_only_where_cutting_gives_them_back(name: str) -> None:
    packets, groups = JOINED[name]
    assert both_in(*(Receive(packet, PEER) for packet in packets)).groups == groups


def test_one_receive_of_many_datagrams_is_cut_as_they_were_sent() -> None:
    data = b"".join(segment(number) for number in range(10)) + segment(10, 7)
    assert both_in(Receive(data, PEER, 140)).groups == [11]


def test_junk_among_many_datagrams_harms_only_itself() -> None:
    data = segment(0) + bytes(140) + segment(1, id_step=1) + segment(2)[:100]
    outcome = both_in(Receive(data, PEER, 140))
    assert outcome.groups == [2]
    assert outcome.drops == {"version": 1, "length": 1}


@pytest.mark.parametrize("offloads", OFFLOADS)
def test_with_fewer_offloads_the_same_packets_pass(offloads: Offloads) -> None:
    packets = [packet for case, _ in JOINED.values() for packet in case]
    outcome = both_in(*(Receive(packet, PEER) for packet in packets), offloads=offloads)
    assert len(outcome.written) == len(packets)
    if not offloads.vnet_header:
        assert set(outcome.groups) == {1}


GOOD = ipv4(PEER_POD, OWN_POD, udp(1, 2))
BAD_DATAGRAMS = [
    (b"", "short"),
    (b"E", "short"),
    (GOOD[:19], "short"),
    *((ipv4(PEER_POD, OWN_POD, version_ihl=version << 4 | 5), "version") for version in (0, 5, 6, 15)),
    (b"\x60" + bytes(3) + b"\0\x08\0\x40" + bytes(32) + b"\x3a\0" + bytes(14), "version"),
    *((ipv4(PEER_POD, OWN_POD, bytes(40), version_ihl=0x40 | ihl), "ihl") for ihl in range(5)),
    (ipv4(PEER_POD, OWN_POD, bytes(20), version_ihl=0x4F), "ihl"),
    *((ipv4(PEER_POD, OWN_POD, total_length=length), "length") for length in (19, 21, 65535)),
    (ipv4(PEER_POD, OWN_POD, checksum=1), "checksum"),
    (ipv4(PEER_POD, OWN_POD, ttl=0), "ttl"),
    *((ipv4(PEER_POD, OWN_POD, bytes(size)), "toolong") for size in (1453, 65487)),
    *((ipv4(source, OWN_POD), "source") for source in ("10.0.91.2", "10.0.46.3", "0.0.0.0", "127.0.0.1", "224.0.0.1")),
    *((ipv4(PEER_POD, to), "destination") for to in ("10.0.47.2", PEER_POD, "127.0.0.1", "224.0.0.1", "10.0.46.255")),
    (ipv4(PEER_POD, OWN_POD, udp(PORT, PORT)), "nest"),
    (ipv4(PEER_POD, OWN_POD, udp(PORT, PORT), flags_and_offset=0x2000), "nest"),
    (ipv4(PEER_POD, OWN_POD, udp(PORT, PORT), options=bytes(8)), "nest"),
]


@pytest.mark.parametrize(("packet", "reason"), BAD_DATAGRAMS)
def test_bad_datagram_is_dropped_with_the_same_reason(packet: bytes, reason: str) -> None:
    assert both_in(Receive(packet, PEER)).drops == {reason: 1}


@pytest.mark.parametrize(
    "packet",
    [
        GOOD + b"padding",
        ipv4(PEER_POD, OWN_POD, options=bytes(40)),
        ipv4(PEER_POD, OWN_POD, bytes(1452)),
        ipv4(PEER_POD, OWN_POD, ttl=1),
        ipv4("10.0.90.0", "10.0.46.0"),
        ipv4(PEER_POD, OWN_POD, udp(PORT, PORT), flags_and_offset=0x00B9),
        ipv4(PEER_POD, OWN_POD, udp(PORT, PORT)[:3]),
        ipv4(PEER_POD, OWN_POD, udp(PORT, 9)),
        ipv4(PEER_POD, OWN_POD, udp(9, PORT)),
        ipv4(PEER_POD, OWN_POD, flags_and_offset=0x3FFF),
    ],
)
def test_odd_but_good_datagram_passes(packet: bytes) -> None:
    assert both_in(Receive(packet, PEER)).groups == [1]


@pytest.mark.parametrize("source", [("192.168.8.9", PORT), ("192.168.8.227", PORT), (PEER.ip, PORT + 1)])
def test_datagram_of_no_peer_is_dropped_before_anything_else(source: tuple[str, int]) -> None:
    assert both_in(Receive(b"", source), Receive(GOOD, source)).drops == {"peer": 2}


def test_fenced_node_forwards_nothing() -> None:
    fenced = Forwarder(NODE, FORWARDER.table, fenced=True)
    assert both_in(Receive(segment(0), PEER), forwarder=fenced).drops == {"fenced": 1}
    assert both_out(super_packet(3), plain(NOBODY), forwarder=fenced).drops == {"fenced": 4}


def super_packet(
    pieces: int,
    size: int = 1000,
    *,
    less: int = 0,
    flags: int = 0x10,
    options: bytes = b"",
    destination: str = PEER_POD,
    ip_options: bytes = b"",
    sequence: int = 1000,
) -> bytes:
    """Return a read of one TCP super-packet."""
    payload = (DATA * 50)[: pieces * size - less]
    body = tcp(sequence, payload, flags=flags, options=options)
    packet = ipv4(OWN_POD, destination, body, protocol=6, identification=0xFFFE, options=ip_options)
    return vnet(GSO_TCP4, size, start=20 + len(ip_options)) + packet


def udp_super_packet(pieces: int, size: int = 100, *, less: int = 0, destination: str = PEER_POD) -> bytes:
    """Return a read of many UDP datagrams as one."""
    return vnet(GSO_UDP, size) + ipv4(OWN_POD, destination, udp(1, 2, (DATA * 50)[: pieces * size - less]))


def plain(
    destination: str,
    payload: bytes = b"\0\1\0\2\0\x09\0\0x",
    *,
    protocol: int = 17,
    ttl: int = 64,
    flags_and_offset: int = 0,
) -> bytes:
    """Return a read of one packet."""
    packet = ipv4(OWN_POD, destination, payload, protocol=protocol, ttl=ttl, flags_and_offset=flags_and_offset)
    return NO_VNET + packet


@pytest.mark.parametrize(
    ("read", "groups"),
    [
        (super_packet(1), [1]),
        (super_packet(2), [2]),
        (super_packet(3, less=999), [3]),
        (super_packet(44, 1432), [44]),
        (super_packet(45, 1432), [44, 1]),
        (super_packet(70, 20), [64, 6]),
        (super_packet(1, 1432, less=1432), [1]),
        (super_packet(3, flags=0x19), [3]),
        (super_packet(3, flags=0x98), [3]),
        (super_packet(3, options=bytes(40), ip_options=NOP * 10), [3]),
        (super_packet(3, sequence=0xFFFFFFFF), [3]),
        (super_packet(300, 1), [64, 64, 64, 64, 44]),
        (udp_super_packet(5), [5]),
        (udp_super_packet(5, less=99), [5]),
        (udp_super_packet(100, 1), [64, 36]),
    ],
)
def test_super_packet_is_cut_as_the_kernel_would(read: bytes, groups: list[int]) -> None:
    assert both_out(read).groups == groups


def test_checksum_that_the_kernel_left_to_the_device_is_completed() -> None:
    packet = bytearray(ipv4(OWN_POD, PEER_POD, tcp(5, b"odd"), protocol=6))
    struct.pack_into("!H", packet, 36, 0x1234)
    assert both_out(vnet(0, 0) + bytes(packet)).groups == [1]
    datagram = ipv4(OWN_POD, PEER_POD, udp(0, 0, b"\xff\xf5"))
    outcome = both_out(vnet(0, 0, offset=6) + datagram)
    assert outcome.sent[0][0][26:28] == b"\xff\xff", "0 would mean that there is no checksum"


def test_runs_of_equal_datagrams_leave_together() -> None:
    reads = [plain(PEER_POD, bytes([0, 1, 0, 2, 0, 9, 0, 0, n])) for n in range(70)]
    assert both_out(*reads).groups == [64, 6]


def test_shorter_datagram_ends_a_run_and_a_longer_one_begins_another() -> None:
    sizes = [100, 100, 50, 100, 101, 100]
    assert both_out(*(plain(PEER_POD, bytes(size)) for size in sizes)).groups == [3, 1, 2]


def test_pieces_of_several_super_packets_leave_together() -> None:
    assert both_out(super_packet(45, 1432), super_packet(45, 1432)).groups == [44, 44, 2]


def test_own_subnet_is_not_sent_away_whatever_the_table_says() -> None:
    forwarder = Forwarder(NODE, ForwardingTable({IPv4Network("10.0.0.0/16"): PEER}))
    outcome = both_out(plain("10.0.46.9"), plain("10.0.47.9"), forwarder=forwarder)
    assert outcome.drops == {"own": 1}
    assert len(outcome.sent) == 1


def test_datagrams_of_different_peers_leave_apart() -> None:
    other = TunnelEndpoint("192.168.8.229", PORT)
    table = ForwardingTable({IPv4Network("10.0.90.0/24"): PEER, IPv4Network("10.0.91.0/24"): other})
    reads = [plain("10.0.90.2"), plain("10.0.91.2"), plain("10.0.91.3")]
    assert both_out(*reads, forwarder=Forwarder(NODE, table)).groups == [1, 2]


@pytest.mark.parametrize("destination", [NOBODY, "10.0.46.9", "224.0.0.5", "255.255.255.255"])
def test_every_piece_of_an_undeliverable_super_packet_counts(destination: str) -> None:
    outcome = both_out(super_packet(3, destination=destination), udp_super_packet(4, destination=destination))
    assert sum(outcome.drops.values()) == 7
    assert len(outcome.written) == (0 if destination.startswith("2") else 7)


@pytest.mark.parametrize(
    "read",
    [
        plain(NOBODY),
        plain(NOBODY, b"\x08" + bytes(7), protocol=1),
        plain(NOBODY, b"\x03" + bytes(7), protocol=1),
        plain(NOBODY, b"", protocol=1),
        plain(NOBODY, flags_and_offset=5),
        NO_VNET + ipv4("10.0.46.255", NOBODY),
        NO_VNET + ipv4("127.0.0.1", NOBODY),
        NO_VNET + ipv4("0.0.0.0", NOBODY),
        NO_VNET + ipv4(OWN_POD, NOBODY, options=bytes(40)),
        plain("10.0.46.9"),
    ],
)
def test_answer_is_that_of_the_reference(read: bytes) -> None:
    assert sum(both_out(read).drops.values()) == 1


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (NO_VNET, "short"),
        (NO_VNET + bytes(19), "short"),
        (NO_VNET + b"\x60" + bytes(47), "version"),
        (NO_VNET + ipv4(OWN_POD, PEER_POD, version_ihl=0x44), "ihl"),
        (NO_VNET + ipv4(OWN_POD, PEER_POD, total_length=21), "length"),
        (plain(PEER_POD, ttl=0), "ttl"),
        (plain(PEER_POD, udp(PORT, PORT)), "nest"),
        (plain("224.0.0.251"), "multicast"),
    ],
)
def test_bad_packet_of_the_kernel_is_dropped_with_the_same_reason(read: bytes, reason: str) -> None:
    assert both_out(read).drops == {reason: 1}


@pytest.mark.parametrize("ports", [(9, PORT), (PORT, 9)])
def test_a_pods_flow_may_have_the_overlays_port_at_one_end(ports: tuple[int, int]) -> None:
    assert both_out(plain(PEER_POD, udp(*ports))).groups == [1]


TCP_PACKET = super_packet(3)[10:]
LIES = {
    "size 0": vnet(GSO_TCP4, 0) + TCP_PACKET,
    "header beyond the end": vnet(GSO_TCP4, 1000, header=65535) + TCP_PACKET,
    "checksum beyond the end": vnet(0, 0, start=65000) + TCP_PACKET,
    "checksum field beyond the end": vnet(0, 0, offset=65000) + TCP_PACKET,
    "checksum inside the IPv4 header": vnet(0, 0, start=4) + TCP_PACKET,
    "checksum start of a super-packet": vnet(GSO_TCP4, 1000, start=24) + TCP_PACKET,
    "checksum field of a super-packet": vnet(GSO_TCP4, 1000, offset=6) + TCP_PACKET,
    "no checksum wanted": vnet(GSO_TCP4, 1000, flags=0) + TCP_PACKET,
    "IPv6 type, IPv4 packet": vnet(GSO_TCP6, 1000) + TCP_PACKET,
    "UDP type, TCP packet": vnet(GSO_UDP, 1000) + TCP_PACKET,
    "TCP type, UDP packet": vnet(GSO_TCP4, 100) + udp_super_packet(3)[10:],
    "unknown type": vnet(9, 1000) + TCP_PACKET,
    "fragment": vnet(GSO_TCP4, 100) + ipv4(OWN_POD, PEER_POD, TCP_PACKET[20:], protocol=6, flags_and_offset=0x2000),
    "bytes behind the packet": vnet(GSO_TCP4, 1000) + TCP_PACKET + b"x",
    "no room for a TCP header": vnet(GSO_TCP4, 10) + ipv4(OWN_POD, PEER_POD, bytes(19), protocol=6),
    "TCP header too short": vnet(GSO_TCP4, 10) + ipv4(OWN_POD, PEER_POD, bytes(40), protocol=6),
    "TCP header beyond the end": vnet(GSO_TCP4, 10) + ipv4(OWN_POD, PEER_POD, b"\xf0" * 40, protocol=6),
    "no room for a UDP header": vnet(GSO_UDP, 10) + ipv4(OWN_POD, PEER_POD, bytes(7)),
    "one piece beyond what UDP carries": vnet(GSO_TCP4, 65535)
    + ipv4(OWN_POD, PEER_POD, tcp(1, bytes(65490)), protocol=6),
}  # fmt: skip


@pytest.mark.row("B37")
@pytest.mark.parametrize("lie", LIES)
def test_impossible_super_packet_is_dropped_as_gso_and_the_next_one_passes(lie: str) -> None:
    outcome = native_out(FORWARDER, [LIES[lie], plain(PEER_POD)])
    assert outcome.drops == {"gso": 1}
    assert len(outcome.sent) == 1


@pytest.mark.parametrize("offloads", OFFLOADS)
def test_recording_of_the_real_flanneld_gives_the_same_by_both(offloads: Offloads) -> None:
    recorded = udp_datagrams(REAL_FLANNELD / "udp-backend-outer.pcap", PORT)
    incoming = [Receive(item.payload, item.source) for item in recorded if item.source[0] == PEER.ip]
    assert len(both_in(*incoming, offloads=offloads).written) == 9
    packets = ip_packets(REAL_FLANNELD / "udp-backend-flannel0.pcap")
    own = [NO_VNET + packet for packet in packets if packet[12:15] == bytes((10, 0, 46))]
    outcome = both_out(*own, offloads=offloads)
    assert len(outcome.sent) == 9
    assert outcome.drops["no_route"] == 2


def test_thousands_of_subnets_of_many_lengths_are_looked_up_as_by_the_reference() -> None:
    entries = {}
    for number in range(3000):
        length = 17 + number % 14
        network = IPv4Network(((10 << 24) + (number * 2654435761 & 0xFFFFFF), length), strict=False)
        entries[network] = TunnelEndpoint(f"192.168.{number % 200}.{number % 7}", PORT)
    forwarder = Forwarder(NODE, ForwardingTable(entries))
    reads, receives = [], []
    for number, (network, endpoint) in enumerate(list(entries.items())[:400]):
        inside = str(network[number % network.num_addresses])
        reads.append(NO_VNET + ipv4(OWN_POD, inside, b"x"))
        receives.append(Receive(ipv4(inside, OWN_POD), endpoint))
        receives.append(Receive(ipv4(inside, OWN_POD), TunnelEndpoint("192.168.7.7", PORT)))
    both_out(*reads, forwarder=forwarder)
    both_in(*receives, forwarder=forwarder)


def test_reasons_have_the_same_order_in_both_languages() -> None:
    assert list(native_in(FORWARDER, []).drops) == []
    outcome = native_in(FORWARDER, [Receive(b"", ("1.1.1.1", 1))])
    assert outcome.drops == {DropReason.PEER: 1}


def test_a_pump_without_descriptors_is_an_error_of_the_system_and_frees_its_rules() -> None:
    library, freed = NativeLibrary(), list[object]()
    c = library.c

    def free(rules: object) -> None:
        freed.append(rules)
        c.native_rules_free(rules)

    library.c = SimpleNamespace(
        native_rules_new=c.native_rules_new, native_pump_new=c.native_pump_new, native_rules_free=free
    )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            library.pump(0, 0, NOTHING, FORWARDER)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.errno == errno.EMFILE
    assert len(freed) == 1
