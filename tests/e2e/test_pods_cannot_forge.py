"""What a hostile pod sends: datagrams of the overlay, other pods' addresses, requests to etcd. None of it arrives."""

import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from testbed.testing.lab_handle import LabHandle
from tests.e2e.hostile import FORGED, Hostile
from tests.e2e.lab import Lab
from tests.e2e.pod_sockets import made_in
from tests.e2e.policy_forgery import IPV4, SERVICE_VLAN, VLAN, heard, inside, ipv4, mac_of, udp
from tests.waiting import wait_until

AT_HOME = """
apiVersion: v1
kind: Pod
metadata: {name: at-home}
spec:
  nodeName: node1
  hostNetwork: true
  containers: [{name: shell, image: shell}]
"""

OVERLAY_PORT = 8285
PODS = ("shell1", "shell2")
TAGS = {
    "VLAN 0": struct.pack("!HH", VLAN, 0),
    "VLAN 0 of a service": struct.pack("!HH", SERVICE_VLAN, 0),
    "VLAN 0 twice": struct.pack("!HHHH", VLAN, 0, VLAN, 0),
    "VLAN 1": struct.pack("!HH", VLAN, 1),
}
HARMS = (
    "flush ruleset",
    "delete table bridge testbed-guard",
    "flush chain bridge testbed-guard from-pods",
    "flush set bridge testbed-guard ports",
    "delete table inet testbed-guard",
)
RESTORED_S = 5.0


@pytest.fixture
def at_home(two_nodes: Lab) -> Iterator[str]:
    """Yield a pod of node1 with `hostNetwork`."""
    two_nodes.must("apply", "-f", "-", "--wait", stdin=AT_HOME)
    yield "at-home"
    two_nodes.must("delete", "pod", "at-home")


@pytest.fixture
def hostile(two_nodes_handle: LabHandle) -> Iterator[Hostile]:
    """Yield the hostile pod; allowed traffic is checked before and after."""
    two_nodes_handle.wait_ready()
    found = Hostile(two_nodes_handle)
    found.good()
    yield found
    found.good()


def test_the_forger_forges(hostile: Hostile) -> None:
    """With its own address everything arrives: what stops the others is not the tool."""
    before = hostile.delivered()
    hostile.forge("plain", hostile.pods["shell1"], hostile.pods["shell2"])
    wait_until(lambda: hostile.delivered() - before == FORGED, timeout_s=10, what="all of them arrive")


def test_no_datagram_of_the_overlay_leaves_a_pod(hostile: Hostile) -> None:
    before, dropped = hostile.delivered(), hostile.dropped("pods forge no packets of the overlay")
    inner = f"{hostile.pods['shell1']},{hostile.pods['shell2']}"
    hostile.forge("overlay", hostile.pods["shell1"], hostile.nodes["node2"], inner)
    assert hostile.delivered() == before
    assert hostile.dropped("pods forge no packets of the overlay") - dropped == FORGED


@pytest.mark.parametrize("ports", [(OVERLAY_PORT, 9000), (9000, OVERLAY_PORT)])
def test_a_flow_between_pods_of_two_nodes_may_have_the_overlays_port(two_nodes: Lab, ports: tuple[int, int]) -> None:
    status = two_nodes.json("status")
    one, other = (made_in(status["pid"], pod, partial(bound_to, port)) for pod, port in zip(PODS, ports, strict=True))
    address = next(pod["address"] for pod in status["pods"] if pod["name"] == PODS[1])

    def is_answered() -> bool:
        try:
            one.sendto(b"asked", (address, ports[1]))
            data, asker = other.recvfrom(100)
            other.sendto(data, asker)
            return one.recv(100) == b"asked"
        except TimeoutError:
            return False

    with one, other:
        wait_until(is_answered, timeout_s=30, what="a datagram and its answer arrive")


def bound_to(port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    found.bind(("", port))
    found.settimeout(1)
    return found


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
def test_no_datagram_of_the_overlay_reaches_the_pods_own_node(hostile: Hostile) -> None:
    """As if it came from a peer: the node itself has the port open."""
    before, dropped = hostile.delivered(), hostile.dropped("pods forge no packets of the overlay")
    inner = f"{hostile.pods['shell2']},{hostile.pods['echo1']}"
    hostile.forge("overlay", hostile.pods["shell1"], hostile.nodes["node1"], inner)
    assert hostile.delivered() == before
    assert hostile.dropped("pods forge no packets of the overlay") - dropped == FORGED


@pytest.mark.slow
def test_no_frame_leaves_a_pod_with_another_mac(hostile: Hostile) -> None:
    gateway = hostile.mac_of("node1", "docker0")
    before, dropped = hostile.delivered("shell2"), hostile.dropped("a pod's own address")
    hostile.forge("ip", hostile.pods["shell1"], hostile.pods["shell2"], gateway)
    assert hostile.delivered("shell2") - before == FORGED, "with its own MAC they arrive"
    before = hostile.delivered("shell2")
    hostile.forge("mac", hostile.pods["shell1"], hostile.pods["shell2"], gateway)
    assert hostile.delivered("shell2") == before
    assert hostile.dropped("a pod's own address") - dropped == FORGED


@pytest.mark.slow
def test_nobody_believes_a_pod_that_claims_anothers_address_by_arp(hostile: Hostile) -> None:
    lab, echo1, own = hostile.lab, hostile.pods["echo1"], hostile.mac_of("shell1", "eth0")
    gateway = lab.exec("shell1", "ip", "-o", "route", "get", hostile.nodes["node2"]).check().split()[2]
    for claimed in (echo1, gateway):
        dropped = hostile.dropped("a pod's own ARP")
        hostile.forge("arp", claimed, claimed)
        assert hostile.dropped("a pod's own ARP") - dropped == FORGED
        for place in ("node1", "echo1"):
            neighbours = [line for line in lab.exec(place, "ip", "neigh").check().splitlines() if own in line]
            assert all(line.startswith(f"{hostile.pods['shell1']} ") for line in neighbours), neighbours
    assert lab.ping("shell2", "echo1").lost == 0


# Frames from shell1 to echo1, which is on the same bridge and which no policy isolates


@pytest.fixture
def arrives(hostile: Hostile) -> Iterator[Callable[[str, bytes], bool]]:
    """Yield whether a frame with this source address and these VLAN tags reaches echo1's link."""
    pods, pid = hostile.pods, hostile.lab.status()["pid"]

    def sent(source: str, tags: bytes = b"") -> bool:
        ethernet = mac_of(pods["echo1"]) + mac_of(pods["shell1"]) + tags + struct.pack("!H", IPV4)
        sender.send(ethernet + ipv4(source, pods["echo1"], 17, udp(80)))
        return bool(heard(listener))

    with inside(pid, "shell1") as sender, inside(pid, "echo1") as listener:
        yield sent


def test_no_vlan_tag_hides_anothers_address(hostile: Hostile, arrives: Callable[[str, bytes], bool]) -> None:
    """The receiving kernel takes a tag of VLAN 0 off: what is behind it arrives as if there was none."""
    wait_until(lambda: arrives(hostile.pods["shell1"], b""), timeout_s=20, what="its own address passes")
    arrived = {tag: arrives(hostile.pods["shell2"], tags) for tag, tags in {"no tag": b"", **TAGS}.items()}
    assert not any(arrived.values()), arrived
    wait_until(lambda: arrives(hostile.pods["shell1"], b""), timeout_s=20, what="its own address passes")


def underlay_rules_are_there(lab: LabHandle) -> bool:
    listed = lab.exec("node1", "nft", "list", "table", "inet", "testbed-guard").stdout
    return all(word in listed for word in ("pods do not reach etcd", "192.168.8.11", "masquerade"))


def test_deleted_rules_for_pods_are_restored(hostile: Hostile, arrives: Callable[[str, bytes], bool]) -> None:
    lab = hostile.lab
    for harm in HARMS:
        lab.exec("node1", "nft", harm).check()
        wait_until(lambda: arrives(hostile.pods["shell1"], b""), timeout_s=20, what=f"its own address after: {harm}")
        wait_until(
            lambda: not arrives(hostile.pods["shell2"], b""), timeout_s=RESTORED_S, what=f"forgery fails after: {harm}"
        )
        wait_until(lambda: underlay_rules_are_there(lab), timeout_s=RESTORED_S, what=f"rules for etcd after: {harm}")
        assert lab.exec("shell1", "ping", "-c1", "-W1", "192.168.8.11").exit_code == 1, harm
    assert "PodGuardRestored" in {event["reason"] for event in lab.events()}


@pytest.mark.slow
def test_no_packet_for_etcd_leaves_a_node(hostile: Hostile) -> None:
    dropped = hostile.dropped("pods do not reach etcd")
    hostile.forge("plain", hostile.pods["shell1"], "192.168.8.11")
    assert hostile.dropped("pods do not reach etcd") - dropped == FORGED


@pytest.mark.slow
def test_the_port_of_etcd_is_anybodys_elsewhere(hostile: Hostile) -> None:
    serve = "cd /tmp; timeout 20 python3 -m http.server 2379 >/dev/null 2>&1 & echo"
    hostile.lab.exec("shell2", "sh", "-c", serve).check()
    url = f"http://{hostile.pods['shell2']}:2379/"
    hostile.lab.wait_until(lambda: hostile.lab.curl("shell1", url).status == 200, 10, "a pod has port 2379")


@pytest.mark.slow
def test_pods_cannot_reach_etcd_on_any_port(hostile: Hostile) -> None:
    address = "192.168.8.11"
    assert hostile.lab.ping("node1", "etcd1").lost == 0
    dropped = hostile.dropped("pods do not reach etcd")
    assert hostile.lab.exec("shell1", "ping", "-c2", "-i0.2", "-W1", address).exit_code == 1
    for port in (2379, 2380, 2381):
        assert hostile.lab.curl("shell1", f"https://{address}:{port}/", "--insecure", timeout_s=1).status == 0
    assert hostile.dropped("pods do not reach etcd") - dropped >= 5


# A pod with its node's network is its node to everybody else: docs/security.md, «What is not protected».


def test_a_pod_with_its_nodes_network_can_forge_datagrams_of_the_overlay(hostile: Hostile, at_home: str) -> None:
    before = hostile.delivered("shell2")
    inner = f"{hostile.pods['echo1']},{hostile.pods['shell2']}"
    hostile.forge("overlay", hostile.nodes["node1"], hostile.nodes["node2"], inner, place=at_home)
    wait_until(lambda: hostile.delivered("shell2") - before == FORGED, timeout_s=10, what="all of them arrive")


@pytest.mark.slow
def test_a_pod_with_its_nodes_network_can_forge_for_its_own_node_alone(hostile: Hostile, at_home: str) -> None:
    """The inner source has to be of the node's subnet, whoever sends."""
    before = hostile.delivered("shell2")
    inner = f"{hostile.pods['echo2']},{hostile.pods['shell2']}"
    hostile.forge("overlay", hostile.nodes["node1"], hostile.nodes["node2"], inner, place=at_home)
    assert hostile.delivered("shell2") == before


@pytest.mark.slow
def test_a_pod_with_its_nodes_network_reaches_etcd_and_gets_nothing_without_a_certificate(
    hostile: Hostile, at_home: str
) -> None:
    lab, url = hostile.lab, "https://192.168.8.11:2379/version"
    assert lab.ping("node1", "etcd1").lost == 0
    assert lab.exec(at_home, "ping", "-c1", "-W2", "192.168.8.11").exit_code == 0
    asked = lab.exec(at_home, "curl", "-sS", "-m5", "--insecure", "-w", "%{num_connects}", url)
    assert asked.exit_code != 0
    assert asked.stdout == "1", "one connection, and not a word of etcd"
    assert lab.exec(at_home, "ls", "/run/tls").exit_code != 0, "the agent's own is the node's, and no pod's"


@pytest.mark.slow
def test_a_pod_with_its_nodes_network_sees_the_agents_page(hostile: Hostile, at_home: str) -> None:
    page = "http://127.0.0.1:8286/readyz"
    assert hostile.lab.curl(at_home, page).status == 200
    assert hostile.lab.curl("shell1", page).status == 0
