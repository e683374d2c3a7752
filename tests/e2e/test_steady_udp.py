"""A program that sends UDP from one port without a pause is answered as soon as its destination is programmed.

The connection tracker sends all datagrams of such a flow where the first one went.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, lab_of
from tests.e2e.steady_udp import SteadySender
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow]

Send = Callable[..., SteadySender]
LASTING, LATE, LATE_6 = "10.96.0.20", "10.96.0.77", "fd00:10:96::77"
NODE_2, NODE_2_6 = "192.168.8.2", "fd00:8::2"
NODE_PORT, HOST_PORT = 30053, 5140
ADDRESSES = {4: (LATE, NODE_2), 6: (LATE_6, NODE_2_6)}


@pytest.fixture(scope="module")
def lab(_as_root: None) -> Iterator[Lab]:
    with lab_of(Path(__file__).with_name("steady_udp.yaml")) as running:
        yield running


@pytest.fixture
def send(lab: Lab) -> Iterator[Send]:
    """Start steady senders, each from a port that no other test used; they end with the test."""
    with ExitStack() as senders:

        def start(source: str, host: str, port: int, **more: float) -> SteadySender:
            return senders.enter_context(SteadySender(lab, source, host, port, next(own_ports), **more))

        yield start


own_ports = iter(range(20_000, 30_000))


@pytest.fixture
def apply(lab: Lab) -> Iterator[Callable[..., float]]:
    """Apply manifests, return when all of it was programmed; all goes when the test ends."""
    made: list[tuple[str, str]] = []

    def put(*manifests: dict[str, object]) -> float:
        made.extend((one["kind"], one["metadata"]["name"]) for one in manifests)  # type: ignore[index,misc]  # JSON
        lab.must("apply", "-f", "-", "--wait", stdin="\n---\n".join(map(json.dumps, manifests)))
        return time.time()

    yield put
    for kind, name in dict.fromkeys(made):
        lab.must("delete", kind.lower(), name, "--ignore-not-found", *(["--grace-period", "0"] * (kind == "Pod")))


def service(name: str = "late", label: str = "back", **spec: object) -> dict[str, object]:
    """Return a Service of UDP port 53 with a node port and an address of either family."""
    whole = {
        **{"type": "NodePort", "selector": {"app": label}, "clusterIPs": [LATE, LATE_6], "clusterIP": LATE},
        **{"ipFamilyPolicy": "RequireDualStack"},
        **{"ports": [{"port": 53, "targetPort": 8080, "nodePort": NODE_PORT, "protocol": "UDP"}]},
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


def pod(name: str, node: str, label: str, **port: object) -> dict[str, object]:
    """Return a pod with the echo server."""
    ports = [{"containerPort": 8080, "protocol": "UDP", **port}]
    containers = [{"name": "echo", "image": "echo", "ports": ports}]
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": label}}, "spec": spec}


@pytest.mark.row("K13")
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("source", ["client", "node1"])
def test_senders_are_answered_when_their_service_comes_and_when_it_comes_again(
    source: str, family: int, lab: Lab, send: Send, apply: Callable[..., float]
) -> None:
    cluster_ip, node = ADDRESSES[family]
    senders = [send(source, cluster_ip, 53), send(source, node, NODE_PORT)]
    for _ in range(2):
        for sender in senders:
            sender.is_not_answered()
        programmed = apply(service())
        for sender in senders:
            sender.is_answered_by("near", "far", since=programmed)
        lab.must("delete", "service", "late")


@pytest.mark.row("K13")
def test_a_sender_at_1_khz_is_answered_every_time_its_service_comes(
    lab: Lab, send: Send, apply: Callable[..., float]
) -> None:
    """A datagram between the rules' change and the forgetting must not keep the flow as it was."""
    senders = [send(source, LATE, 53, every_s=0.001) for source in ("client", "node1")]
    for _ in range(10):
        programmed = apply(service())
        for sender in senders:
            sender.is_answered_by("near", "far", since=programmed)
        lab.must("delete", "service", "late")


@pytest.mark.row("K13")
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("source", ["client", "node1"])
def test_a_sender_to_a_host_port_is_answered_when_its_pod_comes_and_when_it_comes_again(
    source: str, family: int, lab: Lab, send: Send, apply: Callable[..., float]
) -> None:
    sender = send(source, ADDRESSES[family][1], HOST_PORT)
    for _ in range(2):
        sender.is_not_answered()
        programmed = apply(pod("syslog", "node2", "syslog", hostPort=HOST_PORT))
        sender.is_answered_by("syslog", since=programmed)
        lab.must("delete", "pod", "syslog")


@pytest.mark.parametrize("family", [4, 6])
def test_a_server_of_the_node_itself_follows_a_pod_on_one_port(
    family: int, lab: Lab, send: Send, apply: Callable[..., float]
) -> None:
    """A pod moves from a host port to its node's own network: the flow must not stay with the address that it had."""
    apply(pod("syslog", "node2", "syslog", hostPort=HOST_PORT))
    sender = send("client", ADDRESSES[family][1], HOST_PORT)
    sender.is_answered_by("syslog", since=0.0)
    lab.must("delete", "pod", "syslog")
    host = pod("syslog-host", "node2", "syslog")
    host["spec"] |= {"hostNetwork": True}  # type: ignore[operator]  # JSON
    host["spec"]["containers"][0] |= {"ports": [{"containerPort": HOST_PORT, "protocol": "UDP"}]}  # type: ignore[index]
    host["spec"]["containers"][0] |= {"env": [{"name": "PORT", "value": str(HOST_PORT)}]}  # type: ignore[index]
    programmed = apply(host)
    sender.is_answered_by("node2", since=programmed)


def test_senders_follow_a_service_to_other_pods_and_never_reach_the_new_owner_of_an_address(
    lab: Lab, send: Send, apply: Callable[..., float]
) -> None:
    apply(pod("first", "node2", "moving"), service(label="moving"))
    address = lab.pod("first")["address"]
    senders = [send("client", LATE, 53), send("client", NODE_2, NODE_PORT), send("node1", LATE, 53)]
    for sender in senders:
        sender.is_answered_by("first", since=0.0)
    lab.must("delete", "pod", "first")
    apply(pod("newcomer", "node2", "someone-else"))
    assert lab.pod("newcomer")["address"] == address
    for sender in senders:
        sender.is_not_answered()
    programmed = apply(pod("second", "node1", "moving"))
    for sender in senders:
        sender.is_answered_by("second", since=programmed)
        assert "newcomer" not in sender.answers()


def test_flows_that_are_right_stay_with_their_pod_whatever_else_changes(
    lab: Lab, send: Send, apply: Callable[..., float]
) -> None:
    senders = [send("client", LASTING, 80) for _ in range(8)]
    servers = []
    for sender in senders:
        sender.is_answered_by("near", "far", since=0.0)
        servers.append(sender.answers()[0])
    since = time.time()
    apply(service())
    apply(pod("third", "node2", "back"))
    apply(pod("syslog", "node2", "syslog", hostPort=HOST_PORT))
    lab.must("delete", "service", "late")
    lab.must("delete", "pod", "syslog")
    for sender, server in zip(senders, servers, strict=True):
        sender.is_answered_by(server, since=time.time())
        assert set(sender.answers()) == {server}
        # None was lost either, but for those that are under way.
        assert sender.sent(since) - len(sender.answers(since)) <= 2


def test_a_new_traffic_policy_holds_for_flows_that_began_before_it(
    lab: Lab, send: Send, apply: Callable[..., float]
) -> None:
    apply(service())
    senders = [send("node1", NODE_2, NODE_PORT) for _ in range(6)]
    for sender in senders:
        sender.is_answered_by("near", "far", since=0.0)
    programmed = apply(service(externalTrafficPolicy="Local"))
    for sender in senders:
        sender.is_answered_by("far", since=programmed)
        since = time.time()
        wait_until(lambda since=since, sender=sender: len(sender.answers(since)) > 5, timeout_s=2, what="answers")  # type: ignore[misc]
        assert set(sender.answers(since)) == {"far"}


@pytest.mark.row("K13")
def test_a_sender_that_began_while_the_rules_were_gone_is_answered_when_they_are_back(lab: Lab, send: Send) -> None:
    for _ in range(3):
        # Names' rules keep connection tracking switched on.
        lab.run("node1", "nft", "delete", "table", "ip", "testbed-services")
        sender = send("client", LASTING, 80)
        began = time.time()
        sender.is_answered_by("near", "far", since=began, within_s=4)


ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 9999))
while True:
    _, sender = server.recvfrom(2000)
    try:
        server.sendto(sender[0].encode(), sender)
    except OSError:
        pass
"""


def test_a_pod_that_sent_outside_before_masquerading_was_in_force_gets_its_answers(lab: Lab, send: Send) -> None:
    agent = str(lab.node("node1")["agent"]["pid"])
    with lab.running("exec", "gw", "--", "python3", "-c", ECHO):
        before = send("client", "192.168.8.10", 9999)
        before.is_answered_by("192.168.8.1", since=0.0, within_s=10)
        lab.run("node1", "kill", "-STOP", agent)
        try:
            lab.run("node1", "nft", "delete", "table", "ip", "overlay-agent-10.0.0.0-16")
            sender = send("client", "192.168.8.10", 9999)
            sender.is_not_answered()
        finally:
            lab.run("node1", "kill", "-CONT", agent)
        wait_until(
            lambda: "overlay-agent-10.0.0.0-16" in lab.run("node1", "nft", "list", "tables"),
            timeout_s=20,
            what="the agent makes its rules again",
        )
        sender.is_answered_by("192.168.8.1", since=time.time())
