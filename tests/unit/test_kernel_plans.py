"""What the kernel backends want for a peer, as values: no kernel is asked."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from agent.backends.base import Underlay
from agent.backends.host_gw import HostGatewayPlan
from agent.backends.kernel_backend import KernelBackend
from agent.backends.subnet_routes import direct_device, is_subnet_route, unreachable_route
from agent.backends.vxlan import random_mac, vtep_mac
from agent.errors import EnvironmentMissing
from agent.kernel.kernel import Kernel
from agent.kernel.values import Route
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.config import parse_network_config

NETWORK = IPv4Network("10.0.0.0/16")
PEER_SUBNET = IPv4Network("10.0.90.0/24")
PEER_IP = IPv4Address("192.168.8.228")
UNDERLAY = Underlay("eth0", IPv4Address("192.168.8.227"), 1500, IPv4Address("192.168.8.227"))
PEER = Lease(Subnet(PEER_SUBNET), LeaseAttrs(PEER_IP, backend_type="host-gw"), 1, 1)
CONNECTED = Route(IPv4Network("192.168.8.0/24"), "eth0", scope="link", protocol="kernel")
DEFAULT = Route(IPv4Network("0.0.0.0/0"), "eth0", gateway=IPv4Address("192.168.8.10"))


def test_host_gw_wants_one_plain_route_for_a_peer() -> None:
    (entry,) = HostGatewayPlan(UNDERLAY).peer_entries(PEER, ())
    assert entry.route == Route(PEER_SUBNET, "eth0", gateway=PEER_IP)
    assert (entry.hop, entry.via) == (None, "192.168.8.228")


def test_a_lease_of_another_backend_is_reported_once_and_again_when_it_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = parse_network_config(b'{"Network":"10.0.0.0/16","Backend":{"Type":"host-gw"}}')
    backend = KernelBackend(HostGatewayPlan(UNDERLAY), config, UNDERLAY, cast("Kernel", None))
    other = replace(PEER, attrs=replace(PEER.attrs, backend_type="vxlan"))
    warning = "lease 10.0.90.0/24 of 192.168.8.228 ignored: of backend type vxlan"
    steps: list[tuple[list[Lease], int]] = [([other], 1), ([other], 1), ([], 1), ([other], 2)]
    for leases, warnings in steps:
        backend.set_peers(leases)
        assert caplog.messages == [warning] * warnings


def test_host_gw_refuses_a_public_address_that_is_not_the_interfaces() -> None:
    behind_nat = Underlay("eth0", UNDERLAY.address, 1500, IPv4Address("203.0.113.7"))
    with pytest.raises(EnvironmentMissing, match=r"--public-ip: host-gw .*got 203\.0\.113\.7; want 192\.168\.8\.227"):
        HostGatewayPlan(behind_nat)


@pytest.mark.parametrize(
    ("address", "device"),
    [("192.168.8.228", "eth0"), ("192.168.9.1", None), ("192.168.8.200", None)],
)
def test_direct_is_what_the_longest_prefix_reaches_without_a_gateway(address: str, device: str | None) -> None:
    detour = Route(IPv4Network("192.168.8.200/32"), "eth0", gateway=IPv4Address("192.168.8.10"))
    assert direct_device(IPv4Address(address), [DEFAULT, CONNECTED, detour]) == device


@pytest.mark.parametrize(
    ("route", "ours"),
    [
        (Route(PEER_SUBNET, "eth0", gateway=PEER_IP), True),
        (Route(PEER_SUBNET, "flannel.1", gateway=PEER_SUBNET.network_address, onlink=True), True),
        (Route(PEER_SUBNET, "eth1", gateway=PEER_IP), False),
        (Route(PEER_SUBNET, "eth0", gateway=PEER_IP, protocol="static"), False),
        (Route(PEER_SUBNET, "eth0", gateway=PEER_IP, metric=100), False),
        (Route(PEER_SUBNET, "eth0"), False),
        (Route(IPv4Network("10.0.90.0/25"), "eth0", gateway=PEER_IP), False),
        (Route(IPv4Network("10.1.90.0/24"), "eth0", gateway=PEER_IP), False),
        (unreachable_route(NETWORK), False),
        (DEFAULT, False),
    ],
)
def test_only_routes_that_an_agent_makes_are_taken_for_ours(route: Route, ours: bool) -> None:
    assert is_subnet_route(route, NETWORK, 24, {"eth0", "flannel.1"}) is ours


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        "x",
        {"VtepMAC": 5},
        {"VtepMAC": "02:00"},
        {"VtepMAC": "01:00:00:00:00:01"},
        {"VtepMAC": "00:00:00:00:00:00"},
    ],
)
def test_a_peer_without_a_unicast_mac_is_ignored(data: object) -> None:
    with pytest.raises(ValueError, match="VtepMAC"):
        vtep_mac(data)


def test_a_mac_is_read_in_any_case() -> None:
    assert vtep_mac({"VNI": 1, "vtepmac": "C6:D2:32:6F:8F:44"}) == "c6:d2:32:6f:8f:44"


def test_a_new_mac_is_local_and_unicast() -> None:
    for seed in range(50):
        assert int(random_mac(random.Random(seed))[:2], 16) & 3 == 2
