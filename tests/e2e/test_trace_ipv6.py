"""`testbed trace` of IPv6 probes on a dual-stack lab: the same words, the other family's devices, leases and rules."""

from collections.abc import Iterator

import pytest

from tests.e2e.hops import hop_at, way
from tests.e2e.lab import Lab, lab_of, skip_without

OTHER_WAY = {"in": "out", "out": "in"}
OVERLAY_DEVICE = {"vxlan": "flannel-v6.1", "host-gw": None, "wireguard": "flannel-wg-v6"}
ECHO, SHELL = "fd00:a:0:90::2", "fd00:a:0:46::3"
FILTER = "table ip6 secret { chain fw { type filter hook forward priority 0; tcp dport 8080 drop; }; }"


def there(backend: str) -> list[tuple[str, str, str]]:
    """Return the interfaces between shell and echo."""
    device = OVERLAY_DEVICE[backend]
    return [
        ("shell", "eth0", "out"),
        ("node1", "vethshell", "in"),
        ("node1", "docker0", "in"),
        *([("node1", device, "out")] if device else []),
        ("node1", "node1-eth0", "out"),
        ("s1", "s1-eth1", "in"),
        ("s1", "s1-eth2", "out"),
        ("node2", "node2-eth0", "in"),
        *([("node2", device, "in")] if device else []),
        ("node2", "docker0", "out"),
        ("node2", "vethecho", "out"),
        ("echo", "eth0", "in"),
    ]


def back(backend: str) -> list[tuple[str, str, str]]:
    return [(node, interface, OTHER_WAY[direction]) for node, interface, direction in reversed(there(backend))]


@pytest.fixture(scope="module")
def vxlan(_as_root: None) -> Iterator[Lab]:
    with lab_of("dual_stack", "--backend", "vxlan") as lab:
        yield lab


@pytest.mark.parametrize("how", [(), ("--udp",), ("--size", "3000")], ids=["echo", "udp", "in fragments"])
def test_every_interface_is_named_in_order_and_both_ways(vxlan: Lab, how: tuple[str, ...]) -> None:
    trace = vxlan.testbed("trace", "-6", "shell", "echo", *how, "-o", "json").json
    assert way(trace, "request") == there("vxlan")
    assert way(trace, "error" if how == ("--udp",) else "reply") == back("vxlan")
    assert trace["outcome"] == ("refused" if how == ("--udp",) else "answered")
    assert trace["unwatched"] == []


def test_headers_of_both_packets_and_reasons_are_those_of_ipv6(vxlan: Lab) -> None:
    trace = vxlan.json("trace", "shell:2379", f"[{ECHO}]:8080")
    assert way(trace, "request") + way(trace, "reply") == there("vxlan") + back("vxlan")
    uplink = hop_at(trace, "node1", "node1-eth0")
    inner, outer = uplink["inner"], uplink["outer"]
    assert (inner["src"], inner["sport"], inner["dst"], inner["dport"]) == (SHELL, 2379, ECHO, 8080)
    assert (outer["src"], outer["dst"], outer["dport"]) == ("fd00:8::227", "fd00:8::228", 8472)
    assert outer["length"] == inner["length"] + 70
    assert "lease fd00:a:0:90::/64 → [fd00:8::228]:8472; route fd00:8::/64 dev node1-eth0" in uplink["why"]
    assert "fd00:8::227 holds fd00:a:0:46::/64" in hop_at(trace, "node2", "flannel-v6.1")["why"]
    assert "fd00:a:0:90::/64 via fd00:a:0:90:: dev flannel-v6.1" in hop_at(trace, "node1", "flannel-v6.1")["why"]
    assert hop_at(trace, "echo", "eth0")["inner"]["ttl"] == 62
    assert f"[{SHELL}]:2379 → [{ECHO}]:8080" in vxlan.must("trace", "shell:2379", f"[{ECHO}]:8080")


def test_a_service_is_followed_through_its_translation(vxlan: Lab) -> None:
    address = vxlan.json("get", "services", "echo")["spec"]["clusterIPs"][1]
    trace = vxlan.json("trace", "-6", "shell", "svc/echo:80")
    assert trace["probe"]["destination"] == address
    assert f"DNAT destination [{address}]:80 → [{ECHO}]:8080" in hop_at(trace, "node1", "docker0")["why"]
    assert f"{address} . tcp . 80" in hop_at(trace, "node1", "docker0")["why"]
    assert "conntrack translates it back" in hop_at(trace, "node1", "docker0", "reply")["why"]


def test_nodes_and_the_loopback_have_ipv6_too(vxlan: Lab) -> None:
    between = vxlan.json("trace", "-6", "node1", "node2")
    assert way(between, "request")[0] == ("node1", "node1-eth0", "out")
    assert between["probe"]["destination"] == "fd00:8::228"
    inside = vxlan.json("trace", "-6", "nginx", "localhost:80")
    assert {(hop["node"], hop["interface"]) for hop in inside["hops"]} == {("nginx", "lo")}


def test_the_dropping_rule_is_named(vxlan: Lab) -> None:
    vxlan.run("node1", "nft", FILTER)
    try:
        trace = vxlan.testbed("trace", "-6", "shell", "echo:8080", "--timeout", "0.4", "-o", "json").json
    finally:
        vxlan.run("node1", "nft", "delete", "table", "ip6", "secret")
    assert trace["lost_at"]["where"] == "node1 docker0"
    assert "table ip6 secret, chain fw: tcp dport 8080 drop" in trace["lost_at"]["reason"]
    assert vxlan.json("trace", "-6", "shell", "echo:8080")["outcome"] == "answered"


def test_an_address_without_owner_is_reported_by_the_asking_node(vxlan: Lab) -> None:
    nobody = vxlan.testbed("trace", "shell", "fd00:a:0:90::77", "--timeout", "0.4", "-o", "json").json
    assert nobody["lost_at"]["where"] == "node2 flannel-v6.1"
    assert nobody["reasons"][0] == "no reply to neighbour solicitations for fd00:a:0:90::77 on docker0 of node2"
    unleased = vxlan.testbed("trace", "shell", "fd00:a:0:77::1", "--timeout", "0.4", "-o", "json").json
    assert unleased["lost_at"]["reason"] == "node1's route refuses it: unreachable fd00:a::/48"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("-6", "shell", "10.0.90.2"), 2, "trace -6: not an IPv6 address (got 10.0.90.2; want one, or a name)"),
        (("-6", "shell", "etcd1"), 1, "etcd1 has no IPv6 address"),
        (("shell", "svc/nginx:80"), 1, "svc/nginx has no IPv4 address (want one of a Service's pods"),
    ],
)
def test_what_has_no_such_address_is_refused_in_one_line(
    vxlan: Lab, words: tuple[str, ...], code: int, says: str
) -> None:
    answer = vxlan.testbed("trace", *words)
    assert (answer.code, answer.err.count("\n")) == (code, 1)
    assert says in answer.err


@pytest.mark.slow
@pytest.mark.usefixtures("_as_root")
@pytest.mark.parametrize("backend", ["host-gw", "wireguard"])
def test_other_backends_show_their_own_path(backend: str) -> None:
    skip_without(backend)
    with lab_of("dual_stack", "--backend", backend) as lab:
        for destination in ("echo", "echo:8080"):
            trace = lab.json("trace", "-6", "shell", destination)
            assert way(trace, "request") + way(trace, "reply") == there(backend) + back(backend)
            outer = hop_at(trace, "node1", "node1-eth0")["outer"]
            assert (outer is None) == (backend == "host-gw")
            assert outer is None or (outer["src"], outer["dst"], outer["dport"]) == (
                "fd00:8::227",
                "fd00:8::228",
                51821,
            )
