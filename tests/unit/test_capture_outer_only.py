"""A filter on inner packets finds nothing where only the overlay's own are seen: `capture` says where that is."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from testbed.capture.headers import NO_OVERLAY, Encapsulation
from testbed.capture.map import LAB, Map, Place
from testbed.capture.outer_only import decoding, note_of
from testbed.capture.verbs import listenings

KNOWN = Map(
    places=(Place(LAB, None), Place("node1", 1), Place("node2", 2), Place("gw", 3), Place("r1", 4), Place("web", 5)),
    place_of={name: name for name in ("node1", "node2", "gw", "r1", "web")},
    cables={
        ("node1", "node1-eth0"): (LAB, "s1-eth1"),
        ("gw", "gw-eth0"): (LAB, "s1-eth2"),
        ("r1", "r1-eth0"): (LAB, "s1-eth3"),
        ("r1", "r1-eth1"): (LAB, "s2-eth1"),
    },
    addresses={
        ip_address("192.168.8.1"): "node1",
        ip_address("10.0.1.1"): "node1",
        ip_address("10.0.1.2"): "web",
        ip_address("fd00::2"): "web",
    },
    overlay=Encapsulation("udp", 8285),
    overlay_device="flannel0",
    overlay_devices=frozenset({"flannel0"}),
    switch_ports={"s1-eth1": "s1", "s2-eth1": "s2", "s1": "s1"},
    nodes=frozenset({"node1", "node2"}),
    machines=frozenset({"node1", "node2", "gw", "r1"}),
)


def note(expression: str, *points: str, known: Map = KNOWN) -> str:
    return note_of(expression, listenings(points or ("all",), known), known)


@pytest.mark.parametrize(
    "expression",
    [
        *("tcp port 8080", "port 80", "udp dst port 53", "portrange 1-9", "port http", "icmp", "tcp"),
        *("host 10.0.1.2", "src net 10.0.0.0/16", "host fd00::2", "host 192.168.8.1 and port 80"),
    ],
)
def test_a_filter_on_inner_packets_is_noted_with_a_remedy(expression: str) -> None:
    said = note(expression)
    assert said.startswith("note: s1, s2, node1:uplink, node2:uplink and 1 more see packets between nodes only inside")
    assert 'capture at pods and flannel0, or filter "udp port 8285"' in said
    assert "-d udp.port==8285,ip" in said


@pytest.mark.parametrize("expression", ["", "udp port 8285", "arp", "host 192.168.8.1", "udp", "host 10.0.1.1", "ip6"])
def test_a_filter_on_outer_packets_is_not_noted(expression: str) -> None:
    assert note(expression) == ""


@pytest.mark.parametrize("point", ["web", "gw", "node1:flannel0", "node1:docker0", "s1:s1-eth1"])
def test_only_points_that_see_outer_headers_are_named(point: str) -> None:
    assert ("s1 see" in note("tcp", point)) == (point == "s1:s1-eth1")
    assert point == "s1:s1-eth1" or note("tcp", point) == ""


def test_points_are_named_as_they_can_be_asked_for() -> None:
    assert "note: node1:uplink, r1 see" in note("tcp", "node1:uplink", "r1")


def test_each_backend_has_its_own_remedy() -> None:
    vxlan = replace(KNOWN, overlay=Encapsulation("vxlan", 8472), overlay_device="flannel.1")
    assert decoding(vxlan) == "-d udp.port==8472,vxlan"
    assert "pods and flannel.1" in note("tcp", known=vxlan)
    ipip = note("tcp", known=replace(KNOWN, overlay=Encapsulation("ipip"), overlay_device="flannel.ipip"))
    assert 'filter "ip proto 4")' in ipip
    sealed = note("tcp", known=replace(KNOWN, overlay=Encapsulation("none", sealed_ports=(51820, 51821))))
    assert "inside UDP port 51820" in sealed
    assert "Wireshark" not in sealed
    assert note("tcp", known=replace(KNOWN, overlay=NO_OVERLAY)) == ""
