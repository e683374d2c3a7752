"""Kernel and Monitor on namespaces of their own."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.journal import FileJournal, SilentJournal
from agent.kernel.monitor import Monitor
from agent.kernel.namespace import NamespaceThread
from agent.kernel.netlink import Kernel, NetlinkError, Route
from agent.kernel.netlink_library import library_socket
from agent.kernel.netlink_messages import read_address, read_assigned_address, read_link, read_route
from agent.kernel.values import Family
from tests.netns.conftest import Namespace, NamespaceMaker
from tests.waiting import wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def node(namespaces: NamespaceMaker) -> Namespace:
    return namespaces("node")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def kernel(node: Namespace, journal: Path) -> Iterator[Kernel]:
    with Kernel(FileJournal(journal, "node"), node.pid) as kernel:
        yield kernel


def commands(journal: Path) -> list[str]:
    if not journal.exists():
        return []
    return [" ".join(json.loads(line)["command"]) for line in journal.read_text().splitlines()]


def test_everything_done_twice_is_journalled_once_as_one_would_type_it(
    kernel: Kernel, journal: Path, namespaces: NamespaceMaker
) -> None:
    pod = namespaces("pod")
    for _ in range(2):
        kernel.create_bridge("docker0", mtu=1472, mac="02:42:0a:00:2e:01", why="pods")
        kernel.create_veth(
            "veth1", peer="eth0", peer_netns_pid=pod.pid, mtu=1472, peer_mac="02:42:0a:00:2e:02", why="a"
        )
        kernel.set_master("veth1", "docker0", "pods")
        kernel.set_up("docker0", "pods")
        kernel.set_tx_queue_length("docker0", 500, "less")
        kernel.ensure_addresses("docker0", [IPv4Interface("10.0.46.1/24")], "gateway")
        kernel.ensure_route(Route(IPv4Network("10.0.0.0/16"), "docker0"), "all pods")
        kernel.ensure_route(Route(IPv4Network("10.0.0.0/16"), None, kind="unreachable", metric=9), "last resort")
        kernel.ensure_route(Route(IPv4Network("0.0.0.0/0"), "docker0", IPv4Address("10.0.46.9")), "out")
        kernel.ensure_neighbour("docker0", IPv4Address("10.0.46.2"), "02:42:0a:00:2e:02", "known")
        kernel.sysctl("net.ipv4.ip_forward", "1", "routes")
    assert commands(journal) == [
        "ip link add docker0 mtu 1472 address 02:42:0a:00:2e:01 type bridge",
        f"ip link add veth1 mtu 1472 type veth peer name eth0 mtu 1472 address 02:42:0a:00:2e:02 netns {pod.pid}",
        "ip link set veth1 master docker0",
        "ip link set docker0 up",
        "ip link set docker0 txqueuelen 500",
        "ip address add 10.0.46.1/24 brd + dev docker0",
        "ip route replace 10.0.0.0/16 dev docker0 scope global",
        "ip route replace unreachable 10.0.0.0/16 metric 9",
        "ip route replace default via 10.0.46.9 dev docker0",
        "ip neigh replace 10.0.46.2 lladdr 02:42:0a:00:2e:02 dev docker0 nud permanent",
        "sysctl -w net.ipv4.ip_forward=1",
    ]


def test_journalled_commands_make_the_same_state_again(
    kernel: Kernel, journal: Path, namespaces: NamespaceMaker
) -> None:
    kernel.create_bridge("br0", mtu=1400, why="x")
    kernel.create_veth("veth1", peer="veth2", mtu=1400, why="x")
    kernel.set_master("veth1", "br0", "x")
    for device in ("br0", "veth1", "veth2"):
        kernel.set_up(device, "x")
    kernel.ensure_addresses("br0", [IPv4Interface("10.1.0.1/24"), IPv4Interface("10.2.0.1/32")], "x")
    kernel.ensure_route(Route(IPv4Network("10.3.0.0/16"), "br0", source=IPv4Address("10.1.0.1")), "x")
    kernel.ensure_route(Route(IPv4Network("10.4.0.0/16"), "br0", IPv4Address("10.9.9.9"), onlink=True), "x")
    kernel.ensure_route(Route(IPv4Network("10.3.0.0/16"), "br0", scope="link", metric=7, protocol="static"), "x")
    kernel.ensure_addresses("br0", [IPv4Interface("10.1.0.1/24")], "x")

    replayed = namespaces("replayed")
    for command in commands(journal):
        replayed.run(command.split())
    with Kernel(SilentJournal(), replayed.pid) as again:
        assert again.routes() == kernel.routes()
        assert len(again.routes()) == 4
        assert again.addresses("br0") == kernel.addresses("br0")
        shape = [(link.name, link.kind, link.mtu, link.master, link.up) for link in kernel.links()]
        assert [(link.name, link.kind, link.mtu, link.master, link.up) for link in again.links()] == shape


def test_ip_sees_what_was_made(kernel: Kernel, node: Namespace) -> None:
    kernel.create_bridge("docker0", mtu=1472, mac="02:42:0a:00:2e:01", why="x")
    kernel.ensure_addresses("docker0", [IPv4Interface("10.0.46.1/24")], "x")
    shown = json.loads(node.run(["ip", "-d", "-json", "address", "show", "docker0"]).stdout)[0]
    assert (shown["mtu"], shown["address"]) == (1472, "02:42:0a:00:2e:01")
    assert shown["linkinfo"]["info_kind"] == "bridge"
    assert [(a["local"], a["prefixlen"], a["broadcast"]) for a in shown["addr_info"]] == [
        ("10.0.46.1", 24, "10.0.46.255")
    ]


def _listed(ask: Callable[..., Iterable[Any]], **filters: int) -> list[Any]:
    return list(ask(**filters))


def test_what_we_read_is_what_pyroute2_reads(kernel: Kernel, node: Namespace) -> None:
    kernel.create_bridge("br0", mtu=1400, mac="02:42:0a:00:2e:01", why="x")
    kernel.create_veth("veth1", peer="veth2", mtu=1400, mac="02:00:00:00:00:01", why="x")
    kernel.set_master("veth1", "br0", "x")
    kernel.set_hairpin("veth1", "x")
    for device in ("lo", "br0", "veth1", "veth2"):
        kernel.set_up(device, "x")
    kernel.ensure_addresses("br0", [IPv4Interface("10.1.0.1/24"), IPv4Interface("10.2.0.1/32")], "x")
    kernel.ensure_addresses("br0", [IPv6Interface("fd00::1/64")], "x", family=6)
    kernel.ensure_route(Route(IPv4Network("10.3.0.0/16"), "br0", source=IPv4Address("10.1.0.1")), "x")
    kernel.ensure_route(Route(IPv4Network("0.0.0.0/0"), "br0", IPv4Address("10.1.0.9"), metric=7), "x")
    kernel.ensure_route(Route(IPv6Network("fd01::/64"), "br0", IPv6Address("fd00::9")), "x")
    kernel.ensure_route(Route(IPv4Network("10.9.0.0/16"), None, kind="unreachable", metric=9), "x")
    many = {IPv4Address("10.1.0.0") + number: f"02:00:00:00:01:{number:02x}" for number in range(10, 200)}
    kernel.ensure_neighbours("br0", many, "x")
    kernel.ensure_neighbours("br0", {IPv6Address("fd00::9"): "02:00:00:00:00:09"}, "x")
    thread = NamespaceThread(node.pid)
    library = thread.run(library_socket)
    try:
        links = {link.name: link for link in kernel.links()}
        names = {link.index: link.name for link in links.values()}
        assert set(links.values()) == {read_link(one) for one in thread.run(lambda: list(library.get_links()))}
        assert all(kernel.link(name) == link for name, link in links.items())
        index = links["br0"].index
        versions: dict[Family, int] = {4: 2, 6: 10}
        for version, family in versions.items():
            theirs = thread.run(partial(_listed, library.get_routes, family=family, table=254))
            assert kernel.routes(version) == {read_route(one, names) for one in theirs}
            found = thread.run(partial(_listed, library.get_neighbours, family=family, ifindex=index))
            permanent = {one.get_attr("NDA_DST"): one.get_attr("NDA_LLADDR") for one in found if one["state"] & 0x80}
            assert {str(address): mac for address, mac in kernel.neighbours("br0", version).items()} == permanent
        own = thread.run(lambda: list(library.get_addr(index=index)))
        assert kernel.addresses("br0") | kernel.ipv6_addresses("br0") == {read_address(one) for one in own}
        for version, family in versions.items():
            theirs = thread.run(partial(_listed, library.get_addr, family=family))
            assert kernel.assigned_addresses(version) == tuple(map(read_assigned_address, theirs))
        assert kernel.neighbours("br0") == many
        towards = kernel.route_towards(IPv4Address("10.3.1.1"))
        assert towards is not None
        assert (towards.device, towards.source) == ("br0", IPv4Address("10.1.0.1"))
    finally:
        thread.run(library.close)
        thread.close()
    shown = json.loads(node.run(["bridge", "-d", "-json", "link", "show", "dev", "veth1"]).stdout)
    assert shown[0]["hairpin"] is True


def test_a_refusal_among_many_neighbours_is_told(kernel: Kernel) -> None:
    kernel.create_bridge("br0", mtu=1400, why="x")
    with pytest.raises(NetlinkError, match="ip neigh replace dev br0: "):
        kernel.ensure_neighbours(
            "br0", {IPv4Address("10.1.0.1"): "02:00", IPv4Address("10.1.0.2"): "02:00:00:00:00:01"}, "x"
        )


def test_addresses_become_exactly_the_wanted_ones(kernel: Kernel) -> None:
    kernel.create_bridge("br0", mtu=1500, why="x")
    first, second, other = map(IPv4Interface, ("10.0.46.1/24", "10.0.46.2/24", "10.0.90.1/24"))
    kernel.ensure_addresses("br0", [first, second], "x")
    # The first is the primary address; without care the second would vanish with it.
    kernel.ensure_addresses("br0", [second, other], "x")
    assert kernel.addresses("br0") == {second, other}


def test_route_to_the_same_destination_is_replaced(kernel: Kernel) -> None:
    kernel.create_bridge("br0", mtu=1500, why="x")
    kernel.create_bridge("br1", mtu=1500, why="x")
    for device in ("br0", "br1"):
        kernel.set_up(device, "x")
        kernel.ensure_route(Route(IPv4Network("10.0.0.0/16"), device), "x")
    assert kernel.routes() == {Route(IPv4Network("10.0.0.0/16"), "br1")}
    kernel.delete_route(Route(IPv4Network("10.0.0.0/16"), "br1"), "x")
    assert kernel.routes() == frozenset()


def test_what_is_gone_already_is_success_and_not_journalled(kernel: Kernel, journal: Path) -> None:
    kernel.delete_link("nothing", "x")
    kernel.delete_route(Route(IPv4Network("10.0.0.0/16"), "nothing"), "x")
    assert kernel.link("nothing") is None
    assert kernel.addresses("nothing") == frozenset()
    assert commands(journal) == []


def test_refusal_names_the_command(kernel: Kernel, journal: Path) -> None:
    with pytest.raises(NetlinkError, match=r"^ip link set nothing up: there is no device nothing$"):
        kernel.set_up("nothing", "x")
    kernel.create_bridge("br0", mtu=1500, why="x")
    with pytest.raises(NetlinkError, match=r"^ip route replace 10.9.0.0/16 via 1.2.3.4 dev br0: Net"):
        kernel.ensure_route(Route(IPv4Network("10.9.0.0/16"), "br0", IPv4Address("1.2.3.4")), "x")
    with pytest.raises(NetlinkError, match="br0 exists and is a bridge"):
        kernel.create_veth("br0", peer="eth0", mtu=1500, why="x")
    with pytest.raises(NetlinkError, match=r"^sysctl -w net.ipv4.nonsense=1: No such file"):
        kernel.sysctl("net.ipv4.nonsense", "1", "x")
    assert len(commands(journal)) == 1


def test_sysctls_are_those_of_the_namespace(kernel: Kernel, node: Namespace) -> None:
    with Kernel(SilentJournal()) as own:
        before = own.read_sysctl("net.ipv4.conf.lo.accept_local")
        kernel.sysctl("net.ipv4.conf.lo.accept_local", "1", "x")
        assert own.read_sysctl("net.ipv4.conf.lo.accept_local") == before
    assert node.run(["sysctl", "-n", "net.ipv4.conf.lo.accept_local"]).stdout == "1\n"
    assert kernel.read_sysctl("net.ipv4.nonsense") is None


def test_sysctl_of_a_device_with_a_dot_in_its_name(kernel: Kernel) -> None:
    kernel.create_bridge("flannel.1", mtu=1450, why="x")
    kernel.sysctl("net.ipv4.conf.flannel/1.rp_filter", "2", "x")
    assert kernel.read_sysctl("net/ipv4/conf/flannel.1/rp_filter") == "2"


def test_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(NetlinkError, match="enter the network namespace of process 4194305"):
        Kernel(SilentJournal(), netns_pid=4194305)  # beyond the largest pid there can be


def test_process_that_is_not_yet_in_a_namespace_of_its_own_is_refused() -> None:
    with pytest.raises(NetlinkError, match="still in our own network namespace"):
        Kernel(SilentJournal(), netns_pid=os.getpid())


def test_closing_lets_the_namespace_go(kernel: Kernel, namespaces: NamespaceMaker) -> None:
    pod = namespaces("pod")
    kernel.create_veth("veth1", peer="eth0", peer_netns_pid=pod.pid, mtu=1500, why="x")
    holder = Kernel(SilentJournal(), pod.pid)
    pod.end()
    # The namespace has neither name nor process any more; only our Kernel holds it, and with it the veth.
    assert holder.link("eth0") is not None
    assert kernel.link("veth1") is not None
    holder.close()
    wait_until(lambda: kernel.link("veth1") is None, timeout_s=10, what="the namespace and its veth are gone")


def test_monitor_notices_changes_and_is_silent_otherwise(kernel: Kernel, node: Namespace) -> None:
    thread = NamespaceThread(node.pid)
    monitor = thread.run(Monitor)
    thread.close()
    with monitor:
        assert not monitor.wait(0.02)
        changes: tuple[Callable[[], None], ...] = (
            lambda: kernel.create_bridge("br0", mtu=1500, why="x"),
            lambda: kernel.set_up("br0", "x"),
            lambda: kernel.ensure_addresses("br0", [IPv4Interface("10.0.0.1/24")], "x"),
            lambda: kernel.ensure_route(Route(IPv4Network("10.9.0.0/16"), "br0"), "x"),
            lambda: kernel.delete_link("br0", "x"),
        )
        for change in changes:
            change()
            assert monitor.wait(5)
            while monitor.wait(0.1):
                pass


def test_monitor_that_follows_a_bridge_says_nothing_of_the_pods_on_it(kernel: Kernel, node: Namespace) -> None:
    thread = NamespaceThread(node.pid)
    monitor = thread.run(lambda: Monitor("flannel"))
    thread.close()

    def told() -> bool:
        heard = monitor.wait(1.0)
        while monitor.wait(0.1):
            heard = True
        return heard

    with monitor:
        kernel.create_bridge("br0", mtu=1500, mac="02:42:0a:00:01:01", why="x")
        kernel.create_bridge("br1", mtu=1500, why="x")
        monitor.follow_only({"br0"})
        told()
        kernel.create_veth("veth1", peer="eth0", peer_netns_pid=node.pid, peer_netns_name="", mtu=1500, why="x")
        kernel.set_up("br0", "x")
        assert told()
        kernel.sysctl("net.ipv6.conf.veth1.disable_ipv6", "1", "x")
        kernel.set_master("veth1", "br0", "x")
        told()  # The first port gives the bridge its carrier.
        node.run(["ip", "link", "add", "veth2", "type", "veth", "peer", "name", "eth2"])
        kernel.sysctl("net.ipv6.conf.veth2.disable_ipv6", "1", "x")
        kernel.set_master("veth2", "br0", "x")
        kernel.set_hairpin("veth2", "x")
        kernel.delete_link("veth2", "x")
        kernel.set_mtu("br1", 1400, "x")
        assert not told()
        for change in (
            lambda: kernel.set_mtu("br0", 1400, "x"),
            lambda: node.run(["ip", "link", "set", "br0", "down"]),
            lambda: node.run(["ip", "tuntap", "add", "dev", "flannel0", "mode", "tun"]),
            lambda: node.run(["ip", "link", "set", "br0", "name", "br9"]),
        ):
            change()
            assert told()


def test_monitor_can_be_woken() -> None:
    with Monitor() as monitor:
        monitor.wake()
        monitor.wait(None)


def test_monitor_that_missed_messages_still_says_that_something_changed(kernel: Kernel, node: Namespace) -> None:
    thread = NamespaceThread(node.pid)
    monitor = thread.run(Monitor)
    thread.close()
    with monitor:
        node.run(["ip", "link", "add", "br0", "type", "bridge"])
        lines = "".join(f"link set br0 mtu {1400 + n % 2}\n" for n in range(1500))
        node.run(["sh", "-c", "printf '%s' \"$1\" | ip -batch -", "sh", lines])
        assert monitor.wait(1)
        while monitor.wait(0.05):
            pass
        kernel.set_up("br0", "x")
        assert monitor.wait(5)


def test_nothing_is_kept_of_what_the_kernel_says_after_an_answer(node: Namespace) -> None:
    thread = NamespaceThread(node.pid)
    try:
        socket = thread.run(library_socket)
        for _ in range(20):
            assert thread.run(lambda: socket.link("get", ifname="lo"))
            assert thread.run(lambda: list(socket.get_links()))
        # pyroute2's own, for whoever listens to everything.
        queues = socket.asyncore.local  # of its thread
        assert thread.run(lambda: [each.qsize() for each in queues.msg_queue.queues.values()]) == [0]
        thread.run(socket.close)
    finally:
        thread.close()
