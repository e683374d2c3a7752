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
OURS = """table bridge testbed-guard { # handle 7
	chain from-pods { # handle 1
		iifname @ports ip saddr != @allowed counter packets 0 bytes 0 drop comment "a pod's own address" # handle 6
		iifname @ports ip6 saddr != @allowed6 counter packets 4 bytes 304 drop comment "its own IPv6" # handle 8
	}
}
table ip testbed-services { # handle 9
	chain refuse { # handle 1
		reject with tcp reset # handle 16
		drop # handle 18
	}
}
"""
FAULT = """table inet testbed-fault-1 { # handle 9
	chain in { # handle 1
		ip saddr 192.168.8.2 counter packets 9 bytes 900 drop # handle 2
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
    """Return a bundle of two nodes; values that are no text become JSON."""

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


def test_agent_without_peers_pod_that_is_not_ready_and_sick_etcd_are_named() -> None:
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
        "node node1: forwarding table: missing 10.0.2.0/24 of node2 (nodes/node1/agent-state.json)",
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


def test_rules_of_the_lab_and_rules_that_have_dropped_nothing_are_not_named() -> None:
    files = healthy()
    files["nodes/node1/nft.txt"] += OURS + DROP.replace("packets 7", "packets 0")
    assert found_in(files) == []


def test_a_guard_of_the_lab_that_has_dropped_packets_comes_behind_other_causes() -> None:
    files = healthy()
    files["nodes/node1/nft.txt"] += OURS.replace("packets 0", "packets 3") + DROP
    assert [line.split(" has: ")[0] for line in found_in(files)] == [
        "node node1: table inet mine",
        "node node1: table bridge testbed-guard",
    ]


def test_a_rule_that_does_not_count_is_named_behind_what_is_certain() -> None:
    files = healthy()
    files["nodes/node1/nft.txt"] += DROP.replace("counter packets 7 bytes 700 ", "")
    files["pods/a/routes.txt"] = "# ip route\n10.0.1.0/24 dev eth0\n"
    assert [line.split(":")[0] for line in found_in(files)] == ["pod a", "node node1"]


def test_a_fault_that_is_on_comes_first_and_its_rules_are_not_named_again() -> None:
    files = healthy()
    fault = {"number": 1, "fault": "partition node1 / node2", "did": "nftables drops", "on": True}
    files |= {"faults.json": [fault], "nodes/node1/nft.txt": NFT + FAULT}
    assert found_in(files) == ["active fault 1: partition node1 / node2: nftables drops (faults.json)"]
    files["faults.json"] = []
    assert [line.split(" has: ")[0] for line in found_in(files)] == ["node node1: table inet testbed-fault-1"]


def test_causes_come_before_what_follows_from_them() -> None:
    files = healthy()
    files["nodes/node2/nft.txt"] = DROP
    files["status.json"]["pods"][0] |= {"state": "Running", "ready": False}
    files["status.json"]["nodes"][0]["agent"] = {"state": "not ready", "restarts": 0}
    assert [line.split(":")[0] for line in found_in(files)] == [
        "node node2",
        "node node1",
        "pod a on node1 is Running, not ready",
    ]


def test_routes_that_lose_packets_and_odd_routing_rules_are_named() -> None:
    files = healthy()
    files["nodes/node1/routes.txt"] = "# ip route\ndefault via 10.9.9.9 dev eth0\nblackhole 192.168.8.11 \n"
    files["nodes/node2/routing-policy.txt"] = (
        "# ip rule\n0:\tfrom all lookup local\n100:\tfrom all to 10.0.1.0/24 lookup 77\n32766:\tfrom all lookup main\n"
    )
    assert found_in(files) == [
        "node node1: a route drops packets: blackhole 192.168.8.11 (nodes/node1/routes.txt)",
        "node node2: a routing rule comes before the main table: 100: from all to 10.0.1.0/24 lookup 77"
        " (nodes/node2/routing-policy.txt)",
    ]


def test_a_pods_frames_that_go_elsewhere_and_a_service_without_pods_are_named() -> None:
    files = healthy()
    files["pods/a/addresses.txt"] = (
        "# ip address\n2: eth0@if7: <BROADCAST,UP,LOWER_UP> mtu 1472\n    link/ether 0a:58:0a:00:01:02 brd ff:ff\n"
        "    inet 10.0.1.2/24 brd 10.0.1.255 scope global eth0\n"
    )
    line = "10.0.1.2 dev docker0 lladdr {} PERMANENT \n10.0.1.9 dev docker0 lladdr 02:00:00:00:00:09 REACHABLE\n"
    services = [("web", 0), ("backend", 2)]
    files["nodes/node1/neighbours.txt"] = line.format("0a:58:0a:00:01:02")
    assert found_in(files) == []
    files["nodes/node1/neighbours.txt"] = line.format("02:00:5e:00:53:01")
    files["get/services.json"] = [
        {"metadata": {"name": name}, "testbed": {"readyEndpoints": ready}} for name, ready in services
    ]
    assert found_in(files) == [
        "node node1: frames for 10.0.1.2 go to 02:00:5e:00:53:01, pod a has 0a:58:0a:00:01:02"
        " (nodes/node1/neighbours.txt)",
        "service web: no ready pod is behind it (get/endpoints.json)",
    ]


def test_a_switch_port_that_is_narrower_than_the_others_is_named() -> None:
    files = healthy()
    port = "{}: s1-eth{}@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu {} qdisc noqueue master s1 state UP\n    link/ether"
    files["switches.txt"] = "\n".join(["# ip link", port.format(4, 1, 1500), port.format(5, 2, 1400), "s1 bridge"])
    assert found_in(files) == ["switches: s1-eth2 has an MTU of 1400, others 1500 (switches.txt)"]
    files["switches.txt"] = files["switches.txt"].replace("1400", "1500")
    assert found_in(files) == []


def test_a_bridge_without_pods_has_no_carrier_and_is_not_named() -> None:
    files = healthy()
    bridge = (
        "5: docker0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1472 state DOWN\n    link/ether\n    bridge forward_delay"
    )
    port = "6: vetha@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1472 master docker0"
    files["nodes/node1/links.txt"] = LINKS + bridge
    assert found_in(files) == []
    files["nodes/node1/links.txt"] = LINKS + bridge + "\n" + port
    assert found_in(files) == ["nodes/node1: docker0 has no carrier (nodes/node1/links.txt)"]


def test_ipv6_routes_and_a_backend_that_connects_no_nodes_are_no_findings() -> None:
    files = healthy()
    table = files["get/routes.json"][0]["status"]
    table["kernel"] += [{"destination": "fd00:a::/64", "type": "unicast"}, {"destination": "::/0", "type": "unicast"}]
    assert found_in(files) == []
    table["kernel"] = [{"destination": "10.0.1.0/24", "type": "unicast"}]
    table["forwarding"] = []
    for node in files["status.json"]["nodes"]:
        node["peers"] = {"known": 0, "expected": 0}
    assert found_in(files) == []


def test_agents_drops_are_listed_by_reason() -> None:
    files = healthy()
    files["nodes/node1/agent-state.json"] = (
        '{"counters": {"drops": {"ttl": 0, "peer": 3, "no_route": 1, "device_tx": 5}}}'
    )
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
