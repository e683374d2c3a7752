"""From wiring to ports, routes, neighbours and queues: pure values, checked without a kernel."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from testbed.cluster.addresses import UnderlayFull, plan_addresses, split, split_ipv6
from testbed.cluster.capacity import (
    available_mib,
    most_nodes,
    needed_mib,
    needed_room_mib,
    room_mib,
    too_big,
    too_little_room,
)
from testbed.cluster.shaping import missing_features, queueing_commands
from testbed.cluster.topology import build, topology_class
from testbed.cluster.underlay_plan import MachinePlan, plan_underlay
from testbed.cluster.wiring import Cable, Shaping, Wiring


def machines(wiring: Wiring, cidr: str) -> dict[str, MachinePlan]:
    addresses = plan_addresses(IPv4Network(cidr), None, 1, dict.fromkeys(wiring.nodes), wiring)
    return dict(plan_underlay(wiring, addresses, 1500).machines)


def routes(machine: MachinePlan) -> dict[str, str]:
    """Return gateways by destination."""
    return {str(route.destination): str(route.gateway) for route, _ in machine.routes}


WAN = build(topology_class("wan"), {"sites": 2, "hosts": 2})
CHAIN = Wiring(
    ("a", "b", "c"),
    ("s1", "s2", "s3"),
    tuple(
        Cable(*ends)
        for ends in (("a", "s1"), ("b", "s2"), ("c", "s3"), ("r1", "s1"), ("r1", "s2"), ("r2", "s2"), ("r2", "s3"))
    ),
    ("r1", "r2"),
)


def test_in_one_segment_everybody_knows_everybody_and_the_gateway_has_the_rest() -> None:
    found = machines(build(topology_class("tree"), {}), "192.168.8.0/24")
    assert list(found) == ["node1", "node2", "node3", "node4", "etcd1", "gw"]
    assert {one.name for one in found["node1"].neighbours} == {"node2", "node3", "node4", "etcd1", "gw"}
    assert routes(found["node1"]) == routes(found["etcd1"]) == {"0.0.0.0/0": "192.168.8.10"}
    assert routes(found["gw"]) == {}


def test_on_a_wan_each_site_has_its_subnet_and_its_router_as_default() -> None:
    found = machines(WAN, "192.168.8.0/23")
    assert [str(port.address) for port in found["r1"].ports] == ["192.168.8.1/24", "192.168.9.1/24"]
    assert [str(found[f"node{number}"].ports[0].address) for number in (1, 2, 3, 4)] == [
        "192.168.8.101/24",
        "192.168.8.102/24",
        "192.168.9.101/24",
        "192.168.9.102/24",
    ]
    assert routes(found["node1"]) == routes(found["etcd1"]) == {"0.0.0.0/0": "192.168.8.1"}
    assert routes(found["node3"]) == {"0.0.0.0/0": "192.168.9.1"}
    assert routes(found["r1"]) == {"0.0.0.0/0": "192.168.8.10"}
    assert routes(found["gw"]) == {"192.168.9.0/24": "192.168.8.1"}
    assert {one.name for one in found["node3"].neighbours} == {"node4", "r1"}
    assert found["r1"].forwards
    assert not found["node1"].forwards


def test_through_two_routers_each_machine_is_reached_on_the_right_path() -> None:
    found = machines(CHAIN, "10.9.0.0/16")
    a, b, c = (found[name].ports[0].address.network for name in "abc")
    r1_in_a, r1_in_b = found["r1"].ports[0].address.ip, found["r1"].ports[1].address.ip
    r2_in_b, r2_in_c = (port.address.ip for port in found["r2"].ports)
    assert routes(found["b"]) == {"0.0.0.0/0": str(r1_in_b), str(c): str(r2_in_b)}
    assert routes(found["c"]) == {"0.0.0.0/0": str(r2_in_c)}
    assert routes(found["r1"]) == {"0.0.0.0/0": "10.9.0.10", str(c): str(r2_in_b)}
    assert routes(found["r2"]) == {"0.0.0.0/0": str(r1_in_b)}
    assert routes(found["gw"]) == {str(b): str(r1_in_a), str(c): str(r1_in_a)}
    assert a != b != c


def test_a_range_is_split_into_equal_parts_that_hold_hosts() -> None:
    assert [str(part) for part in split(IPv4Network("10.0.0.0/22"), 3)] == ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]
    with pytest.raises(UnderlayFull):
        split(IPv4Network("10.0.0.0/29"), 3)


def test_gateway_and_etcd_are_plugged_into_the_first_switch_last() -> None:
    addresses = plan_addresses(IPv4Network("192.168.8.0/23"), None, 3, dict.fromkeys(WAN.nodes), WAN)
    plan = plan_underlay(WAN, addresses, 1500)
    assert [str(cable) for cable in plan.cables[-4:]] == ["etcd1 - s1", "etcd2 - s1", "etcd3 - s1", "gw - s1"]


# Shaping


@pytest.mark.parametrize(
    ("shaping", "commands"),
    [
        (Shaping(), []),
        (Shaping(bandwidth=10), ["root handle 1: tbf rate 10mbit burst 15140 latency 50ms"]),
        (Shaping(bandwidth=1000), ["root handle 1: tbf rate 1000mbit burst 500000 latency 50ms"]),
        (Shaping(bandwidth=0.5, max_queue_size=10), ["root handle 1: tbf rate 0.5mbit burst 15140 limit 30280"]),
        (Shaping(delay="10ms"), ["root handle 10: netem delay 10ms"]),
        (Shaping(max_queue_size=5), ["root handle 10: pfifo limit 5"]),
        (
            Shaping(bandwidth=10, delay="10ms", jitter="1ms", loss=0.5, max_queue_size=100),
            [
                "root handle 1: tbf rate 10mbit burst 15140 limit 166540",
                "parent 1:1 handle 10: netem limit 100 delay 10ms 1ms loss 0.5%",
            ],
        ),
    ],
)
def test_shaping_is_these_tc_commands(shaping: Shaping, commands: list[str]) -> None:
    found = [" ".join(command) for command in queueing_commands("s1-eth1", shaping)]
    assert found == [f"tc qdisc replace dev s1-eth1 {rest}" for rest in commands]


def test_a_missing_kernel_feature_is_reported_once_with_its_purpose() -> None:
    cables = (
        Cable("a", "s1", Shaping(bandwidth=10, delay="1ms", loss=1)),
        Cable("b", "s1", Shaping(jitter="1ms", delay="1ms")),
    )
    tried: list[Sequence[str]] = []

    def attempt(command: Sequence[str]) -> str:
        tried.append(command)
        return "unknown" if "netem" in command else ""

    (line,) = missing_features(Wiring(("a", "b"), ("s1",), cables), attempt)
    assert line.startswith(
        "environment: kernel: netem (got unknown; want a kernel with netem, for delay, loss of a - s1"
    )
    assert "of a - s1 and 1 more: " in line
    assert len(tried) == 2


# Capacity


def test_a_lab_that_does_not_fit_is_refused_with_the_limit() -> None:
    assert too_big(9, 18, 2000) is None
    line = too_big(500, 1000, 8000) or ""
    assert line.startswith("environment: more nodes than this machine holds (got 500 nodes and 1000 pods, about ")
    limit = most_nodes(8000, 2)
    assert f"want at most {limit} nodes" in line
    assert too_big(limit, 2 * limit, 8000) is None
    assert too_big(limit + 1, 2 * limit + 2, 8000) is not None
    assert needed_mib(1, 0) < needed_mib(1, 1) < needed_mib(2, 1) < needed_mib(2, 1, 3)


def test_too_little_space_for_records_is_reported_with_the_need(tmp_path: Path) -> None:
    assert needed_room_mib(2, 4) < needed_room_mib(100, 200) < 200
    free, size = room_mib(tmp_path / "not" / "there" / "yet")
    assert 0 < free <= size
    assert too_little_room(tmp_path, free // 2) is None
    line = too_little_room(tmp_path, 2 * size) or ""
    assert line.startswith(f"environment: too little room in {tmp_path} (got ")
    assert " are free; a lab's records and logs need " in line


def test_a_control_group_s_limit_counts_where_it_is_smaller(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000000 kB\nMemAvailable: 4194304 kB\n")
    assert available_mib(meminfo, tmp_path) == 4096
    (tmp_path / "memory.current").write_text(f"{100 << 20}\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_mib(meminfo, tmp_path) == 4096
    (tmp_path / "memory.max").write_text(f"{1100 << 20}\n")
    assert available_mib(meminfo, tmp_path) == 1000


def test_ipv6_goes_beside_ipv4_with_the_same_numbers_and_routers_between_segments() -> None:
    addresses = plan_addresses(
        IPv4Network("192.168.8.0/23"), None, 3, dict.fromkeys(WAN.nodes), WAN, IPv6Network("fd00:8::/48")
    )
    machines = plan_underlay(WAN, addresses, 1500).machines
    for name, machine in machines.items():
        for port in machine.ports:
            if name.startswith("etcd"):
                assert port.ipv6 is None, "nothing that pods send by IPv6 can reach etcd"
                continue
            assert port.ipv6 is not None
            segment = IPv6Network((int(IPv6Network("fd00:8::/64").network_address) + (port.segment << 64), 64))
            assert port.ipv6.network == segment
            number = int(port.address.ip) - int(port.address.network.network_address)
            assert str(port.ipv6.ip) == f"{segment.network_address}{number}"
        # Whatever there is a way to by IPv4 has one by IPv6 through the same machine.
        if not name.startswith("etcd"):
            ways = [(route.device, route.destination.prefixlen == 0) for route, _ in machine.routes]
            assert sorted(ways) == sorted(2 * ways[::2])


def test_a_range_without_room_for_every_segment_is_refused() -> None:
    with pytest.raises(UnderlayFull, match="2 IPv6 subnets"):
        split_ipv6(IPv6Network("fd00:8::/64"), 2)
    assert split_ipv6(IPv6Network("fd00:8::/63"), 2)[1] == IPv6Network("fd00:8:0:1::/64")
