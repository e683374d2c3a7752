"""UDP flows in a real connection tracker: which are forgotten, and that what is called right is what the rules do."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from agent.kernel.conntrack import AT_ONCE, FAMILIES, FEW_PORTS, forget_flows
from agent.kernel.firewall import Firewall, Policy, escapes
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.kernel.values import Family, Flow, IPAddress, IPNetwork
from testbed.cluster.object_key import key_of
from testbed.services.endpoints import BoundPort, Endpoint, HostPort
from testbed.services.programmer import Programmer
from testbed.services.rules import everywhere
from testbed.services.udp_flows import FlowNode, on_node
from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.namespace_thread import NamespaceThread

pytestmark = pytest.mark.root

TRACKING = """table inet tracking {
 chain received { type filter hook prerouting priority 0; ct state new counter; }
 chain sent { type filter hook output priority 0; ct state new counter; }
}
"""
"""Switches connection tracking on, and nothing else."""
SEND = """
import socket, sys
host, port, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
for own in range(first, first + count):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", own))
        sender.sendto(b"x", (host, port))
"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """What the machines of one family are called."""

    version: Family
    network: IPNetwork
    subnet: IPNetwork
    node: IPAddress
    client: IPAddress
    here: IPAddress
    """A pod of the node."""
    there: IPAddress
    """A pod of another node."""
    outside: IPAddress
    cluster_ip: IPAddress


V4 = Addresses(
    4,
    IPv4Network("10.0.0.0/16"),
    IPv4Network("10.0.1.0/24"),
    *map(IPv4Address, ("192.168.8.1", "10.0.1.3", "10.0.1.2", "10.0.2.2", "192.168.8.10", "10.96.0.77")),
)
V6 = Addresses(
    6,
    IPv6Network("fd00:a::/48"),
    IPv6Network("fd00:a:0:1::/64"),
    *map(IPv6Address, ("fd00:8::1", "fd00:a:0:1::3", "fd00:a:0:1::2", "fd00:a:0:2::2", "fd00:8::10", "fd00:10:96::77")),
)
both_families = pytest.mark.parametrize("by", [V4, V6], ids=["IPv4", "IPv6"])


class Machines:
    """A node with one pod and a client outside. Its other pods are addresses that never reply."""

    def __init__(self, namespaces: NamespaceMaker) -> None:
        self.node, self.client, self.outside = (namespaces(name) for name in ("node", "client", "outside"))
        self.node.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        # Else the first flow is forgotten after 30 s, while a busy machine still sends the last.
        self.node.run(["sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=600"], check=False)
        self.node.connect(self.client, ("client", None), ("eth0", None))
        self.node.connect(self.outside, ("outside", None), ("eth0", None))
        self.node.run(["ip", "link", "add", "pods", "type", "veth", "peer", "pods-far"])
        for device in ("pods", "pods-far", "client", "outside"):
            self.node.run(["ip", "link", "set", device, "up"])
        for namespace in (self.client, self.outside):
            namespace.run(["ip", "link", "set", "eth0", "up"])
        for by in (V4, V6):
            self._address(by)

    def _address(self, by: Addresses) -> None:
        ip, length = ["ip", f"-{by.version}"], by.subnet.prefixlen
        quick = [] if by.version == 4 else ["nodad"]
        for namespace, device, own, gateway in (
            (self.client, "client", by.client, by.subnet[1]),
            (self.outside, "outside", by.outside, by.node),
        ):
            self.node.run([*ip, "address", "add", f"{gateway}/{length}", "dev", device, *quick])
            namespace.run([*ip, "address", "add", f"{own}/{length}", "dev", "eth0", *quick])
            for there in ("default", str(by.here)):
                namespace.run([*ip, "route", "add", there, "via", str(gateway)])
        self.node.run([*ip, "route", "add", "default", "via", str(by.outside)])
        for pod in (by.here, by.there):
            self.node.run([*ip, "route", "add", str(pod), "dev", "pods"])
            self.node.run([*ip, "neighbour", "add", str(pod), "lladdr", "02:00:00:00:00:02", "dev", "pods"])


@pytest.fixture
def machines(namespaces: NamespaceMaker) -> Machines:
    return Machines(namespaces)


@pytest.fixture
def inside(machines: Machines) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Run a function in the node's network namespace."""
    thread = NamespaceThread(machines.node.pid)
    yield thread.run
    thread.close()


@pytest.fixture
def kernel(machines: Machines) -> Iterator[Kernel]:
    with Kernel(SilentJournal(), machines.node.pid) as opened:
        yield opened


Inside = Callable[[Callable[[], Any]], Any]


def send(source: Namespace, to: IPAddress, port: int, first: int = 20_000, count: int = 1) -> None:
    """Send a datagram from each of `count` ports."""
    source.run(["python3", "-c", SEND, str(to), str(port), str(first), str(count)])


def flows(inside: Inside, version: Family, *ports: int) -> list[Flow]:
    """Return every flow to one of these ports, or of UDP."""
    found: list[Flow] = []

    def see(flow: Flow) -> bool:
        found.append(flow)
        return False

    inside(lambda: forget_flows(version, see, ports))
    return found


@both_families
def test_a_flow_is_read_as_it_was_sent_and_as_it_is_answered(by: Addresses, machines: Machines, inside: Inside) -> None:
    ip = "ip" if by.version == 4 else "ip6"
    to = f"{by.here}:8080" if by.version == 4 else f"[{by.here}]:8080"
    machines.node.run(
        [
            "nft",
            f"table {ip} t {{ chain c {{ type nat hook prerouting priority -100; "
            f"{ip} daddr {by.cluster_ip} udp dport 53 dnat to {to}; }}; }}",
        ]
    )
    send(machines.client, by.cluster_ip, 53)
    assert flows(inside, by.version, 53) == [Flow(by.client, 20_000, by.cluster_ip, 53, by.here, 8080, by.client)]


@both_families
def test_only_the_chosen_flows_are_forgotten(by: Addresses, machines: Machines, inside: Inside) -> None:
    machines.node.run(["nft", TRACKING])
    send(machines.client, by.here, 53, count=AT_ONCE + 10)
    send(machines.client, by.here, 54, count=3)
    forgotten = inside(lambda: forget_flows(by.version, lambda flow: flow.source_port != 20_001, [53]))
    assert len(forgotten) == AT_ONCE + 9
    left = flows(inside, by.version)
    assert {(flow.destination_port, flow.source_port) for flow in left} == {
        (53, 20_001),
        *((54, port) for port in range(20_000, 20_003)),
    }


def test_many_ports_are_looked_at_together(machines: Machines, inside: Inside) -> None:
    machines.node.run(["nft", TRACKING])
    ports = range(53, 53 + FEW_PORTS + 1)
    for port in ports:
        send(machines.client, V4.here, port)
    assert len(inside(lambda: forget_flows(4, lambda _: True, ports))) == len(ports)
    assert flows(inside, 4) == []


def test_tcp_and_the_other_family_are_left_alone(machines: Machines, inside: Inside) -> None:
    machines.node.run(["nft", TRACKING])
    connect = "import socket; s = socket.socket(); s.settimeout(0.1); s.connect_ex(('10.0.1.2', 53))"
    machines.client.run(["python3", "-c", connect])
    send(machines.client, V6.here, 53)
    send(machines.client, V4.here, 53)
    count = "/proc/sys/net/netfilter/nf_conntrack_count"
    before = int(machines.node.run(["cat", count]).stdout)
    assert len(inside(lambda: forget_flows(4, lambda _: True))) == 1
    assert int(machines.node.run(["cat", count]).stdout) == before - 1
    assert len(flows(inside, 6)) == 1


OTHER_PORTS = range(60, 68)


@contextmanager
def one_processor() -> Iterator[None]:
    """Stay on one processor, with what this thread starts: an entry's memory is freed and taken again per processor."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_flow_that_restarted_meanwhile_is_not_forgotten(machines: Machines, inside: Inside) -> None:
    machines.node.run(["nft", TRACKING])

    def begins_again(flow: Flow) -> bool:
        with one_processor():
            assert len(forget_flows(4, lambda other: other == flow)) == 1
            # An entry's number is made of its place in memory: others take that before the flow begins again.
            for port in OTHER_PORTS:
                send(machines.client, V4.here, port)
            send(machines.client, V4.here, 53)
        return True

    with one_processor():
        send(machines.client, V4.here, 53)
    inside(lambda: forget_flows(4, begins_again, [53]))
    assert len([flow for flow in flows(inside, 4) if flow.destination_port == 53]) == 1


def test_without_connection_tracking_there_is_nothing_to_forget(machines: Machines, inside: Inside) -> None:
    send(machines.client, V4.here, 53)
    assert inside(lambda: forget_flows(4, lambda _: True)) == []


# Services


def services(by: Addresses) -> tuple[list[BoundPort], list[HostPort]]:
    """Return one of each kind."""
    ends = (Endpoint(by.here, 8080, key_of("here"), "node1"), Endpoint(by.there, 8080, key_of("there"), "node2"))
    wide = BoundPort(key_of("wide"), "", "udp", by.cluster_ip, 53, 30053, None, False, ends)
    local = BoundPort(key_of("local"), "", "udp", by.cluster_ip, 54, 30054, None, True, ends)
    at_node = by.node if isinstance(by.node, IPv4Address) else None
    return [wide, local], [HostPort("udp", None, 5140, ends[0]), HostPort("udp", at_node, 5141, ends[0])]


KEYS = ("cluster_ip", 53), ("cluster_ip", 54), ("node", 30053), ("node", 30054), ("node", 5140), ("node", 5141)


def judge(by: Addresses, kernel: Kernel, bound: list[BoundPort], host: list[HostPort]) -> FlowNode:
    common = everywhere(bound, by.version)
    translations = on_node("node1", common.translations, common.local, host)
    return FlowNode(translations, kernel.own_addresses(by.version), by.network)


@both_families
def test_the_rules_of_services_do_what_is_declared_right(
    by: Addresses, machines: Machines, inside: Inside, kernel: Kernel
) -> None:
    bound, host = services(by)
    programmer = Programmer("node1", machines.node.pid, by.network, kernel)
    programmer.program(everywhere(bound, by.version), host)
    for source in (machines.client, machines.outside, machines.node):
        for where, port in KEYS:
            send(source, getattr(by, where), port, count=12)
    found, node = flows(inside, by.version), judge(by, kernel, bound, host)
    assert len(found) == 3 * 12 * len(KEYS)
    assert {flow.reply_source for flow in found} == {by.here, by.there}
    assert [flow for flow in found if node.is_stale(flow, frozenset(node.translations))] == []
    # And none of it is right when it is no longer translated.
    before = judge(by, kernel, [], [])
    assert all(before.is_stale(flow, frozenset(node.translations)) for flow in found)


@both_families
def test_flows_that_began_before_services_are_wrong_but_not_those_to_elsewhere(
    by: Addresses, machines: Machines, inside: Inside, kernel: Kernel
) -> None:
    machines.node.run(["nft", TRACKING])
    for source in (machines.client, machines.outside, machines.node):
        for where, port in KEYS:
            send(source, getattr(by, where), port)
    send(machines.client, by.outside, 30053)
    send(machines.client, by.there, 8080)
    send(machines.node, ip_address("127.0.0.1" if by.version == 4 else "::1"), 5140, first=30_000)
    bound, host = services(by)
    Programmer("node1", machines.node.pid, by.network, kernel).program(everywhere(bound, by.version), host)
    assert {(flow.destination, flow.destination_port) for flow in flows(inside, by.version)} == {
        (by.outside, 30053),
        (by.there, 8080),
        (ip_address("127.0.0.1" if by.version == 4 else "::1"), 5140),
    }


def test_a_flow_that_met_the_old_rules_and_is_remembered_late_is_forgotten_a_moment_later(
    machines: Machines, inside: Inside, kernel: Kernel
) -> None:
    bound, host = services(V4)
    programmer = Programmer("node1", machines.node.pid, V4.network, kernel)
    programmer.program(everywhere(bound), host)

    def remember(source_port: int) -> None:
        """Remember it, as the kernel does for a packet that was under way."""
        ends = {"saddr": str(V4.client), "daddr": str(V4.cluster_ip), "proto": 17, "sport": source_port, "dport": 53}
        original = NFCTAttrTuple(**ends)
        with NFCTSocket(FAMILIES[4]) as tracker:
            tracker.entry("add", timeout=30, tuple_orig=original, tuple_reply=original.reverse())

    inside(lambda: remember(20_000))
    assert len(flows(inside, 4, 53)) == 1
    assert not programmer.repair()
    assert flows(inside, 4, 53) == []
    # After that nothing is looked at until something changes.
    inside(lambda: remember(20_001))
    assert not programmer.repair()
    assert len(flows(inside, 4, 53)) == 1


# Masquerading


@both_families
def test_the_agents_rules_do_what_is_declared_right(
    by: Addresses, machines: Machines, inside: Inside, kernel: Kernel
) -> None:
    machines.node.run(["nft", TRACKING])
    policy = Policy(by.network, by.subnet, masquerade=True)

    def send_all() -> None:
        for source, destinations in (
            (machines.client, (by.outside, by.there, by.here, by.node)),
            (machines.outside, (by.there, by.here, by.node)),
            (machines.node, (by.outside, by.here)),
        ):
            for destination in destinations:
                send(source, destination, 9000)

    def escaped() -> set[tuple[IPAddress, IPAddress]]:
        own = kernel.own_addresses(by.version)
        return {(flow.source, flow.destination) for flow in flows(inside, by.version) if escapes(policy, flow, own)}

    send_all()
    assert escaped() == {(by.client, by.outside), (by.outside, by.there)}
    inside(lambda: Firewall(SilentJournal()).converge(policy))
    own = kernel.own_addresses(by.version)
    forgotten = inside(lambda: forget_flows(by.version, lambda flow: escapes(policy, flow, own)))
    assert len(forgotten) == 2
    send_all()
    assert escaped() == set()
    masqueraded = {
        (flow.source, flow.destination) for flow in flows(inside, by.version) if flow.reply_destination != flow.source
    }
    assert masqueraded == {(by.client, by.outside), (by.outside, by.there)}
