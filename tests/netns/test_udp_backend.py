"""Two nodes with the udp backend and hand-made leases, a pod on each.

pod1 eth0 ── docker0 node1 flannel0 ┈┈ eth0 ═══ eth0 ┈┈ flannel0 node2 docker0 ── eth0 pod2
10.0.46.2    10.0.46.1    10.0.46.0   .227 192.168.8 .228            10.0.90.1    10.0.90.2
"""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from agent.kernel.bridge import BridgeClaim, converge_bridge, remove_bridge
from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from tests.netns.conftest import Namespace, NamespaceMaker
from tests.netns.wishes import settings, veth
from tests.packets import ipv4
from tests.pcap import REAL_FLANNELD
from tests.waiting import wait_until

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
NETWORK = "10.0.0.0/16"
CLAIM = BridgeClaim((IPv4Network(NETWORK),))
LEASES = {"10.0.46.0/24": "192.168.8.227", "10.0.90.0/24": "192.168.8.228"}
UNREACHABLE = f"unreachable {NETWORK} metric 4278198272"
DROP_ROUTE = f"{NETWORK} dev overlay-drop0"
DROP_METRIC = "metric 4278198271"


@dataclass
class Node:
    """A node's namespace, its backend process and its one pod."""

    namespace: Namespace
    pod: Namespace
    subnet: str
    journal: Path
    datapath: str
    lacks: str = ""
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> dict[str, Any]:
        """Start the backend and return what it says first."""
        self.launch()
        return self.greeting()

    def launch(self) -> None:
        """Start the backend's process."""
        driver = [sys.executable, "-m", "tests.netns.udp_node", NETWORK, self.subnet, "eth0", LEASES[self.subnet]]
        command = ["env", "-C", str(ROOT), *driver, str(self.journal), self.datapath, self.lacks]
        with self.log.open("a", encoding="utf-8") as log:
            self.process = self.namespace.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    @property
    def log(self) -> Path:
        """Return what the backend logs."""
        return self.journal.with_suffix(".log")

    def greeting(self) -> dict[str, Any]:
        """Return what the backend says first."""
        assert self.process is not None
        assert self.process.stdout is not None
        first: dict[str, Any] = json.loads(self.process.stdout.readline())
        return first

    def tell(self, *command: object) -> dict[str, Any]:
        """Give the backend one command and return its answer."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def kill(self) -> None:
        """Kill the backend's process, and wait for its end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def has(self, device: str) -> bool:
        """Return whether the node has a device of that name."""
        return self.namespace.run(["ip", "link", "show", device], check=False).returncode == 0

    def meet_all(self) -> None:
        self.tell("peers", {subnet: ip for subnet, ip in LEASES.items() if subnet != self.subnet})

    def drops(self) -> dict[str, int]:
        drops: dict[str, int] = self.tell("counters")["drops"]
        return drops

    def commands(self) -> list[str]:
        return [" ".join(json.loads(line)["command"]) for line in self.journal.read_text().splitlines()]


@pytest.fixture(params=["native", pytest.param("python", marks=pytest.mark.slow)])
def datapath(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def nodes(namespaces: NamespaceMaker, tmp_path: Path, datapath: str) -> tuple[Node, Node]:
    """Start both nodes with pods and bridges; no backend runs yet."""
    return make_nodes(namespaces, tmp_path, (datapath, datapath))


def make_nodes(
    namespaces: NamespaceMaker, tmp_path: Path, datapaths: tuple[str, str], wire: Namespace | None = None
) -> tuple[Node, Node]:
    """Start both nodes with pods and bridges; no backend runs yet. With `wire` the cables end there: wire1, wire2."""
    made: list[Node] = []
    for number, (subnet, address) in enumerate(LEASES.items(), 1):
        here = (namespaces(f"node{number}"), namespaces(f"pod{number}"))
        node = Node(*here, subnet, tmp_path / f"journal{number}", datapaths[number - 1])
        base = IPv4Network(subnet).network_address
        with Kernel(SilentJournal(), node.namespace.pid) as kernel, Kernel(SilentJournal(), node.pod.pid) as pod:
            converge_bridge(kernel, "docker0", [IPv4Interface(f"{base + 1}/24")], 1472, CLAIM)
            kernel.converge(veth("pod", peer="eth0", peer_netns_pid=node.pod.pid, mtu=1472))
            kernel.converge(settings("pod", master="docker0"))
            kernel.set_up("pod", "x")
            pod.set_up("eth0", "x")
            pod.ensure_addresses("eth0", [IPv4Interface(f"{base + 2}/24")], "x")
        node.pod.run(["ip", "route", "add", "default", "via", str(base + 1)])
        if wire is not None:
            node.namespace.connect(wire, ("eth0", f"{address}/24"), (f"wire{number}", None))
        elif made:
            made[0].namespace.connect(
                node.namespace, ("eth0", LEASES[made[0].subnet] + "/24"), ("eth0", f"{address}/24")
            )
        made.append(node)
    return made[0], made[1]


@pytest.fixture
def overlay(nodes: tuple[Node, Node]) -> tuple[Node, Node]:
    """Start both nodes with backends that know each other."""
    for node in nodes:  # Python starts slowly: both at once
        node.launch()
    for node in nodes:
        assert node.greeting() == {"device": "flannel0", "overlay_mtu": 1472}
        node.meet_all()
    return nodes


def ping(source: Namespace, address: str, *options: str) -> str:
    """Return what ping says, whether it gets an answer or not."""
    command = ["ping", "-n", "-c1", "-W2", *options, address]
    result = source.run(command, check=False)
    return result.stdout + result.stderr


def test_pods_reach_each_other_and_only_kernels_count_down_the_ttl(overlay: tuple[Node, Node]) -> None:
    node1, node2 = overlay
    assert "from 10.0.90.2: icmp_seq=1 ttl=62" in ping(node1.pod, "10.0.90.2")
    assert "from 10.0.46.2: icmp_seq=1 ttl=62" in ping(node2.pod, "10.0.46.2")
    assert node1.drops() == node2.drops() == {}


@pytest.mark.row("C22")
def test_nodes_reach_pods_and_each_others_overlay_address(overlay: tuple[Node, Node]) -> None:
    node1, node2 = overlay
    assert "ttl=63" in ping(node1.namespace, "10.0.90.2")
    assert "ttl=63" in ping(node2.pod, "10.0.46.0")


def test_largest_packet_passes_and_a_larger_one_is_answered_with_the_mtu(overlay: tuple[Node, Node]) -> None:
    node1, _ = overlay
    assert " 0% packet loss" in ping(node1.pod, "10.0.90.2", "-M", "do", "-s", "1444")
    node1.pod.run(["ip", "link", "set", "eth0", "mtu", "1500"])
    with Kernel(SilentJournal(), node1.namespace.pid) as kernel:
        for device in ("pod", "docker0"):
            kernel.converge(settings(device, mtu=1500))
    assert "mtu = 1472" in ping(node1.pod, "10.0.90.2", "-M", "do", "-s", "1445")
    assert " 0% packet loss" in ping(node1.pod, "10.0.90.2", "-M", "dont", "-s", "3000")


def test_packet_to_no_one_is_answered_at_once_to_pods_and_to_the_node(overlay: tuple[Node, Node]) -> None:
    node1, _ = overlay
    for source in (node1.pod, node1.namespace):
        assert "From 10.0.46.0 icmp_seq=1 Destination Net Unreachable" in ping(source, "10.0.77.5")
    wait_until(lambda: node1.drops() == {"no_route": 2}, timeout_s=10, what="both are counted")


def test_answer_needs_accept_local(overlay: tuple[Node, Node]) -> None:
    """Why that sysctl is set: the answer comes from an address of the node itself, which the kernel takes for a lie."""
    node1, _ = overlay
    with Kernel(SilentJournal(), node1.namespace.pid) as kernel:
        kernel.sysctl("net.ipv4.conf.flannel0.accept_local", "0", "x")
    assert "Unreachable" not in ping(node1.pod, "10.0.77.5", "-W1")
    node1.tell("converge")
    assert "Destination Net Unreachable" in ping(node1.pod, "10.0.77.5")


def test_answers_are_limited(overlay: tuple[Node, Node]) -> None:
    node1, _ = overlay
    script = (
        "import socket, time\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "start = time.monotonic()\n"
        "for number in range(2000):\n"
        "    s.sendto(b'x', ('10.0.77.5', 9))\n"
        # The device's queue holds 1000: what does not fit there is never seen by the agent.
        "    number % 100 or time.sleep(0.1)\n"
        "print(time.monotonic() - start)"
    )
    # The kernel has limits of its own, for the ICMP that it makes; not for what it forwards.
    elapsed_s = float(node1.pod.run([sys.executable, "-c", script]).stdout)
    wait_until(lambda: node1.drops().get("no_route") == 2000, timeout_s=30, what="all are counted")
    lines = [line.split() for line in node1.pod.run(["cat", "/proc/net/snmp"]).stdout.splitlines() if "Icmp:" in line]
    answers = int(dict(zip(*lines, strict=True))["InDestUnreachs"])
    assert 100 <= answers <= 100 + 100 * (elapsed_s + 5)
    assert answers < 1500


def test_device_is_that_of_the_real_flanneld(overlay: tuple[Node, Node], datapath: str) -> None:
    recorded = (REAL_FLANNELD / "udp-link-node1.txt").read_text()
    if datapath == "native":
        # The one difference, and what makes it fast; nothing but the agent sees it.
        recorded = recorded.replace("vnet_hdr off", "vnet_hdr on")
    own = overlay[0].namespace.run(["sh", "-c", "ip -d link show flannel0; ip address show flannel0"]).stdout
    for what in (
        r"flannel0: <([A-Z_,]+)>",
        r" mtu (\d+)",
        r"link/(\w+)",
        r"tun type (\w+ pi \w+ vnet_hdr \w+ persist \w+)",
        r"inet ([\d./]+ scope \w+ \w+)",
    ):
        pattern = re.compile(what)
        assert pattern.findall(own) == pattern.findall(recorded) != [], what
    assert "inet6" not in own
    assert " qlen 1000" in own


def test_routes_are_those_of_the_real_flanneld(overlay: tuple[Node, Node]) -> None:
    recorded = [line.strip() for line in (REAL_FLANNELD / "udp-routes-node1.txt").read_text().splitlines()]
    own = [line.strip() for line in overlay[0].namespace.run(["ip", "route"]).stdout.splitlines()]
    # The default route is the machine's own business; those for when the device is gone are ours alone.
    ours = [f"{DROP_ROUTE} {DROP_METRIC} linkdown", UNREACHABLE]
    assert sorted(own) == sorted([*(route for route in recorded if not route.startswith("default")), *ours])


def test_journal_shows_how_to_make_it_by_hand(overlay: tuple[Node, Node]) -> None:
    assert overlay[0].commands() == [
        "ip tuntap add dev flannel0 mode tun",
        "ip tuntap add dev overlay-drop0 mode tun",
        "ip address add 10.0.46.0/32 dev overlay-drop0",
        "ip link set flannel0 mtu 1472 txqueuelen 1000",
        "ip link set overlay-drop0 mtu 1472 up",
        "sysctl -w net/ipv6/conf/flannel0/disable_ipv6=1",
        "sysctl -w net/ipv6/conf/flannel0/accept_ra=0",
        "sysctl -w net/ipv4/conf/flannel0/accept_local=1",
        "ip address add 10.0.46.0/32 dev flannel0",
        "ip link set flannel0 up",
        "ip route replace 10.0.0.0/16 dev flannel0 scope global",
        f"ip route replace {UNREACHABLE}",
        f"ip route replace {DROP_ROUTE} scope global {DROP_METRIC}",
    ]


def test_converging_what_is_right_changes_nothing(overlay: tuple[Node, Node]) -> None:
    node1, _ = overlay
    before = node1.commands()
    node1.tell("converge")
    assert node1.commands() == before


@pytest.mark.slow
@pytest.mark.row("F41")
@pytest.mark.parametrize(
    "harm",
    [
        "link delete flannel0",
        "link set flannel0 down",
        "address flush dev flannel0",
        "route delete 10.0.0.0/16 dev flannel0",
        "route replace 10.0.0.0/16 via 192.168.8.228",
        "link set flannel0 mtu 1300",
        f"route delete {UNREACHABLE}",
        f"route delete {DROP_ROUTE} {DROP_METRIC}",
        "link delete overlay-drop0",
        "link set overlay-drop0 down",
        "link set overlay-drop0 mtu 1300",
        "address flush dev overlay-drop0",
    ],
)
def test_converging_repairs(harm: str, overlay: tuple[Node, Node]) -> None:
    node1, node2 = overlay
    things = "ip link show flannel0; ip -4 address show flannel0; ip -4 address show overlay-drop0; ip route"
    look = ["sh", "-c", things]
    before = re.sub(r"(?m)^\d+:", "", node1.namespace.run(look).stdout)
    node1.namespace.run(["ip", *harm.split()])
    assert re.sub(r"(?m)^\d+:", "", node1.namespace.run(look, check=False).stdout) != before
    node1.tell("converge")
    assert re.sub(r"(?m)^\d+:", "", node1.namespace.run(look).stdout) == before
    assert "ttl=62" in ping(node1.pod, "10.0.90.2")
    assert "ttl=62" in ping(node2.pod, "10.0.46.2")


def let_packets_leak(overlay: tuple[Node, Node]) -> None:
    """Let node2 be node1's default gateway, and see that packets which leak there reach the pod."""
    node1, node2 = overlay
    node1.namespace.run(["ip", "route", "add", "default", "via", "192.168.8.228"])
    node2.namespace.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    node1.namespace.run(["ip", "link", "set", "flannel0", "down"])
    node1.namespace.run(["ip", "link", "set", "overlay-drop0", "down"])
    node1.namespace.run(["ip", "route", "delete", *UNREACHABLE.split()])
    before = echo_requests(node2.pod)
    ping(node1.pod, "10.0.90.2", "-W1")
    assert echo_requests(node2.pod) == before + 1
    node1.tell("converge")
    assert "ttl=62" in ping(node1.pod, "10.0.90.2")


def echo_requests(pod: Namespace) -> int:
    """Return how many pings have reached it."""
    lines = [line.split() for line in pod.run(["cat", "/proc/net/snmp"]).stdout.splitlines() if "Icmp:" in line]
    return int(dict(zip(*lines, strict=True))["InEchos"])


@pytest.mark.parametrize("end", ["link delete", "stop", "kill"])
def test_nothing_leaks_to_the_default_gateway_while_the_device_is_gone(end: str, overlay: tuple[Node, Node]) -> None:
    let_packets_leak(overlay)
    node1, node2 = overlay
    if end == "link delete":
        node1.namespace.run(["ip", "link", "delete", "flannel0"])
    elif end == "stop":
        node1.tell("stop")
    else:
        node1.kill()
    wait_until(lambda: not node1.has("flannel0"), timeout_s=20, what="the device is gone")
    assert node1.has("overlay-drop0") == (end != "stop")
    before = echo_requests(node2.pod)
    for source in (node1.pod, node1.namespace):
        said = ping(source, "10.0.90.2")
        assert " 0% packet loss" not in said
        # Only who was stopped on purpose refuses.
        refused = "No route to host" if source is node1.namespace else "Destination Host Unreachable"
        assert (refused in said) == (end == "stop")
    assert echo_requests(node2.pod) == before


@pytest.mark.row("C22")
def test_traffic_goes_on_over_an_agent_restart(overlay: tuple[Node, Node]) -> None:
    node1, _ = overlay
    node1.kill()
    assert node1.start()["device"] == "flannel0"
    node1.meet_all()
    assert "ttl=62" in ping(node1.pod, "10.0.90.2")


@pytest.mark.slow
def test_fenced_node_carries_nothing_until_it_gets_peers_again(overlay: tuple[Node, Node]) -> None:
    node1, node2 = overlay
    node1.tell("fence")
    assert "100% packet loss" in ping(node1.pod, "10.0.90.2", "-W1")
    assert "100% packet loss" in ping(node2.pod, "10.0.46.2", "-W1")
    # What arrives is refused already because nobody is a peer; what is sent is refused because of the fence.
    assert node1.drops() == {"fenced": 1, "peer": 1}
    node1.tell("converge")
    assert "100% packet loss" in ping(node1.pod, "10.0.90.2", "-W1")
    node1.meet_all()
    assert "ttl=62" in ping(node1.pod, "10.0.90.2")


@pytest.mark.row("B33")
def test_withdrawn_peer_is_neither_reached_nor_heard(overlay: tuple[Node, Node]) -> None:
    node1, node2 = overlay
    node1.tell("peers", {})
    assert "Destination Net Unreachable" in ping(node1.pod, "10.0.90.2")
    assert "100% packet loss" in ping(node2.pod, "10.0.46.2", "-W1")
    wait_until(lambda: node1.drops() == {"no_route": 1, "peer": 1}, timeout_s=10, what="both are counted")
    assert node1.tell("table") == {}


def test_table_shows_where_packets_go(overlay: tuple[Node, Node]) -> None:
    assert overlay[0].tell("table") == {"10.0.90.0/24": "192.168.8.228:8285"}


@pytest.mark.row("B42")
def test_claim_on_our_own_public_address_is_no_peer(overlay: tuple[Node, Node]) -> None:
    overlay[0].tell("peers", {"10.0.90.0/24": "192.168.8.228", "10.0.91.0/24": "192.168.8.227"})
    assert overlay[0].tell("table") == {"10.0.90.0/24": "192.168.8.228:8285"}


def test_counters_survive_a_new_device(overlay: tuple[Node, Node]) -> None:
    node1, _ = overlay
    ping(node1.pod, "10.0.90.2")
    node1.namespace.run(["ip", "link", "delete", "flannel0"])
    node1.tell("converge")
    ping(node1.pod, "10.0.90.2")
    wait_until(lambda: node1.tell("counters")["rx"] == [2, 168], timeout_s=10, what="both answers are counted")
    wait_until(lambda: node1.tell("counters")["tx"] == [2, 168], timeout_s=10, what="both requests are counted")


@pytest.mark.row("F44")
def test_second_agent_reports_the_owner_of_the_port(overlay: tuple[Node, Node]) -> None:
    node1, _ = overlay
    first = node1.process
    assert first is not None
    error = node1.start()["error"]
    assert re.search(rf"UDP port 8285 on 192\.168\.8\.227: already in use by \S+ \(pid {first.pid}\)", error)


@pytest.mark.row("B25", "B28", "B30", "B31", "B32")
def test_hostile_peer_cannot_reach_past_the_checks(nodes: tuple[Node, Node]) -> None:
    """node2 has no agent: a program speaks in its place, from its address and port."""
    node1, node2 = nodes
    node1.start()
    node1.meet_all()
    lies = {
        "source": ipv4("10.0.46.2", "10.0.46.2", bytes(8)),
        "destination": ipv4("10.0.90.2", "192.168.8.227", bytes(8)),
        "checksum": ipv4("10.0.90.2", "10.0.46.2", bytes(8), checksum=0x1234),
        "toolong": ipv4("10.0.90.2", "10.0.46.2", bytes(2000)),
        "version": bytes([0x60]) + bytes(59),
    }
    script = (
        "import socket, sys\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.bind(('192.168.8.228', 8285))\n"
        "for line in sys.argv[1:]:\n"
        "    s.sendto(bytes.fromhex(line), ('192.168.8.227', 8285))"
    )
    node2.namespace.run([sys.executable, "-c", script, *(lie.hex() for lie in lies.values())])
    expected = dict.fromkeys(lies, 1)
    wait_until(lambda: node1.drops() == expected, timeout_s=5, what=f"drops are {expected}")
    assert node1.tell("counters")["rx"] == [0, 0]


@pytest.mark.row("C26")
def test_bridge_is_that_of_dockerd_and_follows_the_subnet(nodes: tuple[Node, Node]) -> None:
    namespace = nodes[0].namespace
    with Kernel(SilentJournal(), namespace.pid) as kernel:
        link = kernel.link("docker0")
        assert link is not None
        assert (link.kind, link.mtu, link.mac, link.up) == ("bridge", 1472, "02:42:0a:00:2e:01", True)
        assert kernel.read_sysctl("net.ipv4.ip_forward") == "1"
        converge_bridge(kernel, "docker0", [IPv4Interface("10.0.47.1/24")], 1400, CLAIM)
        assert kernel.addresses("docker0") == (IPv4Interface("10.0.47.1/24"),)
        link = kernel.link("docker0")
        assert link is not None
        assert (link.mtu, link.mac) == (1400, "02:42:0a:00:2f:01")
        remove_bridge(kernel, "docker0")
        remove_bridge(kernel, "docker0")
        remove_bridge(kernel, "eth0")
        assert [link.name for link in kernel.links()][-1] == "eth0"


@pytest.mark.slow
@pytest.mark.row("B36")
def test_a_flood_from_a_stranger_is_dropped_and_the_good_flow_goes_on(overlay: tuple[Node, Node]) -> None:
    node1, node2 = overlay
    node2.namespace.run(["ip", "address", "add", "192.168.8.9/24", "dev", "eth0"])
    idle = float(received(node1.pod, "10.0.90.2"))
    script = (
        "import socket, time\n"
        "s = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.bind(('192.168.8.9', 8285))\n"
        "s.connect(('192.168.8.227', 8285))\n"
        "junk, sent, end = bytes(200), 0, time.monotonic() + 30\n"
        "while time.monotonic() < end:\n"
        "    for _ in range(100):\n"
        "        s.send(junk)\n"
    )
    flood = node2.namespace.popen([sys.executable, "-c", script])
    wait_until(lambda: node1.drops().get("peer", 0) > 1000, timeout_s=10, what="the flood arrives")
    before, since = node1.drops()["peer"], time.monotonic()
    flooded = received(node1.pod, "10.0.90.2")
    rate = (node1.drops()["peer"] - before) / (time.monotonic() - since)
    assert flood.poll() is None
    flood.kill()
    assert flooded >= idle / 2, f"{flooded} of {idle} answers beside {rate:.0f} datagrams of junk a second"
    assert received(node1.pod, "10.0.90.2") == idle
    assert set(node1.drops()) == {"peer"}


def received(source: Namespace, address: str) -> int:
    """Return how many of 100 requests, one each 10 ms, are answered."""
    result = source.run(["ping", "-n", "-q", "-c100", "-i0.01", "-W1", address], check=False)
    return int(re.findall(r"(\d+) received", result.stdout)[0])
