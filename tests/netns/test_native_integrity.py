"""A wire that loses, delays, swaps and changes datagrams: what arrives is what was sent, both ways at once."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.test_native_pump import Transfer, checksum_errors
from tests.netns.test_udp_backend import Node, make_nodes, ping

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = Path(__file__).with_name("bad_wire.c")
REFUSED_FOR = {"checksum", "version", "ihl", "length"}
"""What a changed bit in an inner IPv4 header is dropped for, by the order of the checks."""
WIRES = pytest.mark.parametrize(
    ("kind", "every"),
    [("drop", 100), ("reorder", 100), ("burst", 100), ("flip", 10_000)],
    ids=["lost", "late", "bursts-reversed", "changed"],
)


class BadWire:
    """bad_wire.c in a namespace of its own, between the two nodes' cables."""

    def __init__(self, namespace: Namespace, program: Path, kind: str, every: int) -> None:
        namespace.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"])
        self._process = namespace.popen([str(program), "wire1", "wire2", kind, str(every)], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> int:
        """Return the number of mangled datagrams."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=10)
        assert self._process.returncode == 0
        return int(said)


@pytest.fixture(scope="module")
def bad_wire(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled program."""
    program = tmp_path_factory.mktemp("bad_wire") / "bad_wire"
    subprocess.run(["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE], check=True)
    return program


@pytest.fixture
def wire(namespaces: NamespaceMaker) -> Namespace:
    return namespaces("wire")


@pytest.fixture
def nodes(namespaces: NamespaceMaker, tmp_path: Path, wire: Namespace) -> tuple[Node, Node]:
    """Start two nodes that send frames as over a real cable: one datagram each, with checksums."""
    nodes = make_nodes(namespaces, tmp_path, ("native", "native"), wire)
    for node in nodes:
        node.namespace.run(["ethtool", "-K", "eth0", "tx", "off", "gso", "off", "tso", "off"])
        node.start()
        node.meet_all()
    return nodes


def udp_checksum_errors(node: Node) -> int:
    """Return the number of datagrams that the node's kernel refused because of the outer checksum."""
    lines = [
        line.split() for line in node.namespace.run(["cat", "/proc/net/snmp"]).stdout.splitlines() if "Udp:" in line
    ]
    return int(dict(zip(*lines, strict=True))["InCsumErrors"])


def exchange(nodes: tuple[Node, Node], wire: BadWire, mebibytes: int, timeout_s: float) -> int:
    """Transfer in both directions at once over the wire; return the number of mangled datagrams."""
    node1, node2 = nodes
    assert "ttl=62" in ping(node1.pod, "10.0.90.2")
    transfers = (
        Transfer(node1.pod, node2.pod, "10.0.90.2", 5001, mebibytes),
        Transfer(node2.pod, node1.pod, "10.0.46.2", 5001, mebibytes),
    )
    for transfer in transfers:
        sent, received = transfer.hashes(timeout_s)
        assert sent == received
    return wire.end()


def look_at_drops(nodes: tuple[Node, Node], kind: str, harmed: int) -> None:
    """Check the counters for what a kind of wire may and must leave there."""
    drops = [node.drops() for node in nodes]
    by_kernels = sum(udp_checksum_errors(node) + checksum_errors(node.pod) for node in nodes)
    if kind != "flip":
        assert drops == [{}, {}]
        assert by_kernels == 0
        return
    assert set().union(*drops) <= REFUSED_FOR
    # Each changed datagram is refused by somebody: the node's kernel, the agent, or the pod's kernel.
    assert by_kernels + sum(sum(each.values()) for each in drops) == harmed


@WIRES
def test_nothing_arrives_corrupted(
    nodes: tuple[Node, Node], wire: Namespace, bad_wire: Path, kind: str, every: int
) -> None:
    # A small transfer has too few datagrams for one of ten thousand.
    harmed = exchange(nodes, BadWire(wire, bad_wire, kind, min(every, 500)), 32, timeout_s=100)
    assert harmed > 50
    look_at_drops(nodes, kind, harmed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@WIRES
def test_a_gibibyte_each_way_arrives_as_it_was_sent(
    nodes: tuple[Node, Node], wire: Namespace, bad_wire: Path, kind: str, every: int
) -> None:
    harmed = exchange(nodes, BadWire(wire, bad_wire, kind, every), 1024, timeout_s=800)
    assert harmed > 2 * 1024 * 1024 * 1024 / 1472 / every / 2
    look_at_drops(nodes, kind, harmed)
