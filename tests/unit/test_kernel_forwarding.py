"""Where a kernel's tables send packets for other nodes' subnets."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from agent.kernel.values import Route
from testbed.lab.kernel_forwarding import KernelTables, Passage, VxlanTables, passages

SUBNET, GATEWAY, NODE = IPv4Network("10.0.90.0/24"), IPv4Address("10.0.90.0"), IPv4Address("192.168.8.228")
MAC, DEVICE = "72:35:50:34:bf:f5", "flannel.1"
DEFAULT = Route(IPv4Network("0.0.0.0/0"), "eth0", IPv4Address("192.168.8.10"))
LAST_RESORT = Route(IPv4Network("10.0.0.0/16"), None, metric=4278198272, kind="unreachable")
OVER_VXLAN = Route(SUBNET, DEVICE, GATEWAY, onlink=True)
WHOLE = VxlanTables({GATEWAY: MAC}, {MAC: NODE})


def passage(*routes: Route, vxlan: VxlanTables = WHOLE) -> Passage:
    (found,) = passages([SUBNET], KernelTables(frozenset((DEFAULT, *routes)), {DEVICE: vxlan}))
    return found


@pytest.mark.parametrize(
    ("route", "via"),
    [
        (OVER_VXLAN, str(NODE)),
        (Route(SUBNET, "eth0", NODE), str(NODE)),
        (Route(SUBNET, "flannel.ipip", NODE, onlink=True), str(NODE)),
        (Route(IPv4Network("10.0.0.0/16"), "flannel0"), None),
    ],
)
def test_a_subnet_is_sent_to_a_node_or_into_a_device_that_only_its_agent_sees_behind(
    route: Route, via: str | None
) -> None:
    assert passage(route) == Passage(str(SUBNET), via)
    assert passage(route, LAST_RESORT) == Passage(str(SUBNET), via)


@pytest.mark.parametrize(
    ("routes", "vxlan", "problem"),
    [
        ((), WHOLE, "no route to 10.0.90.0/24"),
        ((LAST_RESORT,), WHOLE, "no route to 10.0.90.0/24"),
        ((Route(IPv4Network("10.0.90.128/25"), "eth0", NODE),), WHOLE, "no route to 10.0.90.0/24"),
        ((OVER_VXLAN,), VxlanTables({}, {MAC: NODE}), "no neighbour entry for 10.0.90.0 on flannel.1"),
        ((OVER_VXLAN,), VxlanTables({GATEWAY: MAC}, {}), f"no forwarding entry for {MAC} on flannel.1"),
    ],
)
def test_missing_parts_are_named(routes: tuple[Route, ...], vxlan: VxlanTables, problem: str) -> None:
    assert passage(*routes, vxlan=vxlan) == Passage(str(SUBNET), problem=problem)


def test_ipv6_has_routes_of_its_own() -> None:
    subnet, node = IPv6Network("fd00:a:0:90::/64"), IPv6Address("fd00:8::228")
    tables = KernelTables(frozenset({DEFAULT, OVER_VXLAN, Route(subnet, "eth0", node)}), {})
    assert passages([subnet], tables) == [Passage(str(subnet), str(node))]
