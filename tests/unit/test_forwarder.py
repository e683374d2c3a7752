"""What becomes of a packet, and why it is dropped; against recordings of the real flanneld as well."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from agent.datapath.counters import DropReason
from agent.datapath.forwarder import Drop, Forwarder, OwnNode, SendDatagram, WriteToTun
from agent.datapath.forwarding_table import ForwardingTable, TunnelEndpoint
from agent.datapath.packet import internet_checksum
from agent.lease import Lease, LeaseAttrs, Subnet
from tests.packets import ipv4, udp
from tests.pcap import REAL_FLANNELD, ip_packets, udp_datagrams
from tests.rows import shows

PORT = 8285
NODE = OwnNode(IPv4Network("10.0.46.0/24"), overlay_mtu=1472, port=PORT)
PEER = TunnelEndpoint("192.168.8.228", PORT)
TABLE = ForwardingTable({IPv4Network("10.0.90.0/24"): PEER})
FORWARDER = Forwarder(NODE, TABLE)
OWN_POD, PEER_POD, NOBODY = "10.0.46.2", "10.0.90.2", "10.0.77.5"

OUTER = udp_datagrams(REAL_FLANNELD / "udp-backend-outer.pcap", PORT)
INNER = ip_packets(REAL_FLANNELD / "udp-backend-flannel0.pcap")


def from_peer(packet: bytes, source: tuple[str, int] = PEER) -> WriteToTun | Drop:
    return FORWARDER.from_udp(packet, source)


def after_one_hop_of_flanneld(packet: bytes) -> bytes:
    """Return it as the real flanneld's proxy does, which takes one off the TTL in each direction; ours leaves it."""
    before, behind = packet[:8] + bytes([packet[8] - 1, packet[9]]), packet[12:]
    length = (packet[0] & 0xF) * 4
    checksum = internet_checksum((before + b"\0\0" + behind)[:length])
    return before + checksum.to_bytes(2, "big") + behind


def between(source: str, destination: str) -> list[bytes]:
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    return [packet for packet in INNER if packet[12:20] == ends]


def test_outbound_packets_are_wrapped_as_the_real_flanneld_does() -> None:
    sent = [FORWARDER.from_tun(packet) for packet in between(OWN_POD, PEER_POD)]
    payloads = [after_one_hop_of_flanneld(action.payload) for action in sent if isinstance(action, SendDatagram)]
    recorded = [datagram for datagram in OUTER if datagram.source[0] == "192.168.8.227"]
    assert payloads == [datagram.payload for datagram in recorded]
    assert len(payloads) == 9
    assert {action.endpoint for action in sent if isinstance(action, SendDatagram)} == {recorded[0].destination}


def test_inbound_datagrams_are_unwrapped_as_the_real_flanneld_does() -> None:
    recorded = [datagram for datagram in OUTER if datagram.source[0] == "192.168.8.228"]
    actions = [FORWARDER.from_udp(datagram.payload, datagram.source) for datagram in recorded]
    packets = [after_one_hop_of_flanneld(action.packet) for action in actions if isinstance(action, WriteToTun)]
    assert packets == between(PEER_POD, OWN_POD)
    assert len(packets) == 9


def test_unroutable_packets_are_answered_as_the_real_flanneld_does() -> None:
    offenders = between(OWN_POD, NOBODY)
    answers = [FORWARDER.from_tun(packet) for packet in offenders]
    recorded = between("10.0.46.0", OWN_POD)
    assert len(recorded) == len(offenders) == 2
    for action, packet in zip(answers, recorded, strict=True):
        assert isinstance(action, WriteToTun)
        assert action.answers is DropReason.NO_ROUTE
        # Its answers live for 8 hops, ours for 64; everything but TTL and header checksum is the same.
        assert action.packet[:8] + action.packet[9:10] + action.packet[12:] == packet[:8] + packet[9:10] + packet[12:]


def test_echo_requests_to_no_one_are_answered() -> None:
    action = FORWARDER.from_tun(ipv4(OWN_POD, NOBODY, b"\x08" + bytes(7), protocol=1))
    assert isinstance(action, WriteToTun)
    assert action.answers is DropReason.NO_ROUTE


def test_unanswerable_packets_to_no_one_are_dropped_with_the_same_reason() -> None:
    assert FORWARDER.from_tun(ipv4(OWN_POD, NOBODY, b"\x03" + bytes(7), protocol=1)) == Drop(DropReason.NO_ROUTE)
    assert FORWARDER.from_tun(ipv4("10.0.46.255", NOBODY, bytes(8))) == Drop(DropReason.NO_ROUTE)


def test_packet_for_our_own_subnet_is_answered_not_sent_around() -> None:
    wider = Forwarder(NODE, ForwardingTable({IPv4Network("10.0.0.0/16"): PEER}))
    for forwarder in (FORWARDER, wider):
        action = forwarder.from_tun(ipv4("10.0.46.0", "10.0.46.9", udp(1, 2)))
        assert isinstance(action, WriteToTun)
        assert action.answers is DropReason.OWN


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\x60" + bytes(47), DropReason.VERSION),
        (bytes(3), DropReason.SHORT),
        *shows("B29", [(ipv4(OWN_POD, PEER_POD, ttl=0), DropReason.TTL)]),
        (ipv4(OWN_POD, "224.0.0.251", udp(5353, 5353)), DropReason.MULTICAST),
        (ipv4(OWN_POD, "255.255.255.255", udp(68, 67)), DropReason.MULTICAST),
        *shows("B35", [(ipv4(OWN_POD, PEER_POD, udp(PORT, PORT)), DropReason.NEST)]),
    ],
)
def test_packet_of_the_kernel_is_dropped_with_its_reason(packet: bytes, reason: DropReason) -> None:
    assert FORWARDER.from_tun(packet) == Drop(reason)


@pytest.mark.parametrize("ports", [(9, PORT), (PORT, 9)])
@pytest.mark.row("B35")
def test_a_pods_flow_may_have_the_overlays_port_at_one_end(ports: tuple[int, int]) -> None:
    packet = ipv4(OWN_POD, PEER_POD, udp(*ports))
    assert FORWARDER.from_tun(packet) == SendDatagram(packet, PEER)


@pytest.mark.row("B29")
def test_ttl_of_one_is_carried_because_the_kernels_count() -> None:
    packet = ipv4(OWN_POD, PEER_POD, ttl=1)
    assert FORWARDER.from_tun(packet) == SendDatagram(packet, PEER)


GOOD = ipv4(PEER_POD, OWN_POD, udp(1, 2))


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        *shows("B25", ((GOOD[:length], DropReason.SHORT) for length in (0, 1, 19))),
        *shows(
            "B25",
            ((ipv4(PEER_POD, OWN_POD, version_ihl=first << 4 | 5), DropReason.VERSION) for first in (0, 5, 6, 15)),
        ),
        *shows("B25", [(b"\x60" + bytes(47), DropReason.VERSION)]),
        *shows(
            "B26", ((ipv4(PEER_POD, OWN_POD, bytes(40), version_ihl=0x40 | ihl), DropReason.IHL) for ihl in range(5))
        ),
        *shows("B26", [(ipv4(PEER_POD, OWN_POD, bytes(20), version_ihl=0x4F), DropReason.IHL)]),
        *shows("B27", ((ipv4(PEER_POD, OWN_POD, total_length=long), DropReason.LENGTH) for long in (0, 19, 21, 65535))),
        *shows("B28", ((ipv4(PEER_POD, OWN_POD, checksum=sum_), DropReason.CHECKSUM) for sum_ in (1, 0xFFFF))),
        *shows("B29", [(ipv4(PEER_POD, OWN_POD, ttl=0), DropReason.TTL)]),
        *shows("B30", ((ipv4(PEER_POD, OWN_POD, bytes(size)), DropReason.TOO_LONG) for size in (1453, 65487))),
        *shows(
            "B31",
            (
                (ipv4(source, OWN_POD), DropReason.SOURCE)
                for source in (
                    "10.0.91.2",
                    "10.0.46.3",
                    "192.168.8.228",
                    "0.0.0.0",
                    "127.0.0.1",
                    "224.0.0.1",
                    "255.255.255.255",
                )
            ),
        ),
        *shows(
            "B32",
            (
                (ipv4(PEER_POD, destination), DropReason.DESTINATION)
                for destination in ("10.0.47.2", PEER_POD, "192.168.8.227", "127.0.0.1", "224.0.0.1", "10.0.46.255")
            ),
        ),
        *shows("B35", [(ipv4(PEER_POD, OWN_POD, udp(PORT, PORT, GOOD)), DropReason.NEST)]),
        *shows("B35", [(ipv4(PEER_POD, OWN_POD, udp(PORT, PORT), flags_and_offset=0x2000), DropReason.NEST)]),
        *shows("B35", [(ipv4(PEER_POD, OWN_POD, udp(PORT, PORT), options=bytes(8)), DropReason.NEST)]),
    ],
)
def test_datagram_is_dropped_with_its_reason(packet: bytes, reason: DropReason) -> None:
    assert from_peer(packet) == Drop(reason)


@pytest.mark.parametrize("source", [("192.168.8.9", PORT), ("192.168.8.227", PORT), (PEER.ip, PORT + 1)])
@pytest.mark.row("B33")
def test_datagram_from_no_peer_is_dropped_before_anything_else(source: tuple[str, int]) -> None:
    assert from_peer(b"", source) == Drop(DropReason.PEER)
    assert from_peer(GOOD, source) == Drop(DropReason.PEER)


@pytest.mark.row("B33")
def test_peer_that_was_just_withdrawn_is_no_peer() -> None:
    assert Forwarder(NODE, ForwardingTable({})).from_udp(GOOD, PEER) == Drop(DropReason.PEER)


@pytest.mark.parametrize(
    "packet",
    [
        GOOD,
        *shows("B26", [(ipv4(PEER_POD, OWN_POD, options=bytes(40)),)]),
        *shows("B30", [(ipv4(PEER_POD, OWN_POD, bytes(1452)),)]),
        *shows("B29", [(ipv4(PEER_POD, OWN_POD, ttl=1),)]),
        *shows("B32", [(ipv4("10.0.90.0", "10.0.46.0"),)]),
        *shows("B35", ((ipv4(PEER_POD, OWN_POD, udp(*ports)),) for ports in ((PORT, 9), (9, PORT)))),
        *shows("B35", [(ipv4(PEER_POD, OWN_POD, udp(PORT, PORT), flags_and_offset=0x00B9),)]),
        *shows("B35", [(ipv4(PEER_POD, OWN_POD, udp(PORT, PORT), protocol=6),)]),
        *shows("B34", [(ipv4(PEER_POD, OWN_POD, flags_and_offset=0x3FFF),)]),
    ],
)
def test_good_packet_reaches_the_kernel_unchanged(packet: bytes) -> None:
    assert from_peer(packet) == WriteToTun(packet)


@pytest.mark.row("B27")
def test_bytes_behind_the_packet_are_cut_off() -> None:
    assert from_peer(GOOD + b"padding") == WriteToTun(GOOD)


@pytest.mark.row("B30")
def test_truncated_datagram_is_too_long_whatever_its_length_field() -> None:
    packet = ipv4(PEER_POD, OWN_POD, bytes(3000))[:1473]
    assert FORWARDER.from_udp(packet, PEER, truncated=True) == Drop(DropReason.TOO_LONG)


def test_fenced_node_forwards_nothing() -> None:
    fenced = Forwarder(NODE, TABLE, fenced=True)
    assert fenced.from_udp(GOOD, PEER) == Drop(DropReason.FENCED)
    assert fenced.from_tun(ipv4(OWN_POD, PEER_POD)) == Drop(DropReason.FENCED)
    assert fenced.from_tun(ipv4(OWN_POD, NOBODY)) == Drop(DropReason.FENCED)


def lease(subnet: str, public_ip: str, mod_revision: int = 1) -> Lease:
    attrs = LeaseAttrs(IPv4Address(public_ip))
    return Lease(Subnet(IPv4Network(subnet)), attrs, etcd_lease_id=1, mod_revision=mod_revision)


def test_longest_prefix_wins() -> None:
    table = ForwardingTable.from_leases(
        [
            lease("10.0.0.0/17", "192.168.8.1"),
            lease("10.0.90.0/24", "192.168.8.2"),
            lease("10.0.90.16/28", "192.168.8.3"),
        ],
        PORT,
    )
    for destination, ip in (("10.0.1.1", "1"), ("10.0.90.1", "2"), ("10.0.90.17", "3"), ("10.0.90.32", "2")):
        assert table.lookup(int(IPv4Address(destination))) == TunnelEndpoint(f"192.168.8.{ip}", PORT)
    assert table.lookup(int(IPv4Address("10.0.128.1"))) is None


def test_peer_with_two_subnets_may_send_from_both() -> None:
    leases = [lease("10.0.90.0/24", PEER.ip), lease("10.0.91.0/24", PEER.ip)]
    forwarder = Forwarder(NODE, ForwardingTable.from_leases(leases, PORT))
    for source in (PEER_POD, "10.0.91.2"):
        assert isinstance(forwarder.from_udp(ipv4(source, OWN_POD), PEER), WriteToTun)


def test_table_lists_subnets_in_order_and_equals_a_table_with_the_same() -> None:
    leases = [lease("10.0.90.0/24", "192.168.8.2"), lease("10.0.9.0/24", "192.168.8.1")]
    table = ForwardingTable.from_leases(leases, PORT)
    assert [str(subnet) for subnet, _ in table] == ["10.0.9.0/24", "10.0.90.0/24"]
    assert table == ForwardingTable.from_leases(reversed(leases), PORT)
    assert table != TABLE
