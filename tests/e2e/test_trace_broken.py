"""Broken labs: `testbed trace` names the right place and the right reason."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.testing.lab_handle import LabHandle
from tests.e2e.lab import Lab
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

FILTER = "table ip secret { chain forward { type filter hook forward priority 0; tcp dport 8080 counter drop; }; }"
POLICY = "table ip secret { chain in { type filter hook input priority 0; policy drop; udp sport != 8285 accept; }; }"
NOT_ARRIVED = ("unreachable", "lost")
"""The kernel tells a sender so only once a second (net.ipv4.icmp_ratelimit), and another test may have used it up."""


@pytest.fixture(scope="module")
def handle(new_lab: Callable[..., Any]) -> Iterator[LabHandle]:
    """Yield a light lab that is broken and mended again and again."""
    with new_lab("two_nodes") as running:
        yield running


@pytest.fixture
def lab(handle: LabHandle) -> Iterator[Lab]:
    """Yield the lab, repaired before and after: every pod reaches every pod."""
    running = Lab(handle.name)
    yield running
    running.testbed("fault", "heal")
    wait_until(lambda: running.testbed("ping").code == 0, timeout_s=30, what="all pods reach each other again")


def traced(lab: Lab, source: str = "shell1", destination: str = "echo2:8080", *more: str) -> dict[str, Any]:
    answer: dict[str, Any] = lab.testbed("trace", source, destination, "--timeout", "0.4", "-o", "json", *more).json
    return answer


def test_agent_that_does_not_run_is_named(lab: Lab) -> None:
    lab.must("fault", "agent", "stop", "node1")
    out = traced(lab)
    assert out["outcome"] in NOT_ARRIVED
    assert out["lost_at"]["where"] == "node1 docker0"
    assert out["lost_at"]["reason"].startswith("node1's route refuses it: unreachable 10.0.0.0/16")
    assert "agent does not answer" in out["lost_at"]["reason"]
    back = traced(lab, "shell2", "echo1:8080")
    assert (back["outcome"], back["lost_at"]["where"]) == ("lost", "node1 uplink")
    assert "the agent of node1 does not answer" in back["lost_at"]["reason"]


def test_overlay_device_lost_with_its_agent_is_distinguished_from_a_stopped_one(lab: Lab) -> None:
    lab.must("fault", "agent", "pause", "node1")  # it would make the device again at once
    lab.must("exec", "node1", "--", "ip", "link", "delete", "flannel0")
    out = traced(lab)
    assert (out["outcome"], out["lost_at"]["where"]) == ("lost", "node1 docker0")
    dropped = "node1's route drops it: 10.0.0.0/16 dev overlay-drop0 (its agent does not answer)"
    assert out["lost_at"]["reason"] == dropped
    assert dropped in traced(lab, "node1")["reasons"]


@pytest.mark.slow
def test_stopped_agent_is_distinguished_from_one_that_is_gone(lab: Lab) -> None:
    lab.must("fault", "agent", "pause", "node2")
    out = traced(lab)
    assert out["lost_at"]["where"] == "node2 uplink"
    assert out["lost_at"]["reason"] == "the agent of node2 does not answer: it hangs or is suspended"


def test_deleted_route_is_named(lab: Lab) -> None:
    lab.must("fault", "agent", "hang", "node1")  # it would put the route back at once
    lab.must("exec", "node1", "--", "ip", "route", "delete", "10.0.0.0/16", "dev", "flannel0")
    out = traced(lab)
    assert out["outcome"] in NOT_ARRIVED
    assert out["lost_at"]["where"] == "node1 docker0"
    assert out["lost_at"]["reason"].startswith("node1's route drops it: 10.0.0.0/16 dev overlay-drop0")


def test_the_node_without_a_route_is_named_and_not_the_reporting_gateway(lab: Lab) -> None:
    lab.must("fault", "agent", "hang", "node1")
    lab.must("exec", "node1", "--", "ip", "route", "flush", "exact", "10.0.0.0/16")
    out = traced(lab)
    assert out["outcome"] in NOT_ARRIVED
    assert out["reasons"][0].startswith("node1 had no route of its own to 10.0.")
    assert "sent it to gw" in out["reasons"][0]
    assert not any("gw has no route" in reason for reason in out["reasons"])
    assert "get routes node1" in out["hints"]


STATEFUL = """
add table inet hostfw
add chain inet hostfw f1 { type filter hook forward priority filter + 10; policy accept; }
add rule inet hostfw f1 ct state established,related accept
add rule inet hostfw f1 reject with icmpx admin-prohibited
"""


@pytest.mark.parametrize(
    "words",
    [
        ("shell1", "echo2"),
        ("shell1", "echo2:8080"),
        ("shell1:4001", "echo2:8080"),
        ("shell1", "echo2:8080", "--udp"),
        ("shell1:4002", "echo2:8080", "--udp"),
    ],
    ids=" ".join,
)
def test_a_traced_packet_is_a_new_connection_for_a_stateful_filter(lab: Lab, words: tuple[str, ...]) -> None:
    """Also from the same port as another a moment ago, which the filter would let pass as established."""
    assert traced(lab, *words)["outcome"] == "answered"
    assert lab.exec("node2", "nft", "-f", "-", stdin=STATEFUL).code == 0
    try:
        out = traced(lab, *words)
    finally:
        lab.must("exec", "node2", "--", "nft", "delete", "table", "inet", "hostfw")
    assert out["outcome"] == "unreachable"
    assert any("a packet filter of node2 drops it: " in reason for reason in out["reasons"]), out["reasons"]
    assert traced(lab, *words)["outcome"] == "answered"


def test_revoked_lease_of_the_peer_is_named(lab: Lab) -> None:
    lab.must("fault", "agent", "pause", "node2")  # it would take the lease anew
    lab.must("fault", "lease", "revoke", "node2")
    wait_until(lambda: lab.node("node1")["peers"]["known"] == 0, timeout_s=5, what="node1 has heard of it")
    out = traced(lab)
    assert (out["outcome"], out["lost_at"]["where"]) == ("unreachable", "node1 flannel0")
    assert "no node holds a lease for the destination" in out["lost_at"]["reason"]
    assert out["drops"] == {"node1": {"no_route": 1}}
    assert "get leases" in out["hints"]


def test_bridge_that_is_down_is_named_from_both_sides(lab: Lab) -> None:
    lab.must("fault", "agent", "hang", "node2")  # it would bring the bridge up at once
    lab.must("exec", "node2", "--", "ip", "link", "set", "docker0", "down")
    out = traced(lab)
    assert out["lost_at"]["node"] == "node2"
    assert out["lost_at"]["reason"] == "docker0 of node2 is down"
    own = traced(lab, "shell2", "echo1:8080")
    assert own["lost_at"]["reason"] == "docker0 of node2 is down"


def test_rule_that_drops_is_named_with_its_chain(lab: Lab) -> None:
    lab.must("exec", "node1", "--", "nft", FILTER)
    try:
        out = traced(lab)
    finally:
        lab.must("exec", "node1", "--", "nft", "delete", "table", "ip", "secret")
    assert (out["outcome"], out["lost_at"]["where"]) == ("lost", "node1 docker0")
    assert "table ip secret, chain forward: tcp dport 8080 counter" in out["lost_at"]["reason"]
    assert "testbed-trace" not in lab.must("exec", "node1", "--", "nft", "list", "tables"), "left behind"


@pytest.mark.slow
def test_policy_that_drops_datagrams_of_the_overlay_is_named(lab: Lab) -> None:
    lab.must("exec", "node2", "--", "nft", POLICY)
    try:
        out = traced(lab)
    finally:
        lab.must("exec", "node2", "--", "nft", "delete", "table", "ip", "secret")
    assert out["lost_at"]["where"] == "node2 uplink"
    assert "policy drop of table ip secret, chain in" in out["lost_at"]["reason"]


def test_underlay_that_is_too_narrow_is_named(lab: Lab) -> None:
    lab.testbed("shell", stdin="ip link set s1-eth2 mtu 1400\n")
    try:
        small, large = traced(lab), traced(lab, "shell1", "echo2:8080", "--size", "1400")
    finally:
        lab.testbed("shell", stdin="ip link set s1-eth2 mtu 1500\n")
    assert small["outcome"] == "answered"
    assert "s1 s1-eth2 only 1372" in small["warnings"][0]
    assert large["outcome"] == "data lost"
    assert large["lost_at"]["node"] == "s1"
    assert "1480 bytes do not fit through s1's port s1-eth2 (MTU 1400)" in large["lost_at"]["reason"]


@pytest.mark.slow
def test_sender_without_a_route_gets_an_error(lab: Lab) -> None:
    lab.testbed("shell", stdin="ip netns exec shell1 ip route delete default\n")
    try:
        out = traced(lab)
    finally:
        gateway = lab.node("node1")["subnet"].replace(".0/24", ".1")
        lab.testbed("shell", stdin=f"ip netns exec shell1 ip route add default via {gateway}\n")
    assert (out["outcome"], out["hops"]) == ("not sent", [])
    assert out["reasons"][0].startswith("shell1 has no route to 10.0.")


@pytest.mark.slow
def test_unplugged_cable_is_named(lab: Lab) -> None:
    lab.must("fault", "link", "down", "node2", "s1")
    out = traced(lab)
    assert out["outcome"] == "lost"
    assert out["lost_at"]["node"] == "s1"
    assert "down: s1-eth2 (to node2)" in out["lost_at"]["reason"]


@pytest.mark.slow
def test_address_that_nobody_has_is_named_with_the_unanswered_arp(lab: Lab) -> None:
    nobody = lab.node("node2")["subnet"].replace(".0/24", ".77")
    out = traced(lab, "shell1", nobody)
    assert out["outcome"] in NOT_ARRIVED
    assert out["lost_at"]["node"] == "node2"
    assert f"no reply to ARP for {nobody} on docker0 of node2" in out["reasons"]


@pytest.mark.slow
def test_nobody_listening_is_a_refusal_and_no_loss(lab: Lab) -> None:
    out = traced(lab, "shell1", "echo2:81")
    assert (out["outcome"], out["lost_at"], out["reasons"]) == ("refused", None, [])
