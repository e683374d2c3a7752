"""The TUN device and the pump that moves its packets, in a namespace of their own."""

import resource
import socket
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import TypeVar

import pytest

from agent.datapath.counters import DropReason, PacketCounters
from agent.datapath.forwarder import Forwarder, OwnNode
from agent.datapath.forwarding_table import ForwardingTable, TunnelEndpoint
from agent.datapath.native_pump import NativePump
from agent.datapath.python_pump import PythonPump
from agent.datapath.tun import TunDevice, open_tun
from agent.datapath.udp_socket import open_udp_socket
from agent.errors import EnvironmentMissing
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.kernel.sockets import port_holder
from agent.kernel.values import Route
from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.namespace_thread import NamespaceThread
from tests.netns.wishes import bridge, settings
from tests.packets import ipv4
from tests.waiting import wait_until

pytestmark = pytest.mark.root

T = TypeVar("T")
Inside = Callable[[Callable[[], T]], T]
PORT = 8285
LOOPBACK = IPv4Address("127.0.0.1")


@pytest.fixture
def node(namespaces: NamespaceMaker) -> Namespace:
    return namespaces("node")


@pytest.fixture
def inside(node: Namespace) -> Iterator[NamespaceThread]:
    thread = NamespaceThread(node.pid)
    yield thread
    thread.close()


@pytest.fixture
def kernel(node: Namespace) -> Iterator[Kernel]:
    with Kernel(SilentJournal(), node.pid) as kernel:
        yield kernel


def test_second_device_gets_the_next_number_and_closing_removes_it(inside: NamespaceThread, kernel: Kernel) -> None:
    first, second = (inside.run(lambda: open_tun("flannel%d")) for _ in range(2))
    assert (first.name, second.name) == ("flannel0", "flannel1")
    link = kernel.link("flannel0")
    assert link is not None
    assert link.kind == "tun"
    assert link.flags == {"POINTOPOINT", "MULTICAST", "NOARP"}
    for device in (first, second, first):
        device.close()
    assert [link.name for link in kernel.links() if link.kind == "tun"] == []


def test_name_of_another_device_is_refused(inside: NamespaceThread, kernel: Kernel) -> None:
    kernel.converge(bridge("flannel0", mtu=1500))
    with pytest.raises(EnvironmentMissing, match="TUN device flannel0: "):
        inside.run(lambda: open_tun("flannel0"))


def test_taken_port_is_named_with_its_holder(inside: NamespaceThread, node: Namespace) -> None:
    holder = node.popen(
        ["python3", "-c", "import socket; s = socket.socket(type=2); s.bind(('', 8285)); input()"], stdin=-1
    )
    wait_until(lambda: inside.run(lambda: port_holder(PORT)), timeout_s=30, what="the port is taken")
    with pytest.raises(
        EnvironmentMissing, match=rf"UDP port 8285 on 127.0.0.1.*in use by python3 \(pid {holder.pid}\)"
    ):
        inside.run(lambda: open_udp_socket(LOOPBACK, PORT))


def test_address_of_another_machine_is_refused(inside: NamespaceThread) -> None:
    with pytest.raises(EnvironmentMissing, match=r"192\.0\.2\.9: this node does not have the address"):
        inside.run(lambda: open_udp_socket(IPv4Address("192.0.2.9"), PORT))


def test_socket_has_room_for_bursts(inside: NamespaceThread) -> None:
    with inside.run(lambda: open_udp_socket(LOOPBACK, PORT)) as udp:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            assert udp.getsockopt(socket.SOL_SOCKET, option) >= 8 * 1024 * 1024


class Running:
    """A pump between flannel0 and a peer that is a socket on 127.0.0.2."""

    def __init__(self, tun: TunDevice, udp: socket.socket, peer: socket.socket) -> None:
        self.tun, self.udp, self.peer = tun, udp, peer
        self.failed = threading.Event()
        self.tally = PacketCounters()
        node = OwnNode(IPv4Network("10.0.46.0/24"), 1472, PORT)
        endpoint = TunnelEndpoint("127.0.0.2", PORT)
        self.forwarder = Forwarder(node, ForwardingTable({IPv4Network("10.0.90.0/24"): endpoint}))
        kind = NativePump if tun.vnet_header else PythonPump
        self.pump = kind(tun, udp, self.forwarder, self.tally, self.failed.set)
        self.pump.start()

    def receive(self, payload: bytes) -> None:
        self.peer.sendto(payload, (str(LOOPBACK), PORT))

    def drops(self) -> dict[str, int]:
        return {reason: count for reason, count in self.tally.snapshot().drops.items() if count}


@pytest.fixture(params=["native", "python"])
def running(inside: NamespaceThread, kernel: Kernel, request: pytest.FixtureRequest) -> Iterator[Running]:
    tun = inside.run(lambda: open_tun("flannel%d", vnet_header=request.param == "native"))
    kernel.converge(settings(tun.name, mtu=1472))
    kernel.sysctl("net.ipv6.conf.flannel0.disable_ipv6", "1", "no router solicitations to count")
    kernel.ensure_addresses(tun.name, [IPv4Interface("10.0.46.0/32")], "x")
    kernel.set_up(tun.name, "x")
    kernel.ensure_route(Route(IPv4Network("10.0.0.0/16"), tun.name), "x")
    udp = inside.run(lambda: open_udp_socket(LOOPBACK, PORT))
    peer = inside.run(lambda: open_udp_socket(IPv4Address("127.0.0.2"), PORT))
    peer.settimeout(5)
    running = Running(tun, udp, peer)
    yield running
    running.pump.stop()
    running.pump.stop()
    tun.close()
    udp.close()
    peer.close()


def test_packet_of_the_kernel_becomes_the_payload_of_a_datagram(running: Running, inside: NamespaceThread) -> None:
    with inside.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.sendto(b"hello", ("10.0.90.2", 9))
        packet, source = running.peer.recvfrom(65535)
    assert source == (str(LOOPBACK), PORT)
    assert (packet[0], packet[12:20], packet[28:]) == (0x45, bytes((10, 0, 46, 0, 10, 0, 90, 2)), b"hello")
    wait_until(lambda: running.tally.snapshot().tx_bytes == len(packet) == 33, timeout_s=5, what="it is counted")


def test_payload_of_a_datagram_reaches_the_kernel(running: Running, inside: NamespaceThread) -> None:
    with inside.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.settimeout(5)
        receiver.bind(("10.0.46.0", 9))
        running.receive(ipv4("10.0.90.2", "10.0.46.0", b"\x00\x07\x00\x09\x00\x0d\x00\x00hello"))
        assert receiver.recvfrom(100) == (b"hello", ("10.0.90.2", 7))
    wait_until(lambda: running.tally.snapshot().rx_packets == 1, timeout_s=5, what="it is counted")


@pytest.mark.parametrize("size", [1473, 1500, 9000, 65507])
def test_datagram_beyond_the_overlay_mtu_is_dropped_not_cut(size: int, running: Running) -> None:
    running.receive(ipv4("10.0.90.2", "10.0.46.0", bytes(size - 20)))
    wait_until(lambda: running.drops() == {"toolong": 1}, timeout_s=5, what="it is counted as too long")


def test_junk_is_counted_and_harms_nothing(running: Running, inside: NamespaceThread) -> None:
    for payload in (b"", b"\0", b"\x45" * 19, b"\x60" + bytes(60), b"\xff" * 1472):
        running.receive(payload)
    with inside.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
        stranger.sendto(ipv4("10.0.90.2", "10.0.46.0"), (str(LOOPBACK), PORT))
    expected = {"short": 3, "version": 2, "peer": 1}
    wait_until(lambda: running.drops() == expected, timeout_s=5, what=f"drops are {expected}")
    test_payload_of_a_datagram_reaches_the_kernel(running, inside)


def test_every_reason_is_counted_from_zero(running: Running) -> None:
    assert running.tally.snapshot().drops == {reason.value: 0 for reason in DropReason}


def test_table_is_replaced_while_packets_flow(running: Running) -> None:
    running.pump.forwarder = Forwarder(running.forwarder.node, ForwardingTable({}))
    running.receive(ipv4("10.0.90.2", "10.0.46.0"))
    wait_until(lambda: running.drops() == {"peer": 1}, timeout_s=5, what="the peer is no longer known")


def test_kernel_that_refuses_is_counted_and_survived(running: Running, kernel: Kernel, inside: NamespaceThread) -> None:
    kernel.set_down("flannel0", "x")
    running.receive(ipv4("10.0.90.2", "10.0.46.0"))
    wait_until(lambda: running.drops() == {"tun_write": 1}, timeout_s=5, what="the write is counted")
    kernel.set_up("flannel0", "x")
    test_payload_of_a_datagram_reaches_the_kernel(running, inside)


@pytest.mark.row("F45")
def test_underlay_that_refuses_is_counted_and_survived(
    running: Running, kernel: Kernel, inside: NamespaceThread
) -> None:
    refusing = Route(IPv4Network("192.0.2.0/24"), None, kind="prohibit")
    kernel.ensure_route(refusing, "x")
    unreachable = {IPv4Network("10.0.90.0/24"): TunnelEndpoint("192.0.2.9", PORT)}
    running.pump.forwarder = Forwarder(running.forwarder.node, ForwardingTable(unreachable))
    with inside.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        for _ in range(3):
            sender.sendto(b"x", ("10.0.90.2", 9))
    wait_until(lambda: running.drops() == {"udp_send": 3}, timeout_s=5, what="each failed send is counted")
    running.pump.forwarder = running.forwarder
    test_packet_of_the_kernel_becomes_the_payload_of_a_datagram(running, inside)


def test_deleted_device_is_reported_and_costs_nothing(running: Running, kernel: Kernel) -> None:
    assert running.pump.failed is None
    kernel.delete_link("flannel0", "x")
    assert running.failed.wait(5)
    assert running.pump.failed == "the overlay device is gone"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    threading.Event().wait(0.3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.1


@pytest.mark.parametrize("running", ["python"], indirect=True)
def test_dead_thread_is_noticed(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Forwarder, "from_udp", broken)
    running.receive(b"x")
    assert running.failed.wait(5)
    assert running.pump.failed == "RuntimeError: broken on purpose"


def test_stopped_pump_has_not_failed(running: Running) -> None:
    running.pump.stop()
    assert running.pump.failed is None
    assert not running.failed.is_set()
