"""From what a namespace has to what is wanted, as the commands in their order: no kernel is asked."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

import pytest

from agent.errors import NetlinkError
from agent.kernel.bridge import wanted_bridge, wanted_of_other
from agent.kernel.diff import diff
from agent.kernel.values import (
    ForwardingDatabaseEntry,
    IPAddress,
    Link,
    Route,
    State,
    VethPeer,
    VxlanSettings,
    Wanted,
    WantedAddresses,
    WantedForwarding,
    WantedLink,
    WantedNeighbours,
    WantedRoute,
    WantedSysctl,
)

NETWORK = IPv4Network("10.0.0.0/16")
BRIDGE_MAC = "02:42:0a:00:2e:01"
ALIAS = "made by overlay-agent for 10.0.0.0/16"
BRIDGE = Link("docker0", 5, "bridge", 1472, BRIDGE_MAC, frozenset({"UP", "BROADCAST"}), 0, 1000, alias=ALIAS)
VXLAN = VxlanSettings(1, 2, IPv4Address("192.168.8.227"), 8472)


def commands(wanted: Wanted, state: State) -> list[str]:
    """Return the commands of the changes, in order."""
    return [" ".join(command) for change in diff(wanted, state) for command in change.commands]


def test_a_new_bridge_gets_its_sysctls_and_address_before_it_is_up() -> None:
    assert commands(wanted_bridge("docker0", [IPv4Interface("10.0.46.1/24")], 1472, ALIAS), State()) == [
        "ip link add docker0 mtu 1472 address 02:42:0a:00:2e:01 type bridge",
        f"ip link set docker0 alias {ALIAS}",
        "sysctl -w net/ipv6/conf/docker0/disable_ipv6=1",
        "sysctl -w net/ipv6/conf/docker0/accept_ra=0",
        "sysctl -w net.ipv4.ip_forward=1",
        "ip address add 10.0.46.1/24 brd + dev docker0",
        "ip link set docker0 up",
    ]


def test_correct_state_is_left_alone_but_for_sysctls_that_are_checked_when_written() -> None:
    address = IPv4Interface("10.0.46.1/24")
    state = State({"docker0": BRIDGE}, {("docker0", 4): frozenset({address})})
    wanted = wanted_bridge("docker0", [address], 1472, ALIAS)
    assert all(command.startswith("sysctl") for command in commands(wanted, state))


def test_another_programs_bridge_only_gets_what_is_missing() -> None:
    address, others = IPv4Interface("10.0.46.1/24"), IPv4Interface("172.17.0.1/16")
    theirs = replace(BRIDGE, mtu=1500, mac="02:42:d5:f9:2c:3a", alias="")
    state = State({"docker0": theirs}, {("docker0", 4): frozenset({others})})
    wanted = wanted_of_other("docker0", [address], frozenset({others}))
    assert commands(wanted, state) == [
        "sysctl -w net.ipv4.ip_forward=1",
        "ip address add 10.0.46.1/24 brd + dev docker0",
    ]


def test_everything_that_differs_at_a_link_is_one_request() -> None:
    wanted = Wanted(
        links=(WantedLink("docker0", "x", mtu=1400, mac="02:42:0a:00:2f:01", tx_queue_length=10, up=False),)
    )
    assert commands(wanted, State({"docker0": BRIDGE})) == [
        "ip link set docker0 mtu 1400 txqueuelen 10 address 02:42:0a:00:2f:01 down"
    ]


def test_a_link_that_is_made_is_given_everything_at_once() -> None:
    peer = VethPeer("eth0", 1472, "0a:58:0a:00:2e:02", namespace_pid=77, namespace="nginx")
    link = WantedLink("vethnginx", "x", kind="veth", settings=peer, mtu=1472, master="docker0", hairpin=True, up=True)
    assert commands(Wanted(links=(link,)), State({"docker0": BRIDGE})) == [
        "ip link add vethnginx mtu 1472 master docker0 up type veth peer name eth0 mtu 1472 address 0a:58:0a:00:2e:02 "
        "netns nginx",
        "bridge link set dev vethnginx hairpin on",
    ]


def test_a_port_is_put_on_the_bridge_before_its_hairpin_is_set() -> None:
    port = Link("vethnginx", 9, "veth", 1472, "02:00:00:00:00:09", frozenset({"BROADCAST"}), 0)
    wanted = Wanted(links=(WantedLink("vethnginx", "x", master="docker0", hairpin=True, up=True),))
    assert commands(wanted, State({"docker0": BRIDGE, "vethnginx": port})) == [
        "ip link set vethnginx master docker0 up",
        "bridge link set dev vethnginx hairpin on",
    ]
    on_bridge = replace(port, master=5, hairpin=True, flags=frozenset({"UP"}))
    assert commands(wanted, State({"docker0": BRIDGE, "vethnginx": on_bridge})) == []


def test_a_tunnel_with_other_settings_is_made_again() -> None:
    present = Link("flannel.1", 7, "vxlan", 1450, "02:00:00:00:00:01", frozenset(), 0, settings=replace(VXLAN, vni=2))
    underlay = Link("eth0", 2, "", 1500, "02:00:00:00:00:02", frozenset({"UP"}), 0)
    wanted = Wanted(links=(WantedLink("flannel.1", "x", kind="vxlan", settings=VXLAN, mtu=1450),))
    assert commands(wanted, State({"flannel.1": present, "eth0": underlay})) == [
        "ip link delete flannel.1",
        "ip link add flannel.1 mtu 1450 type vxlan id 1 dev eth0 local 192.168.8.227 dstport 8472 nolearning",
    ]
    same = replace(present, settings=VXLAN)
    assert commands(wanted, State({"flannel.1": same, "eth0": underlay})) == []


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (WantedLink("eth7", "x", up=True), r"^ip link set eth7 up: no device eth7$"),
        (WantedLink("docker0", "x", kind="veth"), r"^docker0: exists and is a bridge \(want none, or a veth device\)$"),
    ],
)
def test_a_link_that_cannot_be_as_configured_is_refused(wanted: WantedLink, said: str) -> None:
    with pytest.raises(NetlinkError, match=said):
        diff(Wanted(links=(wanted,)), State({"docker0": BRIDGE}))


def test_addresses_are_added_before_others_are_deleted_and_secondaries_come_back() -> None:
    first, second, other = map(IPv4Interface, ("10.0.46.1/24", "10.0.46.2/24", "10.0.90.1/24"))
    state = State({"docker0": BRIDGE}, {("docker0", 4): frozenset({first, second})})
    wanted = Wanted(addresses=(WantedAddresses("docker0", frozenset({second, other}), "x"),))
    assert commands(wanted, state) == [
        "ip address add 10.0.90.1/24 brd + dev docker0",
        "ip address delete 10.0.46.1/24 dev docker0",
        # Perhaps it went with its primary: adding it again is harmless.
        "ip address add 10.0.46.2/24 brd + dev docker0",
    ]


def test_an_ipv6_address_is_not_probed_for() -> None:
    wanted = Wanted(addresses=(WantedAddresses("docker0", frozenset({IPv6Interface("fd00::1/64")}), "x", family=6),))
    assert commands(wanted, State({"docker0": BRIDGE})) == ["ip address add fd00::1/64 dev docker0 nodad"]


def test_routes_are_replaced_and_only_named_ones_deleted() -> None:
    ours, old, operators = (
        Route(IPv4Network("10.0.90.0/24"), "eth0", IPv4Address("192.168.8.228")),
        Route(IPv4Network("10.0.91.0/24"), "eth0", IPv4Address("192.168.8.229")),
        Route(IPv4Network("10.0.92.0/24"), "eth0", IPv4Address("192.168.8.230"), metric=5),
    )
    wanted = Wanted(routes=(WantedRoute(ours, "x"),), no_routes={old: "x"})
    assert commands(wanted, State(routes={4: frozenset({old, operators})})) == [
        "ip route replace 10.0.90.0/24 via 192.168.8.228 dev eth0",
        "ip route delete 10.0.91.0/24 via 192.168.8.229 dev eth0",
    ]
    assert commands(wanted, State(routes={4: frozenset({ours, operators})})) == []


def test_an_ipv6_route_by_another_gateway_goes_first() -> None:
    destination = IPv6Network("fd01::/64")
    old, new = (Route(destination, "eth0", IPv6Address(f"fd00::{number}")) for number in (8, 9))
    assert commands(Wanted(routes=(WantedRoute(new, "x"),)), State(routes={6: frozenset({old})})) == [
        "ip route delete fd01::/64 via fd00::8 dev eth0",
        "ip route replace fd01::/64 via fd00::9 dev eth0",
    ]


def test_a_vxlan_peer_is_known_before_packets_are_routed_to_it_and_forgotten_after() -> None:
    device = Link("flannel.1", 7, "vxlan", 1450, "02:00:00:00:00:01", frozenset({"UP"}), 0, settings=VXLAN)
    new_mac, old_mac = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
    new_hop, old_hop = IPv4Address("10.0.90.0"), IPv4Address("10.0.91.0")
    old_route = Route(IPv4Network("10.0.91.0/24"), "flannel.1", old_hop, onlink=True)
    wanted = Wanted(
        neighbours=(WantedNeighbours("flannel.1", {new_hop: new_mac}, "x", no_others="gone"),),
        forwarding=(WantedForwarding("flannel.1", {new_mac: IPv4Address("192.168.8.228")}, "x", no_others="gone"),),
        routes=(WantedRoute(Route(IPv4Network("10.0.90.0/24"), "flannel.1", new_hop, onlink=True), "x"),),
        no_routes={old_route: "gone"},
    )
    state = State(
        {"flannel.1": device},
        routes={4: frozenset({old_route})},
        neighbours={("flannel.1", 4): {old_hop: old_mac}},
        forwarding={"flannel.1": frozenset({ForwardingDatabaseEntry(old_mac, IPv4Address("192.168.8.229"))})},
    )
    assert commands(wanted, state) == [
        "ip neigh replace 10.0.90.0 lladdr 02:00:00:00:00:0a dev flannel.1 nud permanent",
        "bridge fdb replace 02:00:00:00:00:0a dev flannel.1 dst 192.168.8.228 self permanent",
        "ip route replace 10.0.90.0/24 via 10.0.90.0 dev flannel.1 onlink",
        "ip route delete 10.0.91.0/24 via 10.0.91.0 dev flannel.1 onlink",
        "ip neigh delete 10.0.91.0 dev flannel.1",
        "bridge fdb delete 02:00:00:00:00:0b dev flannel.1 dst 192.168.8.229 self",
    ]


def test_foreign_neighbours_are_kept_unless_too_many_are_reported() -> None:
    known: dict[IPAddress, str] = {IPv4Address("10.0.46.9"): "02:00:00:00:00:09"}
    state = State({"docker0": BRIDGE}, neighbours={("docker0", 4): known})
    mine: dict[IPAddress, str] = {IPv4Address("10.0.46.2"): "02:00:00:00:00:02"}
    assert commands(Wanted(neighbours=(WantedNeighbours("docker0", mine, "x"),)), state) == [
        "ip neigh replace 10.0.46.2 lladdr 02:00:00:00:00:02 dev docker0 nud permanent"
    ]


def test_a_link_that_is_left_from_before_is_removed_and_made_in_one_go() -> None:
    left = Link("veth1", 9, "veth", 1400, "02:00:00:00:00:09", frozenset({"UP"}), 0)
    link = WantedLink("veth1", "x", kind="veth", settings=VethPeer("eth0", 1472), mtu=1472)
    assert commands(Wanted(no_links={"veth1": "left"}, links=(link,)), State({"veth1": left})) == [
        "ip link delete veth1",
        "ip link add veth1 mtu 1472 type veth peer name eth0 mtu 1472",
    ]


def test_a_sysctl_of_a_device_keeps_it_down_until_it_is_set() -> None:
    sysctl = WantedSysctl("net.ipv6.conf.lo.disable_ipv6", "1", "x", device="lo")
    down = Link("lo", 1, "", 65536, "", frozenset({"LOOPBACK"}), 0)
    assert commands(Wanted(links=(WantedLink("lo", "x", up=True),), sysctls=(sysctl,)), State({"lo": down})) == [
        "sysctl -w net.ipv6.conf.lo.disable_ipv6=1",
        "ip link set lo up",
    ]
