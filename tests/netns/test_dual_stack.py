"""IPv4 and IPv6 side by side: leases, devices, routes, bridge, rules and pods with two addresses.

flannel's e2e: «provides dual-stack pod-to-pod connectivity».
"""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.netns.agents import Agent, Underlay, ping, run, wait_until
from tests.netns.overlay import POD1, POD2, lines, network, on, skip_without

pytestmark = [pytest.mark.root, pytest.mark.slow]

SUBNETS = {"node1": ("10.0.46", "fd00:a:0:46"), "node2": ("10.0.90", "fd00:a:0:90")}
POD6 = {name: f"{ipv6}::2" for name, (_, ipv6) in SUBNETS.items()}
BACKENDS: dict[str, dict[str, object]] = {
    "vxlan": {"Type": "vxlan"},
    "vxlan, DirectRouting": {"Type": "vxlan", "DirectRouting": True},
    "host-gw": {"Type": "host-gw"},
    "wireguard": {"Type": "wireguard"},
    "wireguard, one device": {"Type": "wireguard", "Mode": "auto"},
}


class DualStack:
    """Two nodes on an underlay with both families, and a pod on each."""

    def __init__(self, underlay: Underlay, name: str) -> None:
        self.name = name
        self.underlay = underlay
        underlay.start_etcd()
        underlay.write_config(network(BACKENDS[name], EnableIPv6=True, IPv6Network="fd00:a::/48"))
        self.nodes = [self._node(number) for number in (1, 2)]
        for node in self.nodes:
            node.wait_ready()
        self.pods = [self._pod(node) for node in self.nodes]

    def _node(self, number: int) -> Agent:
        name = f"node{number}"
        ipv4, ipv6 = SUBNETS[name]
        node = self.underlay.agent(name, f"192.168.8.{226 + number}", start=False)
        lines = [f"FLANNEL_NETWORK=10.0.0.0/16\nFLANNEL_SUBNET={ipv4}.1/24\n"]
        lines.append(f"FLANNEL_IPV6_NETWORK=fd00:a::/48\nFLANNEL_IPV6_SUBNET={ipv6}::1/64\n")
        node.subnet_file.write_text("".join(lines))
        self.underlay.ip(node.netns, f"address add fd00:8::{226 + number}/64 dev eth0 nodad")
        node.start()
        self.underlay.undo.callback(node.end)
        return node

    def _pod(self, node: Agent) -> str:
        ipv4, ipv6 = SUBNETS[node.name]
        pod = self.underlay.pod(node, "a", f"{ipv4}.2/24")
        self.underlay.ip(pod, f"address add {ipv6}::2/64 dev eth0 nodad")
        self.underlay.ip(pod, f"route add default via {ipv6}::1")
        return pod

    def reach_each_other(self) -> bool:
        pairs = ((self.pods[0], POD2, POD6["node2"]), (self.pods[1], POD1, POD6["node1"]))
        return all(ping(pod, address).returncode == 0 for pod, *addresses in pairs for address in addresses)


CHOSEN = [
    "vxlan",
    "host-gw",
    "wireguard",
    "wireguard, one device",
    pytest.param("vxlan, DirectRouting", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=CHOSEN)
def dual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DualStack]:
    if request.param.startswith("wireguard"):
        skip_without("wireguard")
    with ExitStack() as undo:
        yield DualStack(Underlay(tmp_path_factory.mktemp("ds"), f"ds{os.getpid()}-", undo), request.param)


@pytest.mark.row("C11")
def test_provides_dual_stack_pod_to_pod_connectivity(dual: DualStack) -> None:
    wait_until(dual.reach_each_other, 30, "pods reach each other by both", lambda: [node.log for node in dual.nodes])
    far = dual.pods[1]
    assert "ttl=62" in run("ip", "netns", "exec", dual.pods[0], "ping", "-6", "-n", "-c1", POD6["node2"]).stdout
    assert f"{POD6['node2']}/64" in run("ip", "-n", far, "address").stdout


def test_a_lease_has_both_subnets_and_both_addresses(dual: DualStack) -> None:
    leases = dual.underlay.leases()
    key = "/coreos.com/network/subnets/10.0.46.0-24&fd00:a:0:46::-64"
    assert set(leases) == {key, key.replace("46", "90")}
    kind = dual.name.partition(",")[0]
    value = leases[key]
    assert value.startswith(f'{{"PublicIP":"192.168.8.227","PublicIPv6":"fd00:8::227","BackendType":"{kind}"')
    macs = re.findall(r'"(BackendData|BackendV6Data)":\{"VNI":1,"VtepMAC":"(\S{17})"\}', value)
    if kind == "vxlan":
        devices = ("flannel.1", "flannel-v6.1")
        assert [mac for _, mac in macs] == [
            on(dual.nodes[0], f"cat /sys/class/net/{name}/address").strip() for name in devices
        ]


def test_subnet_env_has_the_lines_of_both_families_in_flannels_order(dual: DualStack) -> None:
    assert [line.partition("=")[0] for line in dual.nodes[0].subnet_file.read_text().splitlines()] == [
        "FLANNEL_NETWORK",
        "FLANNEL_SUBNET",
        "FLANNEL_IPV6_NETWORK",
        "FLANNEL_IPV6_SUBNET",
        "FLANNEL_MTU",
        "FLANNEL_IPMASQ",
    ]
    assert "FLANNEL_IPV6_SUBNET=fd00:a:0:46::1/64" in dual.nodes[0].subnet_file.read_text()


def test_the_kernel_has_routes_and_rules_for_ipv6_too(dual: DualStack) -> None:
    node = dual.nodes[0]
    routes = lines(on(node, "ip -6 route"))
    wanted = {
        "vxlan": "fd00:a:0:90::/64 via fd00:a:0:90:: dev flannel-v6.1 metric 1024 onlink pref medium",
        "wireguard": "fd00:a::/48 dev flannel-wg-v6 metric 1024 pref medium",
        "wireguard, one device": "fd00:a::/48 dev flannel-wg metric 1024 pref medium",
    }.get(dual.name, "fd00:a:0:90::/64 via fd00:8::228 dev eth0 metric 1024 pref medium")
    assert wanted in routes
    rules = on(node, "nft list ruleset")
    assert "ip6 saddr fd00:a::/48 ip6 daddr fd00:a::/48" in rules
    assert "ip6 saddr fd00:a::/48 ip6 daddr != ff00::/8" in rules
    if dual.name == "vxlan":
        assert "vxlan id 1 local fd00:8::227 dev eth0" in on(node, "ip -d link show flannel-v6.1")
        assert "mtu 1430" in on(node, "ip link show flannel-v6.1")


@pytest.mark.parametrize(
    "command",
    [
        "ip -6 route delete fd00:a:0:90::/64",
        "ip -6 address delete fd00:a:0:46::1/64 dev docker0",
        "nft flush ruleset",
        "ip link delete flannel-v6.1",
    ],
)
def test_deleted_ipv6_state_is_made_again(dual: DualStack, command: str) -> None:
    if "flannel" in command and not dual.name.startswith("vxlan"):
        return
    if ":90::/64" in command and dual.name.startswith("wireguard"):
        command = "ip -6 route delete fd00:a::/48 metric 1024"
    node = dual.nodes[0]

    def state() -> list[str]:
        shown = (
            on(node, "ip -6 route"),
            on(node, "ip -6 address show dev docker0 scope global"),
            on(node, "nft list tables"),
        )
        return [line for text in shown for line in sorted(lines(text)) if "fe80" not in line and "ff00" not in line]

    before = state()
    on(node, command)
    wait_until(lambda: state() == before, 8, "all is as before", lambda: (before, state(), node.log))
    wait_until(dual.reach_each_other, 30, "pods reach each other by both")


def test_a_restart_keeps_both_subnets(dual: DualStack) -> None:
    node = dual.nodes[0]
    before = node.subnet_file.read_text(), set(dual.underlay.leases())
    node.end()
    node.start()
    node.wait_ready()
    assert (node.subnet_file.read_text(), set(dual.underlay.leases())) == before


def test_an_underlay_without_ipv6_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ExitStack() as undo:
        underlay = Underlay(tmp_path_factory.mktemp("no6"), f"d6{os.getpid()}-", undo)
        underlay.start_etcd()
        underlay.write_config(network({"Type": "vxlan"}, EnableIPv6=True, IPv6Network="fd00:a::/48"))
        node = underlay.agent("node", "192.168.8.227", start=False)
        done = run(*node.argv, check=False)
        assert done.returncode == 3
        assert "error: eth0: no IPv6 address for a network with EnableIPv6" in done.stderr
