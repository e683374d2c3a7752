"""The native pump under load and beside the Python pump: what must hold while packets flow in bulk.

The nodes and pods are those of test_udp_backend.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.test_udp_backend import Node, make_nodes, ping
from tests.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.slow]

MEBIBYTE = 1 << 20
SENDER = """
import hashlib, socket, sys
address, port, mebibytes, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
block, total = hashlib.shake_256(seed.encode()).digest(1 << 20), hashlib.sha256()
with socket.create_connection((address, port)) as connection:
    for number in range(mebibytes):
        data = number.to_bytes(8, "big") + block[8:]
        total.update(data)
        connection.sendall(data)
print(total.hexdigest())
"""
RECEIVER = """
import hashlib, socket, sys
total, size = hashlib.sha256(), 0
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    while data := connection.recv(1 << 20):
        total.update(data)
        size += len(data)
print(total.hexdigest())
"""


@pytest.fixture
def pair(namespaces: NamespaceMaker, tmp_path: Path, kinds: tuple[str, str]) -> tuple[Node, Node]:
    """Start two nodes that know each other, each with its own kind of pump."""
    nodes = make_nodes(namespaces, tmp_path, kinds)
    for node in nodes:
        node.start()
        node.meet_all()
    return nodes


both_native = pytest.mark.parametrize("kinds", [("native", "native")])
each_way = pytest.mark.parametrize("kinds", [("native", "python"), ("python", "native"), ("native", "native")])


class Transfer:
    """Bytes by TCP from one pod to another, with SHA-256 at both ends."""

    def __init__(self, source: Namespace, target: Namespace, address: str, port: int, mebibytes: int) -> None:
        receiver = [sys.executable, "-c", RECEIVER, address, str(port)]
        self._receiver = target.popen(receiver, stdout=subprocess.PIPE)
        assert self._receiver.stdout is not None
        assert self._receiver.stdout.readline() == "listening\n"
        sender = [sys.executable, "-c", SENDER, address, str(port), str(mebibytes), f"{address}:{port}"]
        self._sender = source.popen(sender, stdout=subprocess.PIPE)

    @property
    def running(self) -> bool:
        return self._sender.poll() is None

    def hashes(self, timeout_s: float = 100) -> tuple[str, str]:
        """Return what was sent and what arrived."""
        sent, _ = self._sender.communicate(timeout=timeout_s)
        received, _ = self._receiver.communicate(timeout=20)
        return sent.strip(), received.strip()


def checksum_errors(pod: Namespace) -> int:
    """Return the number of TCP segments that this pod's kernel refused because of their checksum."""
    lines = [line.split() for line in pod.run(["cat", "/proc/net/snmp"]).stdout.splitlines() if "Tcp:" in line]
    return int(dict(zip(*lines, strict=True))["InCsumErrors"])


@each_way
def test_both_kinds_of_pump_understand_each_other(pair: tuple[Node, Node]) -> None:
    node1, node2 = pair
    assert "ttl=62" in ping(node1.pod, "10.0.90.2")
    assert "ttl=62" in ping(node2.pod, "10.0.46.2")
    assert " 0% packet loss" in ping(node1.pod, "10.0.90.2", "-M", "do", "-s", "1444")
    there = Transfer(node1.pod, node2.pod, "10.0.90.2", 5001, 8)
    back = Transfer(node2.pod, node1.pod, "10.0.46.2", 5001, 8)
    for transfer in (there, back):
        sent, received = transfer.hashes()
        assert sent == received
    assert checksum_errors(node1.pod) == checksum_errors(node2.pod) == 0
    for node in pair:
        assert node.drops() == {}


@both_native
@pytest.mark.parametrize(
    ("lacks", "named"),
    [
        (["UDP_SEGMENT"], "UDP_SEGMENT"),
        pytest.param(["UDP_GRO"], "UDP_GRO", marks=pytest.mark.slow),
        (["TUN_F_USO4"], "TUN_F_USO4"),
        pytest.param(["TUN_F_USO4", "TUN_F_TSO4"], "TUN_F_TSO4, TUN_F_USO4", marks=pytest.mark.slow),
        pytest.param(["IFF_VNET_HDR"], "IFF_VNET_HDR, TUN_F_TSO4, TUN_F_USO4", marks=pytest.mark.slow),
        (["IFF_VNET_HDR", "UDP_SEGMENT", "UDP_GRO"], "IFF_VNET_HDR, TUN_F_TSO4, TUN_F_USO4, UDP_SEGMENT, UDP_GRO"),
    ],
)
def test_an_older_kernel_is_named_and_carries_the_same(
    namespaces: NamespaceMaker, tmp_path: Path, kinds: tuple[str, str], lacks: list[str], named: str
) -> None:
    older, newer = make_nodes(namespaces, tmp_path, kinds)
    older.lacks = ",".join(lacks)
    for node in (older, newer):
        node.start()
        node.meet_all()
    assert f"native data path: slower, this kernel lacks {named}\n" in older.log.read_text()
    assert "lacks" not in newer.log.read_text()
    assert "ttl=62" in ping(older.pod, "10.0.90.2")
    for transfer in (
        Transfer(older.pod, newer.pod, "10.0.90.2", 5001, 8),
        Transfer(newer.pod, older.pod, "10.0.46.2", 5001, 8),
    ):
        sent, received = transfer.hashes()
        assert sent == received
    assert older.drops() == newer.drops() == {}
    assert checksum_errors(older.pod) == checksum_errors(newer.pod) == 0


@both_native
def test_what_the_sender_counts_the_receiver_counts(pair: tuple[Node, Node]) -> None:
    node1, node2 = pair
    sent, received = Transfer(node1.pod, node2.pod, "10.0.90.2", 5001, 32).hashes()
    assert sent == received

    def agree() -> bool:
        first, second = node1.tell("counters"), node2.tell("counters")
        return bool(first["tx"] == second["rx"] and first["rx"] == second["tx"])

    wait_until(agree, timeout_s=5, what="every datagram that was sent has been counted as received")
    assert node1.tell("counters")["tx"][0] > 32 * MEBIBYTE / 1472, "super-packets count by what is on the wire"


@pytest.mark.slow
@both_native
def test_table_replaced_a_thousand_times_loses_nothing(pair: tuple[Node, Node]) -> None:
    node1, node2 = pair
    transfer = Transfer(node1.pod, node2.pod, "10.0.90.2", 5001, 128)
    more = {f"10.0.{number}.0/24": "192.168.8.99" for number in range(100, 200)}
    peer = {"10.0.90.0/24": "192.168.8.228"}
    while_running = 0
    for number in range(1000):
        node1.tell("peers", peer | more if number % 2 else peer)
        while_running += transfer.running
    sent, received = transfer.hashes()
    assert sent == received
    assert while_running > 100
    assert node1.drops() == node2.drops() == {}


BEACON = """
import socket, sys, time
s = socket.socket(type=socket.SOCK_DGRAM)
end = time.monotonic() + 20
while time.monotonic() < end:
    s.sendto(b"x", (sys.argv[1], 9999))
    time.sleep(0.002)
"""


@both_native
def test_withdrawn_peer_is_silent_within_a_tenth_of_a_second_and_back_as_fast(pair: tuple[Node, Node]) -> None:
    node1, _ = pair
    node1.pod.popen([sys.executable, "-c", BEACON, "10.0.90.2"])

    def sent() -> int:
        return int(node1.tell("counters")["tx"][0])

    def moving() -> bool:
        before = sent()
        time.sleep(0.02)
        return sent() > before

    wait_until(moving, timeout_s=30, what="the beacon is carried")
    node1.tell("peers", {})
    at_once = sent()
    time.sleep(0.1)
    assert sent() == at_once, "no packet is decided by the old table once it is replaced"
    before = time.monotonic()
    node1.meet_all()
    wait_until(lambda: sent() > at_once, timeout_s=5, what="the beacon is carried again")
    assert time.monotonic() - before < 0.1 + 0.05  # wait_until looks every 20 ms


@both_native
@pytest.mark.parametrize("harm", ["link delete flannel0", "link set flannel0 down"])
def test_device_that_goes_away_during_a_transfer_comes_back(pair: tuple[Node, Node], harm: str) -> None:
    node1, node2 = pair
    transfer = Transfer(node1.pod, node2.pod, "10.0.90.2", 5001, 64)
    wait_until(lambda: node1.tell("counters")["tx"][0] > 1000, timeout_s=10, what="the transfer is under way")
    node1.namespace.run(["ip", *harm.split()])
    start = time.monotonic()
    node1.tell("converge")
    assert time.monotonic() - start < 2
    sent, received = transfer.hashes()
    assert sent == received


@pytest.mark.slow
@both_native
def test_threads_sleep_when_nothing_moves(pair: tuple[Node, Node]) -> None:
    """Also after so much in both directions that both threads had work."""
    node1, node2 = pair
    there = Transfer(node1.pod, node2.pod, "10.0.90.2", 5001, 16)
    back = Transfer(node2.pod, node1.pod, "10.0.46.2", 5001, 16)
    for transfer in (there, back):
        transfer.hashes()

    def switches() -> int:
        """Return how often the pump's threads ran at all."""
        assert node1.process is not None
        total = 0
        for task in (f"/proc/{node1.process.pid}/task/{tid}" for tid in tasks(node1.process.pid)):
            with open(f"{task}/status", encoding="ascii") as status:
                total += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
        return total

    def asleep() -> bool:
        before = switches()
        time.sleep(0.1)
        return switches() == before

    wait_until(asleep, timeout_s=5, what="what TCP has to say at its end is said")
    before = switches()
    time.sleep(1)
    assert switches() - before <= 2


def tasks(pid: int) -> list[str]:
    """Return the threads of a process but its first."""
    return [tid for tid in os.listdir(f"/proc/{pid}/task") if tid != str(pid)]
