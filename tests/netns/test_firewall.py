"""The table in a real kernel: what it does to packets, and that it comes back."""

import json
import socket
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from agent.kernel.firewall import Firewall, Policy, rules, table_name
from agent.kernel.journal import FileJournal
from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.namespace_thread import NamespaceThread

pytestmark = pytest.mark.root

NETWORK = IPv4Network("10.0.0.0/16")
POLICY = Policy(NETWORK, IPv4Network("10.0.46.0/24"), masquerade=True)
TABLE = table_name(NETWORK)


class Node:
    """A namespace and a Firewall that works in it."""

    def __init__(self, namespace: Namespace, thread: NamespaceThread, journal: Path) -> None:
        self.namespace = namespace
        self._thread = thread
        self._journal = journal
        self._firewall = Firewall(FileJournal(journal, "node"))

    def converge(self, policy: Policy = POLICY) -> bool:
        return self._thread.run(lambda: self._firewall.converge(policy))

    def remove(self) -> None:
        self._thread.run(lambda: self._firewall.remove(NETWORK))

    def remove_all(self) -> None:
        self._thread.run(self._firewall.remove_all)

    def nft(self, *arguments: str) -> str:
        return self.namespace.run(["nft", *arguments]).stdout

    def journal(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._journal.read_text().splitlines()]


@pytest.fixture
def node(namespaces: NamespaceMaker, tmp_path: Path) -> Iterator[Node]:
    namespace = namespaces("node")
    thread = NamespaceThread(namespace.pid)
    yield Node(namespace, thread, tmp_path / "journal.jsonl")
    thread.close()


def test_table_is_made_once_and_journalled_with_its_script(node: Node) -> None:
    assert node.converge()
    assert not node.converge()
    (entry,) = node.journal()
    assert entry["command"] == ["nft", "-f", "-"]
    assert entry["input"] == rules(POLICY)


@pytest.mark.parametrize(
    "harm",
    [
        "flush ruleset",
        f"flush table ip {TABLE}",
        f"delete table ip {TABLE}",
        f"flush chain ip {TABLE} forward",
        f"add rule ip {TABLE} forward drop",
        f"insert rule ip {TABLE} postrouting accept",
    ],
)
def test_table_is_restored_completely_after(harm: str, node: Node) -> None:
    node.converge()
    before = node.nft("list", "ruleset")
    node.nft(*harm.split())
    assert node.nft("list", "ruleset") != before
    assert node.converge()
    assert node.nft("list", "ruleset") == before


def test_single_deleted_rule_comes_back(node: Node) -> None:
    node.converge()
    before = node.nft("list", "ruleset")
    listing = json.loads(node.nft("-j", "list", "table", "ip", TABLE))["nftables"]
    rule = next(item["rule"] for item in listing if "rule" in item)
    node.nft("delete", "rule", "ip", TABLE, rule["chain"], "handle", str(rule["handle"]))
    assert node.converge()
    assert node.nft("list", "ruleset") == before


def test_changed_policy_replaces_the_table(node: Node) -> None:
    node.converge()
    for changed in (
        Policy(NETWORK, IPv4Network("10.0.47.0/24"), masquerade=True),
        Policy(NETWORK, IPv4Network("10.0.47.0/24"), masquerade=True, random_fully=False),
        Policy(NETWORK, IPv4Network("10.0.47.0/24"), masquerade=False),
    ):
        assert node.converge(changed)
        assert not node.converge(changed)
    nothing = Policy(NETWORK, IPv4Network("10.0.47.0/24"), masquerade=False, forward=False)
    assert node.converge(nothing)
    assert not node.converge(nothing)
    assert node.nft("list", "tables") == ""


def test_only_tables_of_agents_are_removed(node: Node) -> None:
    node.nft("add", "table", "ip", "somebody")
    node.nft("add", "table", "ip", "overlay-agent-10.9.0.0-16")
    node.nft("add", "table", "ip6", "overlay-agent-fd00__-48")
    node.converge()
    node.remove()
    node.remove()
    assert TABLE not in node.nft("list", "tables")
    node.converge()
    node.remove_all()
    assert node.nft("list", "tables").splitlines() == ["table ip somebody"]


def test_ipv6_has_a_table_of_its_own(node: Node) -> None:
    policy = Policy(IPv6Network("fd00:a::/48"), IPv6Network("fd00:a:0:46::/64"), masquerade=True)
    assert node.converge(policy)
    assert not node.converge(policy)
    assert "table ip6 overlay-agent-fd00_a__-48" in node.nft("list", "tables")
    listed = node.nft("list", "ruleset")
    assert "ip6 saddr fd00:a::/48 ip6 daddr != ff00::/8 masquerade fully-random" in listed


def seen_source(sender: Namespace, receiver: Namespace, address: str, *, source: str | None = None) -> str:
    """Return the source address with which a datagram from `sender` reaches `receiver`."""
    thread = NamespaceThread(receiver.pid)
    try:
        with thread.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as listener:
            listener.settimeout(5)
            listener.bind((address, 9))
            script = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.bind((sys.argv[2], 0)); "
            script += "s.sendto(b'x', (sys.argv[1], 9))"
            sender.run(["python3", "-c", script, address, source or "0.0.0.0"])
            return str(listener.recvfrom(10)[1][0])
    finally:
        thread.close()


@pytest.mark.row("C33")
def test_addresses_stay_inside_the_network_and_are_masqueraded_at_its_edge(
    node: Node, namespaces: NamespaceMaker
) -> None:
    pod, other = namespaces("pod"), namespaces("other")
    node.namespace.connect(pod, ("pods", "10.0.46.1/24"), ("eth0", "10.0.46.2/24"))
    node.namespace.connect(other, ("out", "192.168.8.1/24"), ("eth0", "192.168.8.2/24"))
    node.namespace.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    # The other namespace plays, by turns, a host outside and a pod of another node.
    other.run(["ip", "address", "add", "10.0.90.2/24", "dev", "eth0"])
    node.namespace.run(["ip", "route", "add", "10.0.90.0/24", "via", "192.168.8.2"])
    pod.run(["ip", "route", "add", "default", "via", "10.0.46.1"])
    other.run(["ip", "route", "add", "10.0.46.0/24", "via", "192.168.8.1"])
    assert seen_source(pod, other, "192.168.8.2") == "10.0.46.2"

    node.converge()
    assert seen_source(pod, other, "192.168.8.2") == "192.168.8.1"
    assert seen_source(pod, other, "10.0.90.2") == "10.0.46.2"
    assert seen_source(other, pod, "10.0.46.2", source="192.168.8.2") == "192.168.8.2"
    assert seen_source(other, pod, "10.0.46.2", source="10.0.90.2") == "10.0.90.2"


def test_a_pods_datagrams_never_leave_from_the_overlays_port(node: Node) -> None:
    guarded = Policy(NETWORK, IPv4Network("10.0.46.0/24"), masquerade=True, overlay_port=65534)
    assert node.converge(guarded)
    assert not node.converge(guarded), "the kernel shows the rules as they were asked for"
    listed = node.nft("list", "table", "ip", TABLE)
    assert listed.count("meta l4proto udp masquerade to :1024-65533 fully-random") == 2
