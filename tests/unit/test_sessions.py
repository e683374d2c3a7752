from ipaddress import IPv4Network, IPv6Network
from types import SimpleNamespace
from typing import Any

from testbed.lab.sessions import handshake_initiators


def node(number: int, ipv6: bool = False) -> Any:  # noqa: ANN401 - as much of a PodHost as is looked at
    """Return node1 with 10.0.1.0/24, and fd00:0:0:1::/64 where it has IPv6."""
    subnet, ipv6_subnet = IPv4Network(f"10.0.{number}.0/24"), IPv6Network(f"fd00:0:0:{number}::/64") if ipv6 else None
    return SimpleNamespace(name=f"node{number}", pid=number, subnet=subnet, ipv6_subnet=ipv6_subnet)


def asked(nodes: list[Any]) -> list[tuple[str, str]]:
    return [(sender.name, str(target.address)) for sender, target in handshake_initiators(nodes)]


def test_of_each_two_nodes_only_one_initiates_so_that_handshakes_do_not_collide() -> None:
    assert asked([node(1), node(2), node(3)]) == [("node1", "10.0.2.1"), ("node1", "10.0.3.1"), ("node2", "10.0.3.1")]


def test_each_family_is_asked_for() -> None:
    assert asked([node(1, ipv6=True), node(2, ipv6=True)]) == [("node1", "10.0.2.1"), ("node1", "fd00:0:0:2::1")]


def test_a_node_alone_asks_nothing() -> None:
    assert asked([node(1)]) == []
