"""What stands out in a bundle: each known trouble is pointed at, and a healthy lab has none."""

import json
from typing import Any

import pytest

from testbed.testing.bundle_findings import findings

NFT = """# nft -a list ruleset
table ip overlay-agent { # handle 1
	chain forward { # handle 2
		type filter hook forward priority filter; policy accept;
		ip saddr 10.0.0.0/16 accept comment "from pods" # handle 8
	}
}
"""
DROP = """table inet mine { # handle 4
	chain input { # handle 1
		type filter hook input priority filter; policy accept;
		udp dport 8285 counter packets 7 bytes 700 drop # handle 2
	}
}
"""
LINKS = """# ip link
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536
    link/loopback 00:00:00:00:00:00
2: node1-eth0@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
"""
POD_ROUTES = "# ip route\ndefault via 10.0.1.1 dev eth0\n10.0.1.0/24 dev eth0\n"


def healthy() -> dict[str, Any]:
    """A bundle of two nodes; values that are no text become JSON."""

    def node(name: str) -> dict[str, Any]:
        agent = {"state": "ready", "restarts": 0}
        return {"name": name, "agent": agent, "peers": {"known": 1, "expected": 1}}

    def route(destination: str, kind: str = "unicast") -> dict[str, str]:
        return {"destination": destination, "type": kind}

    kernel = [route("0.0.0.0/0"), route("10.0.0.0/16"), route("10.0.0.0/16", "unreachable")]
    return {
        "status.json": {
            "nodes": [node("node1"), node("node2")],
            "pods": [{"name": "a", "node": "node1", "state": "Running", "ready": True}],
            "etcd": [{"name": "etcd1", "healthy": True}],
        },
        "get/leases.json": [
            {"spec": {"subnet": "10.0.1.0/24", "node": "node1"}},
            {"spec": {"subnet": "10.0.2.0/24", "node": "node2"}},
        ],
        "get/routes.json": [
            {"metadata": {"name": "node1"}, "status": {"kernel": kernel, "forwarding": [{"subnet": "10.0.2.0/24"}]}}
        ],
        "pods/a/routes.txt": POD_ROUTES,
        "nodes/node1/nft.txt": NFT,
        "nodes/node1/links.txt": LINKS,
        "nodes/node1/agent.log": "starting\ncannot bind port 8285\n",
        "nodes/node1/agent-state.json": '# curl\n{"counters": {"drops": {"ttl": 0}}}\n',
    }


def found_in(files: dict[str, Any]) -> list[str]:
    return findings({name: text if isinstance(text, str) else json.dumps(text) for name, text in files.items()})


def test_healthy_lab_has_nothing_that_stands_out() -> None:
    assert found_in(healthy()) == []


def test_agent_that_is_not_ready_is_named_with_the_end_of_its_log() -> None:
    files = healthy()
    files["status.json"]["nodes"][0]["agent"] = {"state": "backoff", "restarts": 4}
    assert found_in(files) == ["node node1: agent is backoff, 4 restarts; its log ends: cannot bind port 8285"]


def test_agent_that_lacks_peers_pod_that_is_not_ready_and_sick_etcd_are_named() -> None:
    files = healthy()
    files["status.json"]["nodes"][1]["peers"]["known"] = 0
    files["status.json"]["pods"][0] |= {"state": "CrashLoopBackOff", "ready": False}
    files["status.json"]["etcd"][0]["healthy"] = False
    assert [line.split()[0] for line in found_in(files)] == ["etcd", "node", "pod"]


def test_missing_route_and_missing_forwarding_entry_are_named() -> None:
    files = healthy()
    table = files["get/routes.json"][0]["status"]
    table["kernel"] = [table["kernel"][0], table["kernel"][2]]
    table["forwarding"] = []
    assert found_in(files) == [
        "node node1: no route to 10.0.1.0/24 of node1 (nodes/node1/routes.txt)",
        "node node1: no route to 10.0.2.0/24 of node2 (nodes/node1/routes.txt)",
        "node node1: forwarding table lacks 10.0.2.0/24 of node2 (nodes/node1/agent-state.json)",
    ]


def test_pod_without_a_default_route_is_named() -> None:
    files = healthy()
    files["pods/a/routes.txt"] = "# ip route\n10.0.1.0/24 dev eth0\n"
    assert found_in(files) == ["pod a: no default route (pods/a/routes.txt)"]


def test_rule_that_drops_is_quoted_with_its_table_and_counter() -> None:
    files = healthy()
    files["nodes/node1/nft.txt"] += DROP
    assert found_in(files) == [
        "node node1: table inet mine has: udp dport 8285 counter packets 7 bytes 700 drop (nodes/node1/nft.txt)"
    ]


def test_agents_drops_are_listed_by_reason() -> None:
    files = healthy()
    files["nodes/node1/agent-state.json"] = '{"counters": {"drops": {"ttl": 0, "peer": 3}}}'
    assert found_in(files) == ["node node1: packets dropped by the agent: peer 3 (nodes/node1/agent-state.json)"]


@pytest.mark.parametrize(
    ("flags", "what"), [("BROADCAST,MULTICAST", "is down"), ("NO-CARRIER,BROADCAST,UP", "has no carrier")]
)
def test_link_that_is_down_is_named(flags: str, what: str) -> None:
    files = healthy()
    files["nodes/node1/links.txt"] = LINKS.replace("BROADCAST,MULTICAST,UP,LOWER_UP", flags)
    assert found_in(files) == [f"nodes/node1: node1-eth0 {what} (nodes/node1/links.txt)"]


def test_drop_device_has_no_carrier_and_is_not_named_unless_it_is_down() -> None:
    files = healthy()
    line = "9: overlay-drop0: <{},POINTOPOINT,MULTICAST,NOARP> mtu 1472 qdisc noop state DOWN"
    files["nodes/node1/links.txt"] = "\n".join([LINKS, line.format("NO-CARRIER,UP")])
    assert found_in(files) == []
    files["nodes/node1/links.txt"] = "\n".join([LINKS, line.format("BROADCAST")])
    assert found_in(files) == ["nodes/node1: overlay-drop0 is down (nodes/node1/links.txt)"]


def test_missing_and_broken_files_are_passed_over() -> None:
    assert found_in({}) == []
    assert found_in({"status.json": "# could not be had: the lab ended\n", "get/routes.json": "{"}) == []
