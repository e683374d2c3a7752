"""Which of several addresses is the underlay's: at the start flannel's choice, then the same while it is there."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from agent.assembly import choose_underlay
from agent.backends.base import Underlay as Choice
from agent.errors import EnvironmentMissing
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.options.command_line import parse_options
from tests.netns.agents import ETCD_ADDRESS, Agent, Underlay, ping, run, wait_until
from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.overlay import TwoNodes, network
from tests.waiting import constantly

pytestmark = pytest.mark.root
OWN, OTHER_NETWORK, VIRTUAL = "192.168.8.227", "10.64.5.9", "192.168.8.5"
BY_ROUTE = (f"--iface-can-reach={ETCD_ADDRESS}",)
PING_INTERVAL_S = 0.02


# --- the choice, by the kernel's own words


@pytest.fixture
def node(namespaces: NamespaceMaker) -> Namespace:
    """Return a machine with eth0, its address, and a default route."""
    made = namespaces("node")
    made.connect(namespaces("switch"), ("eth0", f"{OWN}/24"), ("port", None))
    made.run(["ip", "route", "add", "default", "via", "192.168.8.10"])
    return made


def chosen(node: Namespace, *flags: str, ipv6: bool = False, current: Choice | None = None) -> Choice:
    with Kernel(SilentJournal(), node.pid) as kernel:
        return choose_underlay(parse_options(flags, {}), kernel, ipv6=ipv6, current=current)


def add(node: Namespace, *addresses: str, device: str = "eth0") -> None:
    for words in addresses:
        address, *more = words.split()
        node.run(["ip", "address", "add", address, "dev", device, *more])


@pytest.mark.parametrize("flags", [("--iface=eth0",), (), BY_ROUTE], ids=["by name", "default route", "can reach"])
@pytest.mark.row("C23")
def test_the_first_address_is_taken_whatever_comes_later(node: Namespace, flags: tuple[str, ...]) -> None:
    add(node, f"{OTHER_NETWORK}/24", f"{VIRTUAL}/24", "192.168.8.4/32", "10.64.6.8/24 scope link")
    assert str(chosen(node, *flags).address) == OWN


@pytest.mark.parametrize("flag", [f"--iface={VIRTUAL}", f"--public-ip={VIRTUAL}"])
def test_a_secondary_address_is_taken_when_it_is_named(node: Namespace, flag: str) -> None:
    add(node, f"{VIRTUAL}/24")
    assert str(chosen(node, flag).address) == VIRTUAL


@pytest.mark.row("C23")
def test_a_lasting_address_comes_before_one_that_ends(node: Namespace) -> None:
    node.run(["ip", "address", "change", f"{OWN}/24", "dev", "eth0", "valid_lft", "900", "preferred_lft", "900"])
    assert str(chosen(node, "--iface=eth0").address) == OWN
    add(node, f"{OTHER_NETWORK}/24")
    assert str(chosen(node, "--iface=eth0").address) == OTHER_NETWORK
    assert str(chosen(node).address) == OWN, "the default route's source is the kernel's to say"


def test_a_deprecated_address_is_the_last_resort(node: Namespace) -> None:
    node.run(["ip", "address", "change", f"{OWN}/24", "dev", "eth0", "preferred_lft", "0"])
    assert str(chosen(node, "--iface=eth0").address) == OWN
    add(node, f"{OTHER_NETWORK}/24")
    assert str(chosen(node, "--iface=eth0").address) == OTHER_NETWORK


def test_the_source_that_a_route_names_is_taken(node: Namespace) -> None:
    add(node, f"{OTHER_NETWORK}/24", f"{VIRTUAL}/24")
    node.run(["ip", "route", "add", ETCD_ADDRESS, "dev", "eth0", "src", OTHER_NETWORK])
    node.run(["ip", "route", "replace", "default", "via", "192.168.8.10", "src", VIRTUAL])
    assert str(chosen(node, *BY_ROUTE).address) == OTHER_NETWORK
    assert str(chosen(node).address) == VIRTUAL
    assert str(chosen(node, "--iface=eth0").address) == OWN


def test_the_default_routes_source_is_that_of_the_gateways_network(node: Namespace) -> None:
    """The first address may be of a network that the gateway is not in."""
    add(node, f"{OTHER_NETWORK}/24")
    node.run(["ip", "address", "delete", f"{OWN}/24", "dev", "eth0"])
    add(node, f"{OWN}/24")
    node.run(["ip", "route", "replace", "default", "via", "192.168.8.10"])
    source = node.run(["ip", "route", "get", "203.0.113.1"]).stdout
    assert f"src {OWN} " in source
    assert str(chosen(node).address) == OWN
    assert str(chosen(node, "--iface=eth0").address) == OTHER_NETWORK


@pytest.mark.parametrize("flags", [(), BY_ROUTE], ids=["default route", "can reach"])
def test_a_source_that_loopback_holds_is_taken_by_its_route(node: Namespace, flags: tuple[str, ...]) -> None:
    """Routing down to the host: the node's address is on lo, the interfaces have addresses of their links."""
    add(node, "10.99.0.1/32", device="lo")
    node.run(["ip", "route", "replace", "default", "via", "192.168.8.10", "src", "10.99.0.1"])
    node.run(["ip", "route", "add", ETCD_ADDRESS, "via", "192.168.8.10", "src", "10.99.0.1"])
    found = chosen(node, *flags)
    assert (found.interface, str(found.address)) == ("eth0", "10.99.0.1")


def test_of_two_interfaces_the_one_of_the_route_gives_its_own_address(
    node: Namespace, namespaces: NamespaceMaker
) -> None:
    node.connect(namespaces("other"), ("eth1", "10.9.0.7/24"), ("port", None))
    assert chosen(node, "--iface-can-reach=10.9.0.1").interface == "eth1"
    assert str(chosen(node, "--iface-can-reach=10.9.0.1").address) == "10.9.0.7"
    node.run(["ip", "route", "add", "default", "via", "10.9.0.1", "metric", "5"])
    node.run(["ip", "route", "delete", "default", "via", "192.168.8.10"])
    assert str(chosen(node).address) == "10.9.0.7"


def ipv6_addresses(node: Namespace) -> list[str]:
    """Return them in the kernel's order."""
    return re.findall(
        r"inet6 (\S+)/", node.run(["ip", "-6", "address", "show", "dev", "eth0", "scope", "global"]).stdout
    )


def test_of_ipv6_addresses_the_kernels_first_is_taken_that_lasts(node: Namespace) -> None:
    add(node, "fd00:8::7/64 nodad", "fd00:8::9/64 nodad", "fd00:8::8/64 nodad")
    first = ipv6_addresses(node)[0]
    assert first == "fd00:8::8", "Linux puts what comes later before what was there"
    add(
        node,
        "fd00:8::4/64 nodad preferred_lft 0",
        "fd00:8::3/64 nodad valid_lft 900 preferred_lft 900",
        "fd00:8::2/128 nodad",
    )
    assert str(chosen(node, ipv6=True).ipv6_address) == first
    named = chosen(node, "--public-ipv6=fd00:8::4", ipv6=True)
    assert (str(named.ipv6_address), str(named.public_ipv6)) == ("fd00:8::4", "fd00:8::4")


def test_the_source_of_the_ipv6_default_route_is_taken_with_it(node: Namespace) -> None:
    add(node, "fd00:8::7/64 nodad", "fd00:8::8/64 nodad")
    node.run(["ip", "-6", "route", "add", "default", "via", "fd00:8::10", "dev", "eth0", "src", "fd00:8::7"])
    assert str(chosen(node, ipv6=True).ipv6_address) == "fd00:8::7"
    assert str(chosen(node, "--iface=eth0", ipv6=True).ipv6_address) == "fd00:8::8"


def test_an_ipv6_address_that_another_machine_has_too_is_never_taken(
    node: Namespace, namespaces: NamespaceMaker
) -> None:
    other = namespaces("twin")
    node.connect(other, ("eth1", "10.9.0.7/24"), ("port", None))
    other.run(["ip", "address", "add", "fd00:9::7/64", "dev", "port", "nodad"])
    add(node, "fd00:9::8/64 nodad", "fd00:9::7/64", device="eth1")
    wait_until(
        lambda: "dadfailed" in node.run(["ip", "-6", "address", "show", "dev", "eth1"]).stdout,
        30,
        "the kernel has seen the twin",
    )
    assert str(chosen(node, "--iface=eth1", ipv6=True).ipv6_address) == "fd00:9::8"


def test_without_ipv6_a_dual_stack_network_is_refused(node: Namespace) -> None:
    with pytest.raises(EnvironmentMissing, match="eth0: no IPv6 address for a network with EnableIPv6"):
        chosen(node, ipv6=True)


# --- what a running agent had, it keeps


@pytest.mark.parametrize(
    "change",
    [
        f"ip address add {VIRTUAL}/24 dev eth0",
        f"ip address add {VIRTUAL}/32 dev eth0",
        f"ip address add {OTHER_NETWORK}/24 dev eth0",
        f"ip address change {OWN}/24 dev eth0 preferred_lft 0",
        f"ip address change {OWN}/24 dev eth0 valid_lft 900 preferred_lft 900",
        "ip address add fd00:8::2/64 dev eth0 nodad",
        "ip address add fd00:8::2/64 dev eth0",
        "ip address change fd00:8::227/64 dev eth0 preferred_lft 0",
        "ip link add other up type bridge; ip route replace default dev other",
        f"ip address add {VIRTUAL}/24 dev eth0; ip route replace default via 192.168.8.10 src {VIRTUAL}",
        "ip route delete default",
    ],
)
def test_the_choice_stays_whatever_comes_beside_it(node: Namespace, change: str) -> None:
    add(node, "fd00:8::227/64 nodad")
    before = chosen(node, ipv6=True)
    assert str(before.address) == OWN
    node.run(["sh", "-ec", change])
    assert chosen(node, ipv6=True, current=before) == before


def test_only_a_lost_choice_is_made_again(node: Namespace) -> None:
    add(node, "fd00:8::227/64 nodad", "fd00:8::8/64 nodad", f"{OTHER_NETWORK}/24")
    before = chosen(node, "--public-ipv6=fd00:8::227", "--iface=eth0", ipv6=True)
    node.run(["ip", "address", "delete", "fd00:8::227/64", "dev", "eth0"])
    now = chosen(node, "--iface=eth0", ipv6=True, current=before)
    assert (str(now.address), str(now.ipv6_address)) == (OWN, "fd00:8::8")
    node.run(["ip", "address", "delete", f"{OWN}/24", "dev", "eth0"])
    now = chosen(node, "--iface=eth0", ipv6=True, current=now)
    assert (str(now.address), str(now.ipv6_address)) == (OTHER_NETWORK, "fd00:8::8")


def test_another_mtu_is_seen(node: Namespace) -> None:
    before = chosen(node)
    node.run(["ip", "link", "set", "eth0", "mtu", "1400"])
    assert chosen(node, current=before).mtu == 1400


# --- agents


class Ping:
    """A ping between two pods that goes on; `end` says which numbers were not answered."""

    def __init__(self, pod: str, destination: str, log: Path, undo: ExitStack) -> None:
        self._log = log
        self._file = log.open("wb")
        command = ["ip", "netns", "exec", pod, "ping", "-n", f"-i{PING_INTERVAL_S}", destination]
        self._process = subprocess.Popen(command, stdout=self._file, stderr=self._file)
        undo.callback(self._stop)

    def answered(self) -> list[int]:
        return [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", self._log.read_text())]

    def goes_on(self, count: int = 50) -> None:
        """Wait for so many more answers."""
        before = len(self.answered())
        wait_until(lambda: len(self.answered()) >= before + count, 30, "pings are answered", self._log.read_text)

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._file.close()

    def end(self) -> list[int]:
        self._stop()
        seen = self.answered()
        return sorted(set(range(1, max(seen) + 1)) - set(seen))


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        yield Underlay(tmp_path, f"ua{os.getpid()}-", undo)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(("--iface=eth0",), id="by name"),
        pytest.param(BY_ROUTE, id="can reach", marks=pytest.mark.slow),
    ],
)
@pytest.mark.row("C23")
def test_addresses_that_come_and_go_cost_neither_the_lease_nor_a_packet(
    underlay: Underlay, flags: tuple[str, ...], tmp_path: Path
) -> None:
    nodes = TwoNodes(underlay, {"Type": "udp"}, *flags)
    pids = [node.process.pid for node in nodes.nodes]
    dump = underlay.dump()
    steady = Ping(nodes.pod1, "10.0.90.2", tmp_path / "ping.log", underlay.undo)
    steady.goes_on()

    def stay() -> bool:
        return [node.process.pid for node in nodes.nodes if node.process.poll() is None] == pids

    for holder, words in (
        (nodes.node1, f"add {VIRTUAL}/24"),
        (nodes.node1, f"add {OTHER_NETWORK}/24"),
        (nodes.node1, f"change {OWN}/24 preferred_lft 0"),
        (nodes.node1, f"delete {VIRTUAL}/24"),
        (nodes.node2, f"add {VIRTUAL}/24"),
    ):
        underlay.ip(holder.netns, f"address {words} dev eth0")
        constantly(stay, for_s=0.3, what="the agents stay")
        steady.goes_on()
    constantly(stay, for_s=1.5, what="the agents stay")
    assert steady.end() == []
    assert underlay.dump() == dump
    assert "underlay changed" not in nodes.node1.log + nodes.node2.log


def connected(nodes: TwoNodes) -> bool:
    return all(ping(*pair).returncode == 0 for pair in ((nodes.pod1, "10.0.90.2"), (nodes.pod2, "10.0.46.2")))


def misses(node: Agent, times: int) -> bool:
    """Return whether an agent has noticed so often that its address was gone."""
    return node.log.count(f"eth0 lost {OWN}") >= times


@pytest.mark.parametrize("backend", ["udp", pytest.param("host-gw", marks=pytest.mark.slow)])
def test_an_address_that_flaps_is_waited_for_beside_another(underlay: Underlay, backend: str) -> None:
    """As `ifdown eth0; ifup eth0`, or a network manager that sets everything again."""
    nodes = TwoNodes(underlay, {"Type": backend})
    netns, dump = nodes.node1.netns, underlay.dump()

    def stay() -> bool:
        return nodes.node1.process.poll() is None

    underlay.ip(netns, f"address add {OTHER_NETWORK}/24 dev eth0")
    # The agent looks 0.1 s after a report.
    constantly(stay, for_s=0.4, what="the agent stays")
    for missed in range(1, 4):
        underlay.ip(netns, f"address delete {OWN}/24 dev eth0")
        wait_until(partial(misses, nodes.node1, missed), 30, "it is missed", lambda: nodes.node1.log)
        underlay.ip(netns, f"address add {OWN}/24 dev eth0")
        constantly(stay, for_s=0.4, what="the agent stays")
    wait_until(lambda: connected(nodes), 30, "the pods reach each other again", lambda: nodes.node1.log)
    constantly(stay, for_s=2, what="the agent stays")
    assert underlay.dump() == dump


def restarted(node: Agent) -> bool:
    """Return whether the agent ended by itself and is ready after the start that a service manager would make."""
    if node.process.poll() is not None:
        assert node.process.returncode == 1
        node.start()
    return "INFO starting as" in node.log.partition("exiting to restart")[2] and node.get("/readyz")[0] == 200


def test_an_address_that_does_not_come_back_is_followed_by_the_next(underlay: Underlay) -> None:
    nodes = TwoNodes(underlay, {"Type": "udp"})
    for words in (
        "add 192.168.8.40/24 dev eth0",
        f"delete {OWN}/24 dev eth0",
        # Without promote_secondaries a secondary address goes with its primary one.
        "replace 192.168.8.40/24 dev eth0",
    ):
        underlay.ip(nodes.node1.netns, f"address {words}")
    wait_until(lambda: restarted(nodes.node1), 60, "it is ready again", lambda: nodes.node1.log)
    wait_until(lambda: connected(nodes), 30, "the pods reach each other again", lambda: nodes.node1.log)
    assert '"PublicIP":"192.168.8.40"' in underlay.leases()["/coreos.com/network/subnets/10.0.46.0-24"]
    assert len(underlay.leases()) == 2


def test_a_start_that_chooses_another_address_keeps_the_subnet(underlay: Underlay) -> None:
    """Such as one after the address was kept while it became the second choice."""
    nodes = TwoNodes(underlay, {"Type": "udp"})
    underlay.ip(nodes.node1.netns, f"address change {OWN}/24 dev eth0 valid_lft 900 preferred_lft 900")
    underlay.ip(nodes.node1.netns, f"address add {OTHER_NETWORK}/24 dev eth0")
    nodes.node1.end()
    nodes.node1.start()
    nodes.node1.wait_ready()
    assert f"address {OTHER_NETWORK}," in nodes.node1.log
    assert set(underlay.leases()) == {f"/coreos.com/network/subnets/10.0.{number}.0-24" for number in (46, 90)}
    lease = underlay.leases()["/coreos.com/network/subnets/10.0.46.0-24"]
    assert lease == f'{{"PublicIP":"{OTHER_NETWORK}","PublicIPv6":null}}'


def test_cleanup_gives_back_the_lease_of_an_address_that_is_no_longer_the_first(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config()
    node = underlay.agent("node1", OWN)
    node.wait_ready()
    underlay.ip(node.netns, f"address change {OWN}/24 dev eth0 valid_lft 900 preferred_lft 900")
    underlay.ip(node.netns, f"address add {OTHER_NETWORK}/24 dev eth0")
    other = underlay.agent("node2", "192.168.8.228")
    other.wait_ready()
    node.end()
    run(*with_command(node.argv, "cleanup", "--revoke"))
    assert [value[:27] for value in underlay.leases().values()] == ['{"PublicIP":"192.168.8.228"']


def with_command(argv: Sequence[str], command: str, *flags: str) -> list[str]:
    """Return an agent's command line for one of the commands beside running."""
    start = argv.index("agent") + 1
    kept = [word for word in argv[start:] if word.startswith(("--etcd", "--subnet-file", "--bridge", "--iface"))]
    return [*argv[:start], command, *kept, *flags]


@pytest.mark.slow
def test_ipv6_addresses_that_come_and_go_cost_nothing(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config(network({"Type": "host-gw"}, EnableIPv6=True, IPv6Network="fd00:a::/48"))
    nodes = [underlay.agent(f"node{number}", f"192.168.8.{226 + number}", start=False) for number in (1, 2)]
    for number, node in enumerate(nodes, 227):
        underlay.ip(node.netns, f"address add fd00:8::{number}/64 dev eth0 nodad")
        node.start()
        underlay.undo.callback(node.end)
        node.wait_ready()
    first, netns, dump = nodes[0], nodes[0].netns, underlay.dump()
    for words in (
        "add fd00:8::2/64 dev eth0 nodad",
        "change fd00:8::227/64 dev eth0 preferred_lft 0",
        "change fd00:8::227/64 dev eth0 preferred_lft forever",
        "delete fd00:8::2/64 dev eth0",
    ):
        underlay.ip(netns, f"address {words}")
        constantly(lambda: first.process.poll() is None, for_s=1.5, what="the agent stays")
    underlay.ip(netns, "address delete fd00:8::227/64 dev eth0")
    constantly(lambda: first.process.poll() is None, for_s=2, what="an agent without IPv6 waits for it")
    underlay.ip(netns, "address add fd00:8::227/64 dev eth0 nodad")
    assert underlay.dump() == dump
    underlay.ip(netns, "address add fd00:8::3/64 dev eth0 nodad")
    underlay.ip(netns, "address delete fd00:8::227/64 dev eth0")
    wait_until(lambda: restarted(first), 10, "it starts again with the other", lambda: first.log)
    assert '"PublicIPv6":"fd00:8::3"' in next(value for value in underlay.leases().values() if OWN in value)
