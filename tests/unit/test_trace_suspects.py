"""Why a packet was lost after its last sighting: what the suspects are asked, and in which order."""

from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any

import pytest

from agent.kernel.values import IPAddress, Link, Route
from testbed.capture.headers import NO_OVERLAY, unwrap
from testbed.capture.map import Map, Place
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.service import ServicePort
from testbed.policies.world import World
from testbed.trace.facts import Facts
from testbed.trace.policy_words import PolicyWords
from testbed.trace.recognise import Role
from testbed.trace.suspects import Finding, Suspects
from testbed.trace.timeline import Step
from testbed.trace.watch import Sighting
from tests.packets import ipv4, tcp, udp

CLUSTER_IP = "10.96.0.80"
RULE = "table ip testbed-policies, chain egress-client: drop"
ONLY_PORTS = f"{CLUSTER_IP} is the cluster IP of nginx (80/TCP, 53/UDP); only the Service's ports answer"


class KnownFacts(Facts):
    """A node with a default route, whose packet filter drops every probe."""

    def route(self, place: str, destination: IPAddress) -> Route | None:
        return Route(IPv4Network("0.0.0.0/0"), "node1-eth0", scope="global", protocol="static")

    def link(self, place: str, interface: str) -> Link | None:
        return None

    def bridge_of(self, place: str, interface: str) -> str | None:
        return None

    def unanswered(self, place: str, destination: IPAddress, route: Route) -> IPAddress | None:
        return None

    def dropping_rule(self, place: str) -> str | None:
        return RULE


def found(packet: bytes) -> Finding:
    """Return what is found about a packet that node1 received from a pod, and that nothing saw afterwards."""
    service: Any = SimpleNamespace(
        key=ObjectKey("default", "nginx"),
        spec=SimpleNamespace(ports=(ServicePort(port=80), ServicePort(port=53, protocol="UDP"))),
        address_of=lambda _family: IPv4Address(CLUSTER_IP),
    )
    services: Any = SimpleNamespace(numbered={service.key: service})
    nothing: Any = None
    known = Map((), {}, {}, {}, NO_OVERLAY, "", frozenset(), {}, frozenset({"node1"}), frozenset({"node1"}))
    facts = KnownFacts(known, nothing, nothing, services, nothing, nothing)
    (wrapped,) = unwrap(packet, 0, NO_OVERLAY)
    lost = Step(Role.REQUEST, Sighting("node1", 0, 0, "docker0", False, False, 1, packet, 0, wrapped))
    return Suspects(known, facts, {}, {}, PolicyWords(World((), ()))).about(lost, [], [lost])


@pytest.mark.parametrize(
    "packet",
    [
        ipv4("10.0.1.2", CLUSTER_IP, tcp(1, ports=(5, 81)), protocol=6),
        ipv4("10.0.1.2", CLUSTER_IP, udp(5, 80), protocol=17),
        ipv4("10.0.1.2", CLUSTER_IP, b"\x08\x00" + bytes(6), protocol=1),
    ],
    ids=["another port", "another protocol", "no port"],
)
def test_a_packet_for_no_port_of_a_service_is_explained_by_its_ports(packet: bytes) -> None:
    assert found(packet).reasons == [ONLY_PORTS]


@pytest.mark.parametrize(
    "packet",
    [
        ipv4("10.0.1.2", CLUSTER_IP, tcp(1, ports=(5, 80)), protocol=6),
        ipv4("10.0.1.2", CLUSTER_IP, udp(5, 53), protocol=17),
    ],
    ids=["tcp", "udp"],
)
def test_a_packet_for_a_services_port_is_explained_by_the_filter_that_dropped_it(packet: bytes) -> None:
    assert found(packet).reasons == [f"a packet filter of node1 drops it: {RULE}"]


def test_a_command_in_a_pods_network_names_it_as_ip_does() -> None:
    known = Map((Place("shop/web", 5),), {}, {}, {}, NO_OVERLAY, "", frozenset(), {})
    facts: Any = None
    typed = Suspects(known, facts, {}, {}, PolicyWords(World((), ())))._type_at("shop/web", "nft list ruleset")
    assert typed == "shell  # then: ip netns exec shop_web nft list ruleset"
