"""--datapath kernel as values: its devices, routes and rules; no kernel is asked."""

import errno
import random
import re
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from agent.backends.base import Underlay
from agent.backends.entries import PeerEntries, wanted_entries
from agent.backends.fou import FouPlan, is_peer_device, peer_device
from agent.backends.fou_rules import COUNTERS, FouCheck, FouRules, rules
from agent.backends.leftovers import PEER_DEVICES
from agent.errors import EnvironmentMissing, NetlinkError
from agent.kernel.diff import diff
from agent.kernel.fou import FouPorts
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.kernel.values import Link, Route, State, TunnelSettings, Wanted, WantedLink
from agent.lease import Lease, LeaseAttrs, Subnet

OURS, PEER = IPv4Address("192.168.8.227"), IPv4Address("192.168.8.228")
SUBNET = IPv4Network("10.0.90.0/24")
TUNNEL = TunnelSettings(OURS, PEER, ttl=64, fou_port=8285)
CHECK = FouCheck(
    IPv4Network("10.0.0.0/16"), IPv4Network("10.0.46.0/24"), OURS, 8285, device="flannel0", peers=PEER_DEVICES
)
DEVICE = Link("flfou-c0a808e4", 7, "ipip", 1472, "", frozenset({"UP"}), 0, settings=TUNNEL)


def commands(wanted: Wanted, state: State) -> list[str]:
    return [" ".join(command) for change in diff(wanted, state) for command in change.commands]


def test_a_peers_device_is_named_by_its_address_and_fits() -> None:
    assert peer_device(PEER) == "flfou-c0a808e4"
    rng = random.Random(31)
    addresses = {IPv4Address(rng.randrange(2**32)) for _ in range(1000)} | {IPv4Address("0.0.0.1")}
    names = {peer_device(address) for address in addresses}
    assert len(names) == len(addresses)
    assert {len(name) for name in names} == {14}


def test_a_peers_device_is_told_from_a_plain_tunnel() -> None:
    assert is_peer_device(DEVICE)
    assert not is_peer_device(replace(DEVICE, settings=replace(TUNNEL, fou_port=None)))
    assert not is_peer_device(replace(DEVICE, settings=None))
    assert not is_peer_device(replace(DEVICE, name="flannel0"))


def test_a_peer_is_a_device_without_ipv6_and_a_route_through_it() -> None:
    link = WantedLink(DEVICE.name, "x", kind="ipip", settings=TUNNEL, mtu=1472, up=True)
    route = Route(SUBNET, DEVICE.name, gateway=PEER, source=IPv4Address("10.0.46.0"), onlink=True)
    entry = PeerEntries(SUBNET, f"{PEER}:8285", route, link=link)
    wanted = wanted_entries([entry, entry], (), (), lambda _: False)
    assert commands(wanted, State()) == [
        "ip link add flfou-c0a808e4 mtu 1472 type ipip local 192.168.8.227 remote 192.168.8.228 ttl 64"
        " encap fou encap-sport 8285 encap-dport 8285",
        "sysctl -w net/ipv6/conf/flfou-c0a808e4/disable_ipv6=1",
        "sysctl -w net/ipv6/conf/flfou-c0a808e4/accept_ra=0",
        "ip link set flfou-c0a808e4 up",
        "ip route replace 10.0.90.0/24 via 192.168.8.228 dev flfou-c0a808e4 src 10.0.46.0 onlink",
    ]


@pytest.mark.parametrize("other", [{"fou_port": 8286}, {"fou_port": None}, {"ttl": 0}, {"local": PEER}])
def test_a_device_with_another_port_or_address_is_made_again(other: dict[str, object]) -> None:
    wanted = Wanted(links=(WantedLink(DEVICE.name, "x", kind="ipip", settings=TUNNEL, mtu=1472),))
    assert commands(wanted, State({DEVICE.name: DEVICE})) == []
    present = replace(DEVICE, settings=replace(TUNNEL, **other))  # type: ignore[arg-type]  # by name
    assert commands(wanted, State({DEVICE.name: present}))[0] == "ip link delete flfou-c0a808e4"


class KernelOfPeers:
    """A kernel that has devices of three peers; keeps what it is asked for. (Few real ones have FOU.)"""

    def __init__(self) -> None:
        self.journal = SilentJournal()
        self.wanted: list[Wanted] = []
        self.refuses = False

    def links(self) -> tuple[Link, ...]:
        return tuple(replace(DEVICE, name=peer_device(PEER + number)) for number in range(3))

    def link(self, name: str) -> None:
        """There is no other."""

    def converge(self, wanted: Wanted) -> None:
        self.wanted.append(wanted)
        if self.refuses:
            raise NetlinkError("busy")


def test_devices_of_former_peers_are_removed_together_and_once() -> None:
    kernel = KernelOfPeers()
    underlay = Underlay("eth0", OURS, 1500, OURS)
    plan = FouPlan(CHECK.network, 8285, underlay, cast("Kernel", kernel))
    stays = Lease(Subnet(SUBNET), LeaseAttrs(PEER), 1, 1)
    kernel.refuses = True
    with pytest.raises(NetlinkError):
        plan.converge_peers([stays])
    kernel.refuses = False
    for _ in range(2):
        plan.converge_peers([stays])
    both = {peer_device(PEER + 1), peer_device(PEER + 2)}
    assert [set(wanted.no_links) for wanted in kernel.wanted] == [both, both], "again after a refusal, then never"


def test_a_modprobe_that_hangs_loads_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], *, timeout: float, check: bool) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    def refuse(_: FouPorts) -> None:
        raise EnvironmentMissing("this kernel cannot unpack UDP")

    monkeypatch.setattr("agent.kernel.fou.shutil.which", lambda *_, **__: "/sbin/modprobe")
    monkeypatch.setattr("agent.kernel.fou.subprocess.run", run)
    monkeypatch.setattr(FouPorts, "ports", refuse)
    assert FouPorts(cast("Kernel", KernelOfPeers())).why_missing() == "this kernel cannot unpack UDP"


class OverVeth(KernelOfPeers):
    """The underlay is a veth."""

    def link(self, name: str) -> Link | None:  # type: ignore[override]  # the other kernel has none
        return replace(DEVICE, name=name, kind="veth", settings=None) if name == "eth0" else None


@pytest.mark.parametrize("offload", [False, True])
def test_only_with_offload_packets_enter_a_tunnel_over_a_veth_whole(offload: bool) -> None:
    kernel = OverVeth()
    plan = FouPlan(CHECK.network, 8285, Underlay("eth0", OURS, 1500, OURS), cast("Kernel", kernel), offload=offload)
    settings = plan._base_link().settings
    assert isinstance(settings, TunnelSettings)
    assert settings.cut is not offload


def statements(chain: str) -> list[str]:
    body = re.search(rf"\tchain {chain} {{\n(.*?)\n\t}}", rules(CHECK, {}), re.DOTALL)
    assert body is not None
    return [re.sub(r' comment ".*"', "", line.strip()) for line in body[1].splitlines()]


def test_what_peers_send_is_checked_in_the_forwarders_order() -> None:
    assert statements("prerouting") == [
        "type filter hook prerouting priority raw; policy accept;",
        "ip daddr 192.168.8.227 udp dport 8285 udp sport != 8285 counter name peer drop",
        'iifname "flannel0" counter name peer drop',
        'iifname "flfou-*" jump received',
    ]
    assert statements("received") == [
        "fib saddr . iif oif missing counter name source drop",
        "ip daddr != 10.0.46.0/24 counter name destination drop",
        "ip daddr 10.0.46.255 counter name destination drop",
        "udp sport 8285 udp dport 8285 counter name nest drop",
        "counter name rx",
    ]
    assert statements("postrouting")[1:] == [
        'oifname "flfou-*" udp sport 8285 udp dport 8285 counter name nest drop',
        'oifname "flfou-*" counter name tx',
    ]


def test_a_table_that_replaces_another_begins_with_its_numbers() -> None:
    script = rules(CHECK, {"source": (3, 180), "rx": (7, 588)})
    assert script.splitlines()[1:4] == [
        "table ip overlay-agent-fou-10.0.0.0-16",
        "delete table ip overlay-agent-fou-10.0.0.0-16",
        "table ip overlay-agent-fou-10.0.0.0-16 {",
    ]
    assert re.findall(r"counter (\w+) \{ packets (\d+) bytes (\d+) \}", script) == [
        (name, *{"source": ("3", "180"), "rx": ("7", "588")}.get(name, ("0", "0"))) for name in COUNTERS
    ]


def test_the_last_numbers_stay_while_nft_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    table = FouRules(SilentJournal())
    table._check = CHECK
    listing = [{"counter": {"name": str(name), "packets": 3, "bytes": 180}} for name in COUNTERS]
    monkeypatch.setattr("agent.backends.fou_rules.list_objects", lambda *_: listing)
    before = table.counters()
    assert (before.rx_packets, before.rx_bytes) == (3, 180)

    def refuse(*_: str) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("agent.backends.fou_rules.list_objects", refuse)
    assert table.counters() == before


def test_packets_are_cut_before_a_tunnel_over_a_link_that_cuts_none() -> None:
    link = WantedLink(DEVICE.name, "x", kind="ipip", settings=replace(TUNNEL, cut=True), mtu=1472, up=True)
    made, checksums = commands(Wanted(links=(link,)), State())
    assert made.startswith("ip link add flfou-c0a808e4 mtu 1472 up gso_max_segs 1 type ipip ")
    assert checksums == "ethtool -K flfou-c0a808e4 tx off"
    assert commands(Wanted(links=(link,)), State({DEVICE.name: DEVICE}))[0] == "ip link delete flfou-c0a808e4"
