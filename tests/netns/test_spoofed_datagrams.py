"""What the agent does with datagrams that lie: fifty of each in five seconds, none delivered, each counted once."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.hostile import FORGED, FORGER, PERIOD_S
from tests.netns.agents import Underlay, run, wait_until
from tests.netns.overlay import POD1, POD2, TwoNodes

pytestmark = [pytest.mark.root, pytest.mark.slow]

NODE1, NODE2, STRANGER = "192.168.8.227", "192.168.8.228", "192.168.8.9"
LIES = {
    "source": [
        (NODE2, "10.0.46.9", POD1, "an address of the receiver's own subnet"),
        (NODE2, "10.0.77.2", POD1, "a pod of a third node"),
        (NODE2, NODE1, POD1, "a node"),
        (NODE2, "127.0.0.1", POD1, "loopback"),
    ],
    "destination": [
        (NODE2, POD2, NODE1, "the node itself"),
        (NODE2, POD2, "127.0.0.1", "what listens on its loopback"),
        (NODE2, POD2, "10.0.90.9", "through the node back to the sender's subnet"),
        (NODE2, POD2, "224.0.0.1", "everybody"),
    ],
    "peer": [
        (STRANGER, POD2, POD1, "from a machine without a lease"),
        ("192.168.8.77", POD2, POD1, "from an address that nobody has"),
    ],
}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path, f"sp{os.getpid()}-", undo), {"Type": "udp"})


def no_ports(netns: str) -> int:
    """Count the datagrams that arrived there for a closed port, such as the forged ones'."""
    text = run("ip", "netns", "exec", netns, "cat", "/proc/net/snmp").stdout
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp:"))
    return int(values[names.index("NoPorts")])


def test_no_datagram_that_lies_is_delivered_and_each_is_counted_by_its_lie(nodes: TwoNodes) -> None:
    stranger = nodes.underlay.host("stranger", STRANGER)
    drops = nodes.node1.state()["counters"]["drops"]
    before = {netns: no_ports(netns) for netns in (nodes.pod1, nodes.node1.netns)}
    truth = forge(nodes.node2.netns, NODE2, POD2, POD1)
    assert truth.wait(20) == 0
    wait_until(lambda: no_ports(nodes.pod1) == before[nodes.pod1] + FORGED, 5, "what does not lie is delivered")
    before = {netns: no_ports(netns) for netns in before}
    senders = [
        forge(nodes.node2.netns if outer == NODE2 else stranger, outer, source, destination)
        for lies in LIES.values()
        for outer, source, destination, _ in lies
    ]
    assert {sender.wait(30) for sender in senders} == {0}
    wanted = {reason: drops.get(reason, 0) + FORGED * len(lies) for reason, lies in LIES.items()}

    def counted() -> dict[str, int]:
        now = nodes.node1.state()["counters"]["drops"]
        return {reason: now.get(reason, 0) for reason in wanted}

    wait_until(lambda: counted() == wanted, 5, f"the counters are {wanted}", counted)
    assert {netns: no_ports(netns) for netns in before} == before
    nodes.wait_connected(2)
    said = [line for line in nodes.node1.log.splitlines() if re.search("drop", line)]
    assert len(said) <= len(LIES) * 10, "not a line for each"


def test_only_the_overlays_own_port_of_a_peer_is_listened_to(nodes: TwoNodes) -> None:
    before = nodes.node1.state()["counters"]["drops"].get("peer", 0)
    script = (
        "import socket, time\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.bind(('192.168.8.228', 9999))\n"
        f"for _ in range({FORGED}):\n"
        f"    s.sendto(bytes(60), ('{NODE1}', 8285)); time.sleep({PERIOD_S})\n"
    )
    run("ip", "netns", "exec", nodes.node2.netns, sys.executable, "-c", script)
    now = nodes.node1.state()["counters"]["drops"]["peer"]
    assert now - before == FORGED
    nodes.wait_connected(2)


def forge(netns: str, outer: str, source: str, destination: str) -> "subprocess.Popen[bytes]":
    """Send datagrams of the overlay to node1 with these addresses outside and inside."""
    words = ["overlay", outer, NODE1, f"{source},{destination}", str(FORGED), str(PERIOD_S)]
    return subprocess.Popen(["ip", "netns", "exec", netns, sys.executable, "-c", FORGER, *words])
