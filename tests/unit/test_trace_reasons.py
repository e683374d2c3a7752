"""Why a packet is where it is, and which rule dropped it: the parts of `testbed trace` that only think."""

import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import cast

import pytest

from agent.kernel.values import IPAddress, Link, Route
from testbed.capture.headers import Encapsulation, unwrap
from testbed.control.answers.trace import TraceHop
from testbed.trace.hops import narrow_places
from testbed.trace.nft_trace import Dropped, dropped_by, marking_table, trace_messages
from testbed.trace.reasons import reason
from testbed.trace.recognise import Mark, Role
from testbed.trace.timeline import Step
from testbed.trace.watch import Sighting
from tests.packets import ipv4, tcp, udp

FLANNEL = Encapsulation("udp", 8285)
POD_MAC = "0a:58:0a:00:02:02"
PLAIN = ("10.0.1.2", "10.0.2.2")
NODES = ("192.168.8.1", "192.168.8.2")


@dataclass
class Answers:
    """A lab of one node with a bridge, as `reasons` may ask about it."""

    overlay_devices: tuple[str, ...] = ("flannel0",)
    bridges: dict[tuple[str, str], str] = field(default_factory=lambda: {("node1", "vethpod"): "docker0"})
    ports: dict[str, str] = field(default_factory=lambda: {POD_MAC: "vethpod"})
    peers: dict[str, tuple[str, str]] = field(default_factory=lambda: {"10.0.2.2": ("10.0.2.0/24", "192.168.8.2:8285")})
    services: dict[str, str] = field(default_factory=dict)

    def route(self, place: str, destination: IPAddress) -> Route | None:
        overlay = destination in IPv4Network("10.0.0.0/16")
        network = "10.0.0.0/16" if overlay else "192.168.8.0/24"
        return Route(IPv4Network(network), "flannel0" if overlay else "node1-eth0", scope="global", protocol="static")

    def link(self, place: str, interface: str) -> Link | None:
        return None

    def bridge_of(self, place: str, interface: str) -> str | None:
        return self.bridges.get((place, interface))

    def port_of(self, place: str, bridge: str, mac: str) -> str | None:
        return self.ports.get(mac)

    def peer(self, place: str, destination: IPAddress) -> tuple[str, str] | None:
        return self.peers.get(str(destination))

    def subnet_of_node_at(self, place: str, node_address: IPAddress) -> str | None:
        return "10.0.1.0/24" if str(node_address) == NODES[0] else None

    def owner(self, address: IPAddress) -> str | None:
        return {"10.0.2.2": "pod", "192.168.8.2": "node1"}.get(str(address))

    def service(self, place: str, address: IPAddress, port: int | None, protocol: str) -> str | None:
        return self.services.get(str(address))

    def node_name(self, place: str, interface: str) -> str:
        return place

    def other_end(self, place: str, interface: str) -> tuple[str, str] | None:
        return ("node1", "vethpod") if place == "pod" else None


def step(
    place: str, interface: str, direction: str, packet: bytes, *, mac: str | None = None, role: Role = Role.REQUEST
) -> Step:
    link = bytes.fromhex(mac.replace(":", "")) + bytes(6) + b"\x08\x00" if mac else b""
    (wrapped,) = unwrap(link + packet, len(link), FLANNEL)
    return Step(role, Sighting(place, 0, 0, interface, direction == "out", False, 1, link + packet, len(link), wrapped))


def packet(ends: tuple[str, str] = PLAIN, *, ttl: int = 64, ports: tuple[int, int] = (5, 80)) -> bytes:
    return ipv4(*ends, tcp(1, ports=ports), protocol=6, ttl=ttl)


def carried(inner: bytes) -> bytes:
    return ipv4(*NODES, udp(8285, 8285, inner))


def test_forwarded_packet_has_its_route_and_what_the_ttl_became() -> None:
    before, after = step("node1", "docker0", "in", packet()), step("node1", "flannel0", "out", packet(ttl=63))
    assert reason(before, after, Answers(), Answers()) == "route 10.0.0.0/16 dev flannel0; TTL 64 → 63"


def test_wrapped_packet_has_the_lease_that_named_the_peer() -> None:
    before = step("node1", "flannel0", "out", packet())
    after = step("node1", "node1-eth0", "out", carried(packet()), mac=POD_MAC)
    said = "lease 10.0.2.0/24 → 192.168.8.2:8285; route 192.168.8.0/24 dev node1-eth0"
    assert reason(before, after, Answers(), Answers()) == said
    assert reason(before, after, Answers(peers={}), Answers()).startswith("the lease for 10.0.2.2 is gone")


def test_bridged_packet_has_the_port_or_the_flood() -> None:
    before = step("node1", "docker0", "out", packet(), mac=POD_MAC)
    after = step("node1", "vethpod", "out", packet(), mac=POD_MAC)
    assert reason(before, after, Answers(), Answers()) == f"docker0's table: {POD_MAC} is behind vethpod"
    flood = reason(before, after, Answers(ports={}), Answers())
    assert flood == f"docker0 does not know {POD_MAC} and floods all ports"


def test_unwrapped_packet_has_who_may_send_it() -> None:
    before = step("node1", "node1-eth0", "in", carried(packet()), mac=POD_MAC)
    after = step("node1", "flannel0", "in", packet())
    assert reason(before, after, Answers(), Answers()).endswith("192.168.8.1 holds 10.0.1.0/24")


def test_translations_are_named_by_their_cause() -> None:
    services = Answers(services={"10.96.0.1": "web (map cluster-ips)"})
    before = step("node1", "docker0", "in", packet(("10.0.1.2", "10.96.0.1")))
    after = step("node1", "flannel0", "out", packet(("192.168.8.1", "10.0.2.2"), ports=(9, 8080)))
    said = reason(before, after, services, services)
    assert "service web (map cluster-ips): DNAT destination 10.96.0.1:80 → 10.0.2.2:8080" in said
    assert "masquerade: source 10.0.1.2:5 → 192.168.8.1:9" in said
    back = (
        step("node1", "flannel0", "in", packet(("10.0.2.2", "10.0.1.2")), role=Role.REPLY),
        step("node1", "docker0", "out", packet(("10.96.0.1", "10.0.1.2")), role=Role.REPLY),
    )
    assert "conntrack translates it back: source 10.0.2.2:5 → 10.96.0.1:5" in reason(
        back[0], back[1], services, services
    )


def hop(where: str, mtu: int, *, outer: int | None = None) -> TraceHop:
    """Return a hop with only the fields that are used."""
    inner = {"length": 60}
    hop = {"leg": "request", "where": where, "mtu": mtu, "inner": inner, "outer": outer and {"length": outer}}
    return cast("TraceHop", hop)


@pytest.mark.parametrize(("mtu", "warned"), [(1500, False), (1499, True)])
def test_narrow_place_is_one_whose_mtu_is_below_the_senders(mtu: int, warned: bool) -> None:
    hops = [hop("pod eth0", 1472), hop("node1 uplink", mtu, outer=88), hop("node2 uplink", 1500, outer=88)]
    said = narrow_places(hops)
    assert bool(said) is warned
    assert all("node1 uplink only 1471" in line for line in said)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(*attributes: bytes, kind: int = (10 << 8) | 17, family: int = 2) -> bytes:
    body = bytes([family, 0, 0, 0]) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def verdict(code: int) -> bytes:
    return attribute(0x8000 | 5, attribute(1, struct.pack("!i", code)))


RULE = (
    attribute(1, b"secret\0"),
    attribute(2, b"fw\0"),
    attribute(3, struct.pack("!Q", 7)),
    attribute(4, b"\0\0\0\x03"),
)
POLICY = (attribute(1, b"secret\0"), attribute(2, b"fw\0"), attribute(4, b"\0\0\0\x01"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (message(*RULE, verdict(0)), Dropped("ip", "secret", "fw", 7)),
        (message(*RULE, verdict(1)), None),
        (message(*RULE, verdict(-1)), None),
        (message(*POLICY, attribute(16, bytes(4)), family=1), Dropped("inet", "secret", "fw", None)),
        (message(*POLICY, attribute(16, b"\0\0\0\x01")), None),
    ],
    ids=["rule drops", "rule accepts", "rule goes on", "policy drops", "policy accepts"],
)
def test_kernels_trace_is_read(data: bytes, expected: Dropped | None) -> None:
    other = message(kind=3)
    assert [dropped_by(*one) for one in trace_messages(other + data)] == [expected]


def test_marking_looks_for_the_cookie_alone_and_in_datagrams() -> None:
    table = marking_table(Mark("tcp", 0xCAFE), FLANNEL)
    assert "meta l4proto tcp @th,32,32 51966 meta nftrace set 1" in table
    assert "udp dport 8285 @th,256,32 51966 meta nftrace set 1" in table
    assert "table bridge testbed-trace" in table
