"""The way of one packet, as `testbed trace` tells it, on the product's default cluster."""

from typing import Any

import pytest

from tests.e2e.lab import Lab

PROBE = ("trace", "nginx:2379", "tomcat:8080")
THERE = [
    ("nginx", "eth0", "out"),
    ("node1", "vethnginx", "in"),
    ("node1", "docker0", "in"),
    ("node1", "flannel0", "out"),
    ("node1", "node1-eth0", "out"),
    ("s1", "s1-eth1", "in"),
    ("s1", "s1-eth2", "out"),
    ("node2", "node2-eth0", "in"),
    ("node2", "flannel0", "in"),
    ("node2", "docker0", "out"),
    ("node2", "vethtomcat", "out"),
    ("tomcat", "eth0", "in"),
]
OTHER_WAY = {"in": "out", "out": "in"}
BACK = [(node, interface, OTHER_WAY[direction]) for node, interface, direction in reversed(THERE)]
RUNS = 10


def way(trace: dict[str, Any], leg: str) -> list[tuple[str, str, str]]:
    return [(hop["node"], hop["interface"], hop["direction"]) for hop in trace["hops"] if hop["leg"] == leg]


def hop_at(trace: dict[str, Any], node: str, interface: str, leg: str = "request") -> dict[str, Any]:
    return next(hop for hop in trace["hops"] if (hop["node"], hop["interface"], hop["leg"]) == (node, interface, leg))


@pytest.fixture(scope="module")
def traced(nginx_tomcat: Lab) -> dict[str, Any]:
    answer: dict[str, Any] = nginx_tomcat.json(*PROBE)
    return answer


def test_every_interface_is_named_in_order_and_both_ways(traced: dict[str, Any]) -> None:
    assert traced["outcome"] == "answered"
    assert way(traced, "request") == THERE
    assert way(traced, "answer") == BACK
    assert traced["unwatched"] == []


def test_outer_and_inner_addresses_are_those_of_the_wire(traced: dict[str, Any]) -> None:
    uplink = hop_at(traced, "node1", "node1-eth0")
    inner, outer = uplink["inner"], uplink["outer"]
    assert (outer["src"], outer["sport"], outer["dst"], outer["dport"]) == (
        "192.168.8.227",
        8285,
        "192.168.8.228",
        8285,
    )
    assert (inner["src"], inner["sport"], inner["dst"], inner["dport"]) == ("10.0.46.2", 2379, "10.0.90.2", 8080)
    assert outer["length"] == inner["length"] + 28
    assert len({hop["inner"]["id"] for hop in traced["hops"] if hop["leg"] == "request"}) == 1


def test_each_kernel_counts_the_ttl_down_once(traced: dict[str, Any]) -> None:
    assert hop_at(traced, "node1", "docker0")["inner"]["ttl"] == 64
    assert hop_at(traced, "node1", "flannel0")["inner"]["ttl"] == 63
    assert hop_at(traced, "tomcat", "eth0")["inner"]["ttl"] == 62


def test_reasons_are_route_lease_and_bridge_port(traced: dict[str, Any]) -> None:
    assert "10.0.0.0/16 dev flannel0" in hop_at(traced, "node1", "flannel0")["why"]
    assert "10.0.90.0/24 → 192.168.8.228:8285" in hop_at(traced, "node1", "node1-eth0")["why"]
    assert "behind s1-eth2" in hop_at(traced, "s1", "s1-eth2")["why"]
    assert "behind vethtomcat" in hop_at(traced, "node2", "vethtomcat")["why"]
    assert "delivered" in hop_at(traced, "tomcat", "eth0")["why"]


def test_same_source_port_again_and_again_is_complete_every_time(nginx_tomcat: Lab) -> None:
    for _ in range(RUNS):
        again = nginx_tomcat.json(*PROBE)
        times = [hop["at_us"] for hop in again["hops"]]
        assert times == sorted(times)
        assert way(again, "request") + way(again, "answer") == THERE + BACK


@pytest.mark.parametrize("how", [("--icmp",), ("--udp",)], ids=["icmp", "udp"])
def test_other_protocols_go_the_same_way(how: tuple[str, ...], nginx_tomcat: Lab) -> None:
    answer = nginx_tomcat.testbed("trace", "nginx", "tomcat", *how, "-o", "json").json
    assert way(answer, "request") == THERE
    assert way(answer, "answer" if how == ("--icmp",) else "error") == BACK


def test_text_has_the_lease_and_the_outcome(nginx_tomcat: Lab) -> None:
    shown = nginx_tomcat.must(*PROBE)
    assert "10.0.46.2:2379 → 10.0.90.2:8080" in shown
    assert "192.168.8.227:8285 → 192.168.8.228:8285" in shown
    assert "outcome: answered" in shown
