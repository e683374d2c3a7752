"""Fragments that lie: they are for the receiving kernel to put together, and cost the overlay nothing."""

import tracemalloc
from ipaddress import IPv4Network

import pytest

from agent.datapath.counters import DropReason
from agent.datapath.forwarder import Drop, Forwarder, OwnNode, WriteToTun
from agent.datapath.forwarding_table import ForwardingTable, TunnelEndpoint
from tests.packets import ipv4, udp

PORT = 8285
PEER = TunnelEndpoint("192.168.8.228", PORT)
FORWARDER = Forwarder(
    OwnNode(IPv4Network("10.0.46.0/24"), overlay_mtu=1472, port=PORT),
    ForwardingTable({IPv4Network("10.0.90.0/24"): PEER}),
)
MORE = 0x2000  # RFC 791 §3.1: «more fragments»; the lower 13 bits are the offset in units of 8 bytes
LAST_OFFSET = 0x1FFF

pytestmark = pytest.mark.row("B34")


def fragment(offset: int, payload: bytes = bytes(16), more: bool = True) -> bytes:
    return ipv4("10.0.90.2", "10.0.46.2", payload, flags_and_offset=(MORE if more else 0) | offset)


@pytest.mark.parametrize(
    "packet",
    [
        fragment(0),
        pytest.param(fragment(1, bytes(1400)), id="overlaps the one before"),
        pytest.param(fragment(0, b"\x00\x09"), id="too short for ports"),
        pytest.param(fragment(0, b""), id="without payload"),
        pytest.param(fragment(LAST_OFFSET, bytes(1400), more=False), id="ends beyond 65,535"),
    ],
)
def test_a_fragment_goes_to_the_kernel_as_it_came(packet: bytes) -> None:
    assert FORWARDER.from_udp(packet, PEER) == WriteToTun(packet)


def test_a_tiny_first_fragment_does_not_hide_the_tunnel_s_own_port() -> None:
    """Four bytes are enough to read the ports; with fewer no kernel would deliver the datagram by it either."""
    assert FORWARDER.from_udp(fragment(0, udp(PORT, PORT)[:4]), PEER) == Drop(DropReason.NEST)
    assert isinstance(FORWARDER.from_udp(fragment(0, udp(PORT, PORT)[:3]), PEER), WriteToTun)


def test_fragments_that_are_never_completed_take_no_memory() -> None:
    packets = [fragment(offset % LAST_OFFSET) for offset in range(10)]
    FORWARDER.from_udp(packets[0], PEER)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(10_000):
            FORWARDER.from_udp(packets[number % 10], PEER)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000
