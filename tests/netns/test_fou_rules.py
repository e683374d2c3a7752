"""The rules of --datapath kernel in a real kernel, with real packets; none of it needs FOU.

A veth has the name of a peer's device, and the far end sends what the peer would.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.backends import fou_rules
from agent.backends.fou_rules import FouCheck, FouRules
from agent.datapath.counters import Counters
from agent.kernel.journal import FileJournal
from agent.kernel.nftables import run_nft
from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.namespace_thread import NamespaceThread
from tests.packets import ipv4, udp
from tests.waiting import wait_until

pytestmark = pytest.mark.root

CHECK = FouCheck(
    IPv4Network("10.0.0.0/16"),
    IPv4Network("10.0.46.0/24"),
    IPv4Address("192.168.8.227"),
    8285,
    device="flannel0",
    peers="flfou-",
)
TABLE = "overlay-agent-fou-10.0.0.0-16"
SEND = (
    "import socket, sys\n"
    "raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
    "raw.bind(('far', 0x0800))\n"
    "mac = bytes.fromhex(sys.argv[1].replace(':', ''))\n"
    "for packet in sys.argv[2:]: raw.send(mac + bytes(6) + b'\\x08\\x00' + bytes.fromhex(packet))\n"
)


class Node:
    """A namespace with the devices of one peer and of another, and with the rules."""

    def __init__(self, namespace: Namespace, thread: NamespaceThread, journal: Path) -> None:
        self.namespace = namespace
        self._thread = thread
        self.journal = journal
        self._rules = FouRules(FileJournal(journal, "node"))
        for words in (
            "link add flfou-c0a808e4 type veth peer name far",
            "link add flfou-c0a808e5 type veth peer name further",
            "link add br0 type bridge",
            "address add 10.0.46.1/24 dev br0",
            *(f"link set {name} up" for name in ("lo", "br0", "far", "further", "flfou-c0a808e4", "flfou-c0a808e5")),
            "route add 10.0.90.0/24 dev flfou-c0a808e4",
            "route add 10.0.91.0/24 dev flfou-c0a808e5",
            "route add unreachable 10.0.0.0/16 metric 4278198272",
        ):
            namespace.run(["ip", *words.split()])
        (link,) = json.loads(namespace.run(["ip", "-j", "link", "show", "flfou-c0a808e4"]).stdout)
        self._mac = link["address"]

    def converge(self, check: FouCheck = CHECK) -> None:
        self._thread.run(lambda: self._rules.converge(check))

    def counters(self) -> Counters:
        return self._thread.run(self._rules.counters)

    def receive(self, *packets: bytes) -> None:
        """Let the peer send these packets."""
        self.namespace.run(["python3", "-c", SEND, self._mac, *(packet.hex() for packet in packets)])

    def changes(self) -> int:
        return len(self.journal.read_text().splitlines()) if self.journal.exists() else 0


@pytest.fixture
def node(namespaces: NamespaceMaker, tmp_path: Path) -> Iterator[Node]:
    namespace = namespaces("node")
    thread = NamespaceThread(namespace.pid)
    yield Node(namespace, thread, tmp_path / "journal.jsonl")
    thread.close()


def inner(source: str = "10.0.90.2", destination: str = "10.0.46.2", ports: tuple[int, int] = (7, 9)) -> bytes:
    return ipv4(source, destination, udp(*ports))


@pytest.mark.parametrize(
    ("packet", "counted"),
    [
        (inner(), {}),
        (inner(source="10.0.90.0"), {}),
        (inner(source="10.0.91.2"), {"source": 1}),
        (inner(source="10.0.46.2"), {"source": 1}),
        (inner(source="10.0.46.1"), {"source": 1}),
        (inner(source="10.0.77.5"), {"source": 1}),
        (inner(source="8.8.8.8"), {"source": 1}),
        (inner(destination="10.0.77.5"), {"destination": 1}),
        (inner(destination="10.0.90.9"), {"destination": 1}),
        (inner(destination="10.0.46.255"), {"destination": 1}),
        (inner(destination="192.168.8.227"), {"destination": 1}),
        (inner(ports=(8285, 8285)), {"nest": 1}),
        (inner(ports=(7, 8285)), {}),
        (inner(ports=(8285, 9)), {}),
    ],
)
def test_a_packet_that_the_peer_may_not_send_is_dropped_and_counted(
    node: Node, packet: bytes, counted: Mapping[str, int]
) -> None:
    node.converge()
    node.receive(packet, inner())
    passed = 1 if counted else 2
    wait_until(lambda: node.counters().rx_packets == passed, timeout_s=20, what="the last packet is counted")
    assert {reason: count for reason, count in node.counters().drops.items() if count} == counted


def test_the_table_is_made_once_and_comes_back_whole(node: Node) -> None:
    node.converge()
    node.converge()
    assert node.changes() == 1
    for damage in (f"flush chain ip {TABLE} received", f"delete table ip {TABLE}", "flush ruleset"):
        before = node.changes()
        node.namespace.run(["nft", *damage.split()])
        node.converge()
        assert node.changes() == before + 1
        assert "fib saddr . iif oif missing" in node.namespace.run(["nft", "list", "ruleset"]).stdout


def test_numbers_stay_when_the_rules_are_replaced(node: Node) -> None:
    node.converge()
    node.receive(inner(), inner(source="8.8.8.8"))
    wait_until(lambda: node.counters().rx_packets == 1, timeout_s=20, what="the last packet is counted")
    node.converge(replace(CHECK, port=8286))
    assert "8286" in node.namespace.run(["nft", "list", "ruleset"]).stdout
    assert (node.counters().rx_packets, node.counters().drops["source"]) == (1, 1)


def test_rules_that_another_program_removed_just_after_they_were_made_come_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_and_flush(arguments: list[str], script: str) -> None:
        run_nft(arguments, script)
        run_nft(["flush", "ruleset"])

    with monkeypatch.context() as patch:
        patch.setattr(fou_rules, "run_nft", load_and_flush)
        node.converge()
    assert TABLE not in node.namespace.run(["nft", "list", "ruleset"]).stdout
    node.converge()
    assert TABLE in node.namespace.run(["nft", "list", "ruleset"]).stdout


def test_rules_that_were_found_complete_are_not_listed_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.converge()
    node.converge()
    monkeypatch.setattr(fou_rules, "list_objects", lambda *what: pytest.fail(f"lists {what}"))
    node.converge()
