"""Kernel and Monitor on namespaces of their own."""

import json
import os
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from agent.errors import NetlinkError
from agent.kernel.journal import FileJournal, SilentJournal
from agent.kernel.kernel import Kernel
from agent.kernel.monitor import Monitor
from agent.kernel.values import Family, Route
from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.namespace_thread import NamespaceThread
from tests.netns.wishes import bridge, neighbours, settings, veth
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
        kernel.converge(bridge("docker0", mtu=1472, mac="02:42:0a:00:2e:01"))
        kernel.converge(veth("veth1", peer="eth0", peer_netns_pid=pod.pid, mtu=1472, peer_mac="02:42:0a:00:2e:02"))
        kernel.converge(settings("veth1", master="docker0"))
        kernel.set_up("docker0", "pods")
        kernel.converge(settings("docker0", tx_queue_length=500))
        kernel.ensure_addresses("docker0", [IPv4Interface("10.0.46.1/24")], "gateway")
        kernel.ensure_route(Route(IPv4Network("10.0.0.0/16"), "docker0"), "all pods")
        kernel.ensure_route(Route(IPv4Network("10.0.0.0/16"), None, kind="unreachable", metric=9), "last resort")
        kernel.ensure_route(Route(IPv4Network("0.0.0.0/0"), "docker0", IPv4Address("10.0.46.9")), "out")
        kernel.converge(neighbours("docker0", {IPv4Address("10.0.46.2"): "02:42:0a:00:2e:02"}))
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
    kernel.converge(bridge("br0", mtu=1400))
    kernel.converge(veth("veth1", peer="veth2", mtu=1400))
    kernel.converge(settings("veth1", master="br0"))
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


def test_ip_shows_the_created_state(kernel: Kernel, node: Namespace) -> None:
    kernel.converge(bridge("docker0", mtu=1472, mac="02:42:0a:00:2e:01"))
    kernel.ensure_addresses("docker0", [IPv4Interface("10.0.46.1/24")], "x")
    shown = json.loads(node.run(["ip", "-d", "-json", "address", "show", "docker0"]).stdout)[0]
    assert (shown["mtu"], shown["address"]) == (1472, "02:42:0a:00:2e:01")
    assert shown["linkinfo"]["info_kind"] == "bridge"
    assert [(a["local"], a["prefixlen"], a["broadcast"]) for a in shown["addr_info"]] == [
        ("10.0.46.1", 24, "10.0.46.255")
    ]


def shown(node: Namespace, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(node.run(["ip", "-d", "-json", *words]).stdout or "[]")
    return found


def test_what_we_read_is_what_ip_shows(kernel: Kernel, node: Namespace) -> None:
    kernel.converge(bridge("br0", mtu=1400, mac="02:42:0a:00:2e:01"))
    kernel.converge(veth("veth1", peer="veth2", mtu=1400, mac="02:00:00:00:00:01"))
    kernel.converge(settings("veth1", master="br0", hairpin=True))
    for device in ("lo", "br0", "veth1", "veth2"):
        kernel.set_up(device, "x")
    kernel.ensure_addresses("br0", [IPv4Interface("10.1.0.1/24"), IPv4Interface("10.2.0.1/32")], "x")
    kernel.ensure_addresses("br0", [IPv6Interface("fd00::1/64")], "x", family=6)
    kernel.ensure_route(Route(IPv4Network("10.3.0.0/16"), "br0", source=IPv4Address("10.1.0.1")), "x")
    kernel.ensure_route(Route(IPv4Network("0.0.0.0/0"), "br0", IPv4Address("10.1.0.9"), metric=7), "x")
    kernel.ensure_route(Route(IPv6Network("fd01::/64"), "br0", IPv6Address("fd00::9")), "x")
    kernel.ensure_route(Route(IPv4Network("10.9.0.0/16"), None, kind="unreachable", metric=9), "x")
    many = {IPv4Address("10.1.0.0") + number: f"02:00:00:00:01:{number:02x}" for number in range(10, 200)}
    kernel.converge(neighbours("br0", many))
    kernel.converge(neighbours("br0", {IPv6Address("fd00::9"): "02:00:00:00:00:09"}))

    links = {link.name: link for link in kernel.links()}
    assert {
        one["ifname"]: (
            one["ifindex"],
            one["mtu"],
            one["address"],
            one.get("linkinfo", {}).get("info_kind", ""),
            one.get("master", ""),
            one.get("linkinfo", {}).get("info_slave_data", {}).get("hairpin", False),
            one["txqlen"],
        )
        for one in shown(node, "link")
    } == {
        link.name: (
            link.index,
            link.mtu,
            link.mac,
            link.kind,
            next((other.name for other in links.values() if link.master and other.index == link.master), ""),
            link.hairpin,
            link.tx_queue_length,
        )
        for link in links.values()
    }
    assert all(kernel.link(name) == link for name, link in links.items())
    for family in ("-4", "-6"):
        version: Family = 4 if family == "-4" else 6
        routes = shown(node, family, "route")
        destinations = {str(one.destination) for one in kernel.routes(version)}
        normal = {"default": "0.0.0.0/0"}
        assert {normal.get(one["dst"], one["dst"]) for one in routes} == destinations
        known = {one["dst"]: one["lladdr"] for one in shown(node, family, "neigh") if "PERMANENT" in one["state"]}
        assert {str(address): mac for address, mac in kernel.neighbours("br0", version).items()} == known
        theirs = [one for link in shown(node, family, "address", "show", "br0") for one in link["addr_info"]]
        assert [f"{one['local']}/{one['prefixlen']}" for one in theirs] == list(
            map(str, kernel.addresses("br0", version))
        )
    assert kernel.neighbours("br0") == many
    assert kernel.route_to(IPv4Address("10.3.1.1")) is not None


@pytest.mark.parametrize("refused", [0, 70, 99])
def test_a_refusal_among_many_neighbours_is_reported_and_the_others_are_made(kernel: Kernel, refused: int) -> None:
    kernel.converge(bridge("br0", mtu=1400))
    entries = {IPv4Address("10.1.0.1") + number: f"02:00:00:00:00:{number:02x}" for number in range(100)}
    shorter_than_the_device_has = "192.0.2.1"  # four bytes
    wrong = entries | {IPv4Address("10.1.0.1") + refused: shorter_than_the_device_has}
    with pytest.raises(NetlinkError, match=r"ip neigh replace 10\.1\.0\.1 lladdr \S+ dev br0 nud permanent: "):
        kernel.converge(neighbours("br0", wrong))
    made = kernel.neighbours("br0")
    assert made.items() <= entries.items()
    assert IPv4Address("10.1.0.1") + refused not in made
    assert len(made) >= 63, "its batch"
    kernel.converge(neighbours("br0", entries))
    assert kernel.neighbours("br0") == entries


def test_addresses_become_exactly_the_wanted_ones(kernel: Kernel) -> None:
    kernel.converge(bridge("br0", mtu=1500))
    first, second, other = map(IPv4Interface, ("10.0.46.1/24", "10.0.46.2/24", "10.0.90.1/24"))
    kernel.ensure_addresses("br0", [first, second], "x")
    # The first is the primary address; without care the second would vanish with it.
    kernel.ensure_addresses("br0", [second, other], "x")
    assert set(kernel.addresses("br0")) == {second, other}


def test_route_to_the_same_destination_is_replaced(kernel: Kernel) -> None:
    kernel.converge(bridge("br0", mtu=1500))
    kernel.converge(bridge("br1", mtu=1500))
    for device in ("br0", "br1"):
        kernel.set_up(device, "x")
        kernel.ensure_route(Route(IPv4Network("10.0.0.0/16"), device), "x")
    assert kernel.routes() == {Route(IPv4Network("10.0.0.0/16"), "br1")}
    kernel.delete_route(Route(IPv4Network("10.0.0.0/16"), "br1"), "x")
    assert kernel.routes() == frozenset()


def test_removing_missing_state_succeeds_and_is_not_journalled(kernel: Kernel, journal: Path) -> None:
    kernel.delete_link("nothing", "x")
    kernel.delete_route(Route(IPv4Network("10.0.0.0/16"), "nothing"), "x")
    assert kernel.link("nothing") is None
    assert kernel.addresses("nothing") == ()
    assert commands(journal) == []


def test_refusal_names_the_command(kernel: Kernel, journal: Path) -> None:
    with pytest.raises(NetlinkError, match=r"^ip link set nothing up: no device nothing$"):
        kernel.set_up("nothing", "x")
    kernel.converge(bridge("br0", mtu=1500))
    with pytest.raises(NetlinkError, match=r"^ip route replace 10.9.0.0/16 via 1.2.3.4 dev br0: Net"):
        kernel.ensure_route(Route(IPv4Network("10.9.0.0/16"), "br0", IPv4Address("1.2.3.4")), "x")
    with pytest.raises(NetlinkError, match="br0: exists and is a bridge"):
        kernel.converge(veth("br0", peer="eth0", mtu=1500))
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
    kernel.converge(bridge("flannel.1", mtu=1450))
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
    kernel.converge(veth("veth1", peer="eth0", peer_netns_pid=pod.pid, mtu=1500))
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
            lambda: kernel.converge(bridge("br0", mtu=1500)),
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


def test_monitor_that_follows_a_bridge_does_not_report_the_pods_on_it(kernel: Kernel, node: Namespace) -> None:
    thread = NamespaceThread(node.pid)
    monitor = thread.run(lambda: Monitor("flannel"))
    thread.close()

    def told() -> bool:
        heard = monitor.wait(1.0)
        while monitor.wait(0.1):
            heard = True
        return heard

    with monitor:
        kernel.converge(bridge("br0", mtu=1500, mac="02:42:0a:00:01:01"))
        kernel.converge(bridge("br1", mtu=1500))
        monitor.follow_only({"br0"})
        told()
        kernel.converge(veth("veth1", peer="eth0", peer_netns_pid=node.pid, peer_netns_name="", mtu=1500))
        kernel.set_up("br0", "x")
        assert told()
        kernel.sysctl("net.ipv6.conf.veth1.disable_ipv6", "1", "x")
        kernel.converge(settings("veth1", master="br0"))
        told()  # The first port gives the bridge its carrier.
        node.run(["ip", "link", "add", "veth2", "type", "veth", "peer", "name", "eth2"])
        kernel.sysctl("net.ipv6.conf.veth2.disable_ipv6", "1", "x")
        kernel.converge(settings("veth2", master="br0"))
        kernel.converge(settings("veth2", hairpin=True))
        kernel.delete_link("veth2", "x")
        kernel.converge(settings("br1", mtu=1400))
        assert not told()
        for change in (
            lambda: kernel.converge(settings("br0", mtu=1400)),
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


def test_monitor_that_missed_messages_still_reports_a_change(kernel: Kernel, node: Namespace) -> None:
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
