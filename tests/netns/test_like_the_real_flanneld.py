"""What a node has with each backend equals what was recorded on a node of the real flanneld, MAC addresses aside."""

import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest

from tests.e2e.rule_verdicts import Packet, read_ruleset
from tests.netns.agents import Underlay
from tests.netns.overlay import TwoNodes, lines, on, vtep_mac
from tests.pcap import REAL_FLANNELD

pytestmark = [pytest.mark.root]

MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
LAST_RESORT = r"unreachable 10\.0\.0\.0/16 metric \d{9,}"
ADDRESSES = (
    "10.0.46.2",
    "10.0.90.2",
    "10.0.0.0",
    "10.0.255.255",
    "9.255.255.255",
    "10.1.0.0",
    "192.168.8.227",
    "192.0.2.1",
    "224.0.0.5",
    "239.255.255.255",
)


class Recorded:
    """Two nodes of ours, and the file names of the real one's."""

    def __init__(self, backend: str, nodes: TwoNodes) -> None:
        self.backend = backend
        self.nodes = nodes

    def text(self, what: str) -> str:
        return (REAL_FLANNELD / f"{self.backend}-{what}").read_text()


@pytest.fixture(scope="module", params=["vxlan", "host-gw"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with ExitStack() as undo:
        underlay = Underlay(tmp_path_factory.mktemp("golden"), f"go{os.getpid()}-", undo)
        yield Recorded(request.param, TwoNodes(underlay, {"Type": request.param}))


def anonymous(text: str) -> str:
    return MAC.sub("MAC", text)


@pytest.mark.row("C1")
def test_etcd_has_the_same_keys_and_bytes_and_leases(recorded: Recorded) -> None:
    ours = recorded.nodes.underlay.dump()
    real = json.loads(recorded.text("etcd.json"))
    # The config is the operator's, not the agent's.
    del ours["/coreos.com/network/config"], real["/coreos.com/network/config"]
    assert anonymous(json.dumps(ours)) == anonymous(json.dumps(real))


@pytest.mark.row("C2")
def test_subnet_env_is_the_same_to_the_byte(recorded: Recorded) -> None:
    assert recorded.nodes.node1.subnet_file.read_text() == recorded.text("subnet.env")


@pytest.mark.row("C4")
def test_routes_are_the_same_but_for_the_one_that_stops_leaks(recorded: Recorded) -> None:
    ours, real = lines(on(recorded.nodes.node1, "ip route")), lines(recorded.text("routes-node1.txt"))
    assert real <= ours
    (extra,) = ours - real
    assert re.fullmatch(LAST_RESORT, extra)


@pytest.mark.row("C5")
def test_rules_do_the_same_to_every_kind_of_packet(recorded: Recorded) -> None:
    ours = read_ruleset(on(recorded.nodes.node1, "nft list ruleset"))
    real = read_ruleset(recorded.text("rules-node1.txt"))
    for hook, source, destination, mark in itertools.product(
        ("postrouting", "forward"), ADDRESSES, ADDRESSES, (0, 0x4000, 0xC001)
    ):
        packet = Packet(IPv4Address(source), IPv4Address(destination), mark)
        assert ours.verdicts(hook, packet) == real.verdicts(hook, packet), (hook, packet)


@pytest.mark.row("C3")
def test_the_device_has_the_same_settings_flags_mtu_and_address(recorded: Recorded) -> None:
    if recorded.backend == "host-gw":
        names = {link["ifname"] for link in json.loads(on(recorded.nodes.node1, "ip -j link"))}
        assert not [name for name in names if name.startswith("flannel")]
        return
    ours = on(recorded.nodes.node1, "ip -d address show flannel.1")
    real = recorded.text("link-node1.txt")
    for pattern in (r"<\S+>", r"mtu \d+ qdisc \S+ state \S+", r"link/\S+", r"inet \S+ .*"):
        assert re.findall(pattern, ours)[:1] == re.findall(pattern, real)[:1], pattern
    assert len(re.findall(r"inet ", ours)) == 1
    assert vxlan_settings(ours) == vxlan_settings(real)


USUAL = {"udpcsum", "noudp6zerocsumtx", "noudp6zerocsumrx", "fan-map", "reserved_bits", "0xf7ffffff000000ff"}
"""What some versions of ip say of every vxlan device, and others only when it is not so."""


def vxlan_settings(shown: str) -> list[str]:
    """Return them as text, sorted: ip's order changes between versions."""
    (line,) = re.findall(r"vxlan (id .*?) (?:addrgenmode|numtxqueues)", shown)
    return sorted(word for word in line.split() if word not in USUAL)


@pytest.mark.row("C4")
def test_neighbours_and_forwarding_entries_are_the_same(recorded: Recorded) -> None:
    if recorded.backend == "host-gw":
        assert "dst" not in on(recorded.nodes.node1, "bridge fdb show")
        assert "PERMANENT" not in on(recorded.nodes.node1, "ip neigh show")
        return
    mac = vtep_mac(recorded.nodes.node2)
    for what, command in (("neigh", "ip neigh show dev flannel.1"), ("fdb", "bridge fdb show dev flannel.1")):
        ours, real = lines(on(recorded.nodes.node1, command)), lines(recorded.text(f"{what}-node1.txt"))
        assert {line.replace(mac, "MAC") for line in ours} == {anonymous(line) for line in real}
