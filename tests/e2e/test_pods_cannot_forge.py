"""What a hostile pod sends: datagrams of the overlay, other pods' addresses, requests to etcd. None of it arrives."""

import re
from collections.abc import Iterator

import pytest

from testbed.testing.lab_handle import LabHandle

FORGED = 50
PERIOD_S = 0.1
"""50 packets in 5 s."""

# What the pod runs: packets of any addresses, which root in a pod may send.
FORGER = """
import socket, struct, sys, time
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
def ipv4(source, destination, protocol, payload):
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0,
                         socket.inet_aton(source), socket.inet_aton(destination))
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload
def udp(source_port, destination_port, payload):
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload
what, source, destination, inner, count, period = sys.argv[1:]
mark = udp(40000, 40001, b"forged")
if what == "overlay":
    packet = ipv4(source, destination, 17, udp(8285, 8285, ipv4(*inner.split(","), 17, mark)))
else:
    packet = ipv4(source, destination, 17, mark)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for _ in range(int(count)):
    raw.sendto(packet, (destination, 0))
    time.sleep(float(period))
"""


class Hostile:
    """The pod shell1 and what it can find out about the others."""

    def __init__(self, lab: LabHandle) -> None:
        self.lab = lab
        self.pods = {pod.name: str(pod.address) for pod in lab.pods.values()}
        self.nodes = {node.name: node.address for node in lab.nodes.values()}

    def forge(self, what: str, source: str, destination: str, inner: str = "-") -> None:
        """Send so many packets in so many seconds."""
        words = ["python3", "-c", FORGER, what, source, destination, inner, str(FORGED), str(PERIOD_S)]
        self.lab.exec("shell1", *words).check()

    def dropped(self, rule: str) -> int:
        """How many packets the node's rules with that comment have dropped."""
        rules = self.lab.exec("node1", "nft", "list", "ruleset").check()
        return sum(int(found) for found in re.findall(rf'counter packets (\d+) bytes \d+ drop comment "{rule}', rules))

    def delivered(self) -> int:
        """How many forged packets arrived at shell2 or echo1, where one counts what comes to the port."""
        count = 0
        for name in ("shell2", "echo1"):
            rules = self.lab.exec(name, "cat", "/proc/net/snmp").check()
            udp = [line.split() for line in rules.splitlines() if line.startswith("Udp:")]
            count += int(udp[1][udp[0].index("NoPorts")])
        return count

    def good(self) -> None:
        """What is allowed goes: within the node and across."""
        assert self.lab.ping("shell1", "shell2").lost == 0
        assert self.lab.ping("shell1", "echo1").lost == 0


@pytest.fixture
def hostile(two_nodes_handle: LabHandle) -> Iterator[Hostile]:
    """Good traffic is proven before and after."""
    two_nodes_handle.wait_ready()
    found = Hostile(two_nodes_handle)
    found.good()
    yield found
    found.good()


def test_the_forger_forges(hostile: Hostile) -> None:
    """With its own address everything arrives: what stops the others is not the tool."""
    before = hostile.delivered()
    hostile.forge("plain", hostile.pods["shell1"], hostile.pods["shell2"])
    assert hostile.delivered() - before == FORGED


def test_no_datagram_of_the_overlay_leaves_a_pod(hostile: Hostile) -> None:
    before, dropped = hostile.delivered(), hostile.dropped("pods forge no packets of the overlay")
    inner = f"{hostile.pods['shell1']},{hostile.pods['shell2']}"
    hostile.forge("overlay", hostile.pods["shell1"], hostile.nodes["node2"], inner)
    assert hostile.delivered() == before
    assert hostile.dropped("pods forge no packets of the overlay") - dropped == FORGED


@pytest.mark.slow
@pytest.mark.parametrize(
    "whose",
    [
        "another pod's",
        *(pytest.param(other, marks=pytest.mark.slow) for other in ("a node's", "of another node's pod")),
    ],
)
def test_no_packet_leaves_a_pod_with_an_address(hostile: Hostile, whose: str) -> None:
    source = {
        "another pod's": hostile.pods["echo1"],
        "a node's": hostile.nodes["node1"],
        "of another node's pod": hostile.pods["echo2"],
    }[whose]
    before, dropped = hostile.delivered(), hostile.dropped("a pod's own address")
    hostile.forge("plain", source, hostile.pods["shell2"])
    assert hostile.delivered() == before
    assert hostile.dropped("a pod's own address") - dropped == FORGED


@pytest.mark.slow
def test_etcd_is_not_there_for_pods_whatever_the_port(hostile: Hostile) -> None:
    address = "192.168.8.11"
    assert hostile.lab.ping("node1", "etcd1").lost == 0
    dropped = hostile.dropped("pods do not reach etcd")
    assert hostile.lab.exec("shell1", "ping", "-c2", "-i0.2", "-W1", address).exit_code == 1
    for port in (2379, 2380, 2381):
        assert hostile.lab.curl("shell1", f"https://{address}:{port}/", "--insecure", timeout_s=1).status == 0
    assert hostile.dropped("pods do not reach etcd") - dropped >= 5
