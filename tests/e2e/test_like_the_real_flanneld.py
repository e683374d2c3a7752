"""What a node has equals what was recorded on a node of the real flanneld: etcd, files, device, routes, rules."""

import base64
import itertools
import json
import re
from ipaddress import IPv4Address

import pytest

from tests.e2e.lab import Lab
from tests.e2e.rule_verdicts import Packet, Ruleset, read_ruleset
from tests.pcap import REAL_FLANNELD

UPLINK = {"recorded": "eth0", "ours": "node1-eth0"}
ADDRESSES = {
    "pod here": "10.0.46.2",
    "pod of a peer": "10.0.90.2",
    "first of the network": "10.0.0.0",
    "last of the network": "10.0.255.255",
    "just below": "9.255.255.255",
    "just above": "10.1.0.0",
    "node": "192.168.8.227",
    "elsewhere": "192.0.2.1",
    "multicast": "224.0.0.5",
    "last multicast": "239.255.255.255",
}
MARKS = (0, 0x4000, 0x8000, 0xC001)


def recorded(name: str) -> str:
    return (REAL_FLANNELD / name).read_text()


@pytest.mark.row("C1")
def test_etcd_has_the_same_keys_and_bytes_and_leases(nginx_tomcat: Lab) -> None:
    answer = json.loads(nginx_tomcat.must("etcdctl", "--", "get", "--prefix", "/coreos.com/network", "-w", "json"))
    found = {
        base64.b64decode(entry["key"]).decode(): {
            "value": base64.b64decode(entry["value"]).decode(),
            "has_lease": entry.get("lease", 0) != 0,
        }
        for entry in answer["kvs"]
    }
    assert found == json.loads(recorded("udp-etcd.json"))


@pytest.mark.row("C2")
def test_subnet_env_is_the_same_to_the_byte(nginx_tomcat: Lab) -> None:
    assert nginx_tomcat.run("node1", "cat", "/run/flannel/subnet.env") == recorded("udp-subnet.env")


def test_docker_opts_name_the_bridge_address_and_the_mtu(nginx_tomcat: Lab) -> None:
    options = nginx_tomcat.run("node1", "cat", "/run/docker_opts.env")
    assert "--bip=10.0.46.1/24" in options
    assert "--mtu=1472" in options


@pytest.mark.row("C4")
def test_routes_are_the_same_but_for_those_behind_them(nginx_tomcat: Lab) -> None:
    ours = _lines(nginx_tomcat.run("node1", "ip", "route").replace(UPLINK["ours"], UPLINK["recorded"]))
    real = _lines(recorded("udp-routes-node1.txt"))
    assert real <= ours
    dropping, refusing = sorted(ours - real)
    assert re.fullmatch(r"10\.0\.0\.0/16 dev overlay-drop0 metric \d{9,} linkdown", dropping)
    assert re.fullmatch(r"unreachable 10\.0\.0\.0/16 metric \d{9,}", refusing)


@pytest.mark.row("C3")
def test_overlay_device_has_the_same_flags_mtu_kind_and_address(nginx_tomcat: Lab) -> None:
    ours = nginx_tomcat.run("node1", "ip", "-d", "address", "show", "flannel0")
    # The one difference, and what makes the native data path fast; nothing but the agent sees it.
    wanted = recorded("udp-link-node1.txt").replace("vnet_hdr off", "vnet_hdr on")
    for pattern in (r"<\S+>", r"mtu \d+", r"link/\S+", r"tun type tun pi off vnet_hdr \S+ persist off", r"inet \S+ .*"):
        assert re.findall(pattern, ours)[:1] == re.findall(pattern, wanted)[:1]
    assert len(re.findall(r"inet ", ours)) == 1


@pytest.fixture(scope="module")
def rulesets(nginx_tomcat: Lab) -> tuple[Ruleset, Ruleset]:
    """Return our agent's rules and the recorded ones; flanneld has no rules of Services."""
    ours = read_ruleset(nginx_tomcat.run("node1", "nft", "list", "table", "ip", "overlay-agent-10.0.0.0-16"))
    return ours, read_ruleset(recorded("udp-rules-node1.txt"))


@pytest.mark.parametrize("hook", ["postrouting", "forward"])
@pytest.mark.row("C5")
def test_rules_do_the_same_to_every_kind_of_packet(hook: str, rulesets: tuple[Ruleset, Ruleset]) -> None:
    ours, real = rulesets
    decided = set()
    for (source, s), (destination, d), mark in itertools.product(ADDRESSES.items(), ADDRESSES.items(), MARKS):
        packet = Packet(IPv4Address(s), IPv4Address(d), mark)
        verdict = real.verdicts(hook, packet)
        assert ours.verdicts(hook, packet) == verdict, f"{source} -> {destination}, mark {mark:#x}"
        decided.update(verdict)
    assert decided == {"accept", "masquerade fully-random"} if hook == "postrouting" else {"accept"}


def _lines(text: str) -> set[str]:
    return {" ".join(line.split()) for line in text.splitlines()}
