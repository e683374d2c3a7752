"""The pods' bridge: which one is ours, and which may be used."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface

import pytest

from agent.kernel.bridge import BridgeClaim, FoundDevice, bridge_mac, objection
from agent.kernel.values import IPInterface, Link

NETWORK = IPv4Network("10.0.0.0/16")
CLAIM = BridgeClaim((NETWORK,))
GATEWAY, OTHER_GATEWAY = IPv4Interface("10.0.46.1/24"), IPv4Interface("10.0.90.1/24")
DOCKERS = IPv4Interface("172.17.0.1/16")
OUR_MAC, RANDOM_MAC = bridge_mac(GATEWAY.ip), "02:42:d5:f9:2c:3a"
ALIAS = "made by overlay-agent for 10.0.0.0/16"


def found(*addresses: IPInterface, mac: str = RANDOM_MAC, alias: str = "", ports: int = 0) -> FoundDevice:
    return FoundDevice(link("bridge", mac, alias), frozenset(addresses), ports)


def link(kind: str, mac: str, alias: str = "") -> Link:
    return Link("docker0", 7, kind, 1500, mac, frozenset(), 0, alias=alias)


def wanted(address: IPInterface) -> bool:
    return address == GATEWAY


def in_network(address: IPInterface) -> bool:
    return address.ip in NETWORK


def test_mac_follows_from_the_address_as_docker_has_it() -> None:
    assert bridge_mac(IPv4Address("10.0.46.1")) == "02:42:0a:00:2e:01"


@pytest.mark.parametrize(
    ("device", "ours"),
    [
        (found(GATEWAY, mac=OUR_MAC), True),
        (found(GATEWAY, mac=OUR_MAC, ports=3), True),
        (found(DOCKERS, alias=ALIAS), True),
        (found(alias=ALIAS), True),
        (found(GATEWAY), False),
        (found(DOCKERS, mac=bridge_mac(DOCKERS.ip)), False),
        (found(OTHER_GATEWAY, mac=OUR_MAC), False),
        (found(alias="made by overlay-agent for 10.9.0.0/16"), False),
        (found(alias="pods"), False),
        (FoundDevice(link("veth", OUR_MAC, ALIAS), frozenset([GATEWAY])), False),
    ],
)
def test_a_bridge_of_ours_is_known_by_its_alias_or_by_a_mac_that_follows_from_its_address(
    device: FoundDevice, *, ours: bool
) -> None:
    assert device.made_by_us(CLAIM) is ours


def test_what_an_earlier_run_wrote_down_makes_a_bridge_ours() -> None:
    flushed = found(mac=OUR_MAC, ports=1)
    assert not flushed.made_by_us(CLAIM)
    assert flushed.made_by_us(BridgeClaim((NETWORK,), (GATEWAY.ip,)))
    before = BridgeClaim((IPv4Network("10.9.0.0/16"), NETWORK))
    assert found(GATEWAY, mac=OUR_MAC).made_by_us(before), "the pod network is another since"
    assert found(alias=ALIAS).made_by_us(before)
    assert before.alias == "made by overlay-agent for 10.9.0.0/16"


def test_cleanup_knows_agents_bridges_of_any_network() -> None:
    assert found(alias="made by overlay-agent for 10.9.0.0/16", ports=1).made_by_an_agent()
    assert found(DOCKERS, mac=bridge_mac(DOCKERS.ip)).made_by_an_agent()
    assert not found(DOCKERS, GATEWAY, ports=1).made_by_an_agent()
    assert not FoundDevice(link("veth", OUR_MAC, ALIAS)).made_by_an_agent()


@pytest.mark.parametrize(
    "device",
    [
        found(DOCKERS),
        found(DOCKERS, ports=1),
        found(ports=1),
        found(IPv6Interface("fd00:17::1/64")),
        found(IPv4Interface("10.0.46.1/16")),
        found(OTHER_GATEWAY, alias="made by overlay-agent for 10.9.0.0/16"),
    ],
)
def test_a_bridge_with_ports_or_another_address_is_refused(device: FoundDevice) -> None:
    complaint = objection("docker0", device, CLAIM, wanted)
    assert complaint is not None
    assert complaint.startswith(f"--bridge: docker0 belongs to another program (got {device}; want ")
    assert "another --bridge=NAME" in complaint


@pytest.mark.parametrize("device", [None, found(), found(GATEWAY), found(GATEWAY, DOCKERS, ports=2)])
def test_a_bridge_with_our_address_or_nothing_on_it_is_used(device: FoundDevice | None) -> None:
    assert objection("docker0", device, CLAIM, wanted) is None


def test_before_the_lease_any_address_of_the_pod_network_will_do() -> None:
    """dockerd made it by our docker_opts.env; whether it is of this lease is seen later."""
    assert objection("docker0", found(OTHER_GATEWAY, ports=1), CLAIM, in_network) is None
    assert objection("docker0", found(DOCKERS), CLAIM, in_network) is not None


@pytest.mark.parametrize(("kind", "named"), [("", "hardware"), ("veth", "veth")])
def test_a_device_that_is_no_bridge_is_named(kind: str, named: str) -> None:
    complaint = objection("eth0", FoundDevice(link(kind, OUR_MAC)), CLAIM, wanted)
    assert complaint == f"--bridge: eth0 is not a bridge (got a {named} device; want another --bridge=NAME)"


def test_findings_are_reported_as_text() -> None:
    assert str(found(DOCKERS, ports=1)) == "172.17.0.1/16, 1 port"
    assert str(found(ports=2, alias="pods")) == '"pods", 2 ports'
    assert str(found()) == "nothing on it"
