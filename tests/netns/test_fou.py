"""The udp backend without a process: what the kernel sends and accepts (FOU), and what is reported where it cannot."""

import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from agent.datapath.counters import DropReason
from agent.datapath.forwarder import Drop, Forwarder, OwnNode, WriteToTun
from agent.datapath.forwarding_table import ForwardingTable, TunnelEndpoint
from tests.netns.agents import Agent, Underlay, ping, run, wait_until
from tests.netns.overlay import POD1, POD2, TwoNodes, lines, network, on
from tests.packets import ipv4, udp
from tests.pcap import REAL_FLANNELD, udp_datagrams

pytestmark = [pytest.mark.root]

PORT = 8285
OURS, THEIRS = "192.168.8.227", "192.168.8.228"
DEVICE = "flfou-c0a808e4"
KERNEL = "--datapath=kernel"
MARK = b"<test:"


def missing_here() -> list[str]:
    """Return what this kernel has not of what --datapath kernel needs."""
    run("modprobe", "--quiet", "fou", check=False)
    port = run("unshare", "--net", "ip", "fou", "add", "port", "1", "ipproto", "4", check=False)
    device = run("unshare", "--net", "ip", "link", "add", "probe", "type", "ipip", "local", "127.0.0.1", check=False)
    return [name for name, tried in (("fou", port), ("ipip", device)) if tried.returncode]


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        yield Underlay(tmp_path, f"fo{os.getpid()}-", undo)


@pytest.fixture(scope="module")
def fou(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    if missing := missing_here():
        pytest.skip(f"this kernel has no {' and no '.join(missing)}")
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path_factory.mktemp("fo"), f"fm{os.getpid()}-", undo), {"Type": "udp"}, KERNEL)


def test_a_kernel_without_fou_is_reported_at_start_with_all_that_is_missing(underlay: Underlay) -> None:
    missing = missing_here()
    if not missing:
        pytest.skip("this kernel has fou and ipip")
    underlay.start_etcd()
    underlay.write_config(network({"Type": "udp"}))
    node = underlay.agent("node", OURS, KERNEL, start=False)
    done = run(*node.argv, check=False)
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    named = [re.findall(r"Debian's module (\w+)", line) for line in errors]
    assert named == [[name] for name in missing]
    assert all("--datapath kernel" in line for line in errors)
    assert underlay.leases() == {}
    assert "flannel" not in on(node, "ip link")


class Wire:
    """Packets as they pass an interface in a namespace, with their times, read by a process of its own."""

    def __init__(self, netns: str, interface: str) -> None:
        program = (
            "import socket, time\n"
            "seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))\n"
            f"seen.bind(({interface!r}, 0x0003))\n"
            "print('ready', flush=True)\n"
            "while True:\n"
            "    frame = seen.recv(65536)\n"
            "    if frame[12:14] == b'\\x08\\x00': print(time.time(), frame[14:].hex(), flush=True)\n"
        )
        argv = ("ip", "netns", "exec", netns, sys.executable, "-c", program)
        self._lines: list[str] = []
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._reader = threading.Thread(
            target=lambda out: self._lines.extend(iter(out.readline, "")), args=(self._process.stdout,)
        )
        self._reader.start()

    @property
    def timed(self) -> list[tuple[float, bytes]]:
        """Return time and bytes of the packets so far."""
        return [(float(line.split()[0]), bytes.fromhex(line.split()[1])) for line in self._lines if line.endswith("\n")]

    @property
    def packets(self) -> list[bytes]:
        return [packet for _, packet in self.timed]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def wire(netns: str, interface: str = "eth0") -> Iterator[Wire]:
    one = Wire(netns, interface)
    try:
        yield one
    finally:
        one.end()


def send_raw(netns: str, packets: list[bytes]) -> None:
    """Send whole IPv4 packets; those longer than the underlay's MTU in fragments."""
    program = (
        "import socket, sys\n"
        "raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n"
        "for line in sys.stdin:\n"
        "    packet = bytes.fromhex(line.strip())\n"
        "    raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))\n"
    )
    pieces = [piece for packet in packets for piece in fragments(packet)]
    words = ("ip", "netns", "exec", netns, sys.executable, "-c", program)
    run(*words, stdin="".join(f"{piece.hex()}\n" for piece in pieces))


def fragments(packet: bytes, most: int = 1480) -> list[bytes]:
    """Return the packet, or its fragments; raw sockets do not make any."""
    body, source, destination = packet[20:], socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    if len(body) <= most:
        return [packet]
    starts = range(0, len(body), most)
    return [
        ipv4(
            source,
            destination,
            body[start : start + most],
            protocol=packet[9],
            identification=77,
            flags_and_offset=start // 8 | (0x2000 if start + most < len(body) else 0),
        )
        for start in starts
    ]


def outer(payload: bytes, port: int = PORT, source: str = THEIRS) -> bytes:
    """Return the datagram around a peer's packet."""
    return ipv4(source, OURS, udp(port, PORT, payload), identification=0)


def drops(node: Agent) -> dict[str, int]:
    counted: dict[str, int] = node.state()["counters"]["drops"]
    return counted


def test_devices_routes_and_files_are_those_of_the_udp_backend(fou: TwoNodes) -> None:
    node = fou.node1
    shown = on(node, f"ip -d link show {DEVICE}")
    assert "mtu 1472" in shown
    assert f"ipip remote {THEIRS} local {OURS} ttl 64" in shown
    assert f"encap fou encap-sport {PORT} encap-dport {PORT} noencap-csum" in shown
    routes = lines(on(node, "ip route"))
    assert f"10.0.90.0/24 via {THEIRS} dev {DEVICE} src 10.0.46.0 onlink" in routes
    assert any(route.startswith("unreachable 10.0.0.0/16 ") for route in routes)
    assert "inet 10.0.46.0/32" in on(node, "ip address show flannel0")
    assert f"port {PORT} ipproto 4 local {OURS}" in " ".join(on(node, "ip fou show").split())
    assert node.subnet_file.read_text() == (REAL_FLANNELD / "udp-subnet.env").read_text()
    value = fou.underlay.leases()["/coreos.com/network/subnets/10.0.46.0-24"]
    assert value == '{"PublicIP":"192.168.8.227","PublicIPv6":null}'
    state = node.state()
    assert state["datapath"] == "kernel"
    assert state["forwarding"] == [{"subnet": "10.0.90.0/24", "via": f"{THEIRS}:{PORT}"}]


def carried(seen: Wire) -> list[bytes]:
    """Return the datagrams from our node's overlay port to the same port."""
    ends, ports = socket.inet_aton(OURS) + socket.inet_aton(THEIRS), PORT.to_bytes(2, "big") * 2
    return [packet for packet in seen.packets if packet[9] == 17 and packet[12:24] == ends + ports]


def test_a_packet_on_the_wire_is_the_inner_packet_after_the_udp_header(fou: TwoNodes) -> None:
    with wire(fou.node2.netns) as seen:
        assert ping(fou.pod1, POD2).returncode == 0
        wait_until(lambda: carried(seen), 5, "the datagram is seen")
    for packet in carried(seen):
        payload = packet[28:]
        assert packet[8] == 64
        assert packet[26:28] == bytes(2), "no UDP checksum, as flanneld's"
        assert payload[12:20] == socket.inet_aton(POD1) + socket.inet_aton(POD2)
        assert len(payload) == int.from_bytes(payload[2:4], "big") == 84


def test_both_ends_count_what_they_carry(fou: TwoNodes) -> None:
    before = [node.state()["counters"] for node in fou.nodes]
    for _ in range(3):
        assert ping(fou.pod1, POD2).returncode == 0
    for old, node in zip(before, fou.nodes, strict=True):
        new = node.state()["counters"]
        assert new["tx_packets"] - old["tx_packets"] >= 3
        assert new["rx_packets"] - old["rx_packets"] >= 3


def test_the_largest_packet_passes_and_a_larger_one_is_answered(fou: TwoNodes) -> None:
    assert ping(fou.pod1, POD2, "-M", "do", "-s", str(1472 - 28)).returncode == 0
    assert "mtu=1472" in ping(fou.pod1, POD2, "-M", "do", "-s", str(1473 - 28)).stderr


def test_an_unknown_subnet_is_answered_unreachable_at_once(fou: TwoNodes) -> None:
    started = time.monotonic()
    said = ping(fou.pod1, "10.0.77.5").stdout
    assert "Unreachable" in said
    assert time.monotonic() - started < 1.5, "the answer came before the timeout of 2 s"


def test_nodes_and_pods_of_other_nodes_reach_each_other(fou: TwoNodes) -> None:
    assert ping(fou.node1.netns, POD2).returncode == 0
    assert ping(fou.node1.netns, "10.0.90.1").returncode == 0
    assert ping(fou.pod1, "10.0.90.1").returncode == 0


# --- what a peer may send, by the forwarder and by the kernel

NODE = OwnNode(IPv4Network("10.0.46.0/24"), overlay_mtu=1472, port=PORT)
FORWARDER = Forwarder(NODE, ForwardingTable({IPv4Network("10.0.90.0/24"): TunnelEndpoint(THEIRS, PORT)}))


def inner(text: str, source: str = POD2, destination: str = POD1, **fields: object) -> bytes:
    return ipv4(source, destination, udp(7, 9, text.encode()), **fields)  # type: ignore[arg-type]  # by name


PACKETS: dict[str, tuple[bytes, int]] = {
    "<right>": (inner("<right>"), PORT),
    "<last address>": (inner("<last address>", source="10.0.90.254"), PORT),
    "<from the base>": (inner("<from the base>", source="10.0.90.0"), PORT),
    "<bytes after>": (inner("<bytes after>") + b"more", PORT),
    "<options>": (inner("<options>", options=b"\x01\x01\x01\x00"), PORT),
    "<class>": (inner("<class>", tos=0xB8), PORT),
    "<source port>": (inner("<source port>"), PORT + 1),
    "<from nobody>": (inner("<from nobody>", source="10.0.77.5"), PORT),
    "<from our subnet>": (inner("<from our subnet>", source="10.0.46.3"), PORT),
    "<from our address>": (inner("<from our address>", source="10.0.46.0"), PORT),
    "<from outside>": (inner("<from outside>", source="8.8.8.8"), PORT),
    "<to nobody>": (inner("<to nobody>", destination="10.0.77.5"), PORT),
    "<back>": (inner("<back>", destination="10.0.90.9"), PORT),
    "<to the node>": (inner("<to the node>", destination=OURS), PORT),
    "<to all>": (inner("<to all>", destination="10.0.46.255"), PORT),
    "<to a group>": (inner("<to a group>", destination="224.0.0.5"), PORT),
    "<nested>": (ipv4(POD2, POD1, udp(PORT, PORT, b"<nested>")), PORT),
    "<to the port>": (ipv4(POD2, POD1, udp(7, PORT, b"<to the port>")), PORT),
    "<from the port>": (ipv4(POD2, POD1, udp(PORT, 9, b"<from the port>")), PORT),
    "<nothing>": (b"", PORT),
    "<short>": (inner("<short>")[:19], PORT),
    "<version>": (b"\x65" + inner("<version>")[1:], PORT),
    "<ihl>": (inner("<ihl>", version_ihl=0x44), PORT),
    "<below>": (inner("<below>", total_length=19), PORT),
    "<beyond>": (inner("<beyond>", total_length=999), PORT),
    "<checksum>": (inner("<checksum>", checksum=0xBEEF), PORT),
    "<ttl>": (inner("<ttl>", ttl=0), PORT),
    "<long>": (ipv4(POD2, POD1, udp(7, 9, b"<long>" + b"x" * 1500)), PORT),
}
COUNTED = (DropReason.PEER, DropReason.SOURCE, DropReason.DESTINATION, DropReason.NEST)
"""The reasons that rules know; the rest are checks of the kernel's own."""
DIFFERENCES = {"<long>"}
"""All of them: a packet may be longer than our MTU (docs/architecture.md)."""


def has_final(seen: Wire) -> bool:
    return any(b"<final>" in packet for packet in seen.packets)


def test_the_kernel_decides_about_a_peers_packets_as_the_forwarder_does(fou: TwoNodes) -> None:
    decisions = {name: FORWARDER.from_udp(payload, (THEIRS, port)) for name, (payload, port) in PACKETS.items()}
    before = drops(fou.node1)
    with wire(fou.pod1) as at_pod, wire(fou.node1.netns, "docker0") as at_bridge:
        send_raw(fou.node2.netns, [outer(inner("<first>"))])
        send_raw(fou.node2.netns, [outer(payload, port) for payload, port in PACKETS.values()])
        send_raw(fou.node2.netns, [outer(inner("<final>"))])
        for seen in (at_pod, at_bridge):
            wait_until(partial(has_final, seen), 15, "the last one arrives")
    arrived = {name for name in decisions if any(name.encode() in packet for packet in at_pod.packets)}
    forwarded = {name for name, decision in decisions.items() if isinstance(decision, WriteToTun)}
    assert arrived ^ forwarded == DIFFERENCES
    replies = {name for name in decisions if any(name.encode() in packet for packet in at_bridge.packets)}
    assert replies == arrived, "nothing else came out at the bridge"
    reasons = [decision.reason for decision in decisions.values() if isinstance(decision, Drop)]
    after = drops(fou.node1)
    assert {reason: after[reason] - before[reason] for reason in COUNTED} == {
        reason: reasons.count(reason) for reason in COUNTED
    }
    for name in arrived - DIFFERENCES:
        # Not the pod's answer, which quotes the packet.
        (packet,) = [packet for packet in at_pod.packets if name.encode() in packet and packet[9] == 17]
        sent = PACKETS[name][0][: int.from_bytes(PACKETS[name][0][2:4], "big")]
        assert packet[:8] == sent[:8]
        assert packet[8] == sent[8] - 1
        assert packet[12:] == sent[12:]


def test_a_stranger_is_counted_and_reaches_nobody(fou: TwoNodes) -> None:
    before = drops(fou.node1)["peer"]
    stranger = fou.underlay.etcd_netns
    with wire(fou.pod1) as at_pod:
        send_raw(stranger, [outer(inner("<stranger>"), source="192.168.8.11")])
        send_raw(fou.node2.netns, [outer(inner("<known>"))])
        wait_until(lambda: any(b"<known>" in packet for packet in at_pod.packets), 5, "the peer's packet arrives")
    assert not any(b"<stranger>" in packet for packet in at_pod.packets)
    assert drops(fou.node1)["peer"] == before + 1


# --- mixed, and the recorded flanneld


def after_one_hop_of_flanneld(packet: bytes) -> bytes:
    return ipv4(
        socket.inet_ntoa(packet[12:16]),
        socket.inet_ntoa(packet[16:20]),
        packet[20:],
        ttl=packet[8] - 1,
        protocol=packet[9],
        tos=packet[1],
        identification=int.from_bytes(packet[4:6], "big"),
        flags_and_offset=int.from_bytes(packet[6:8], "big"),
    )


def with_ttl(packet: bytes, ttl: int) -> bytes:
    return after_one_hop_of_flanneld(packet[:8] + bytes([ttl + 1]) + packet[9:])


def test_a_recorded_flanneld_is_understood_and_is_sent_what_it_sends(fou: TwoNodes) -> None:
    recorded = udp_datagrams(REAL_FLANNELD / "udp-backend-outer.pcap", PORT)
    theirs = [one.payload for one in recorded if one.source[0] == THEIRS]
    ours = [one.payload for one in recorded if one.source[0] == OURS]
    assert len(theirs) == len(ours) == 9
    with wire(fou.pod1) as at_pod, wire(fou.node2.netns) as underlay:
        send_raw(fou.node2.netns, [outer(payload) for payload in theirs])
        # One more on the way to docker0's other side; flanneld took one itself.
        send_raw(fou.pod1, [with_ttl(payload, payload[8] + 1) for payload in ours])
        expected = [after_one_hop_of_flanneld(payload) for payload in theirs]
        wait_until(lambda: set(expected) <= set(at_pod.packets), 5, "all arrive", lambda: at_pod.packets)
        wait_until(
            lambda: set(ours) <= {packet[28:] for packet in carried(underlay)},
            5,
            "all are sent as flanneld sent them",
            lambda: (ours, underlay.packets),
        )


def transfer(source: str, destination: str, address: str, size: int = 3_000_000) -> None:
    """Carry bytes by TCP from pod to pod, and compare them."""
    server = (
        "import hashlib, socket\n"
        f"with socket.create_server(({address!r}, 7000)) as server:\n"
        "    print('ready', flush=True)\n"
        "    with server.accept()[0] as one:\n"
        "        found = hashlib.sha256()\n"
        "        while data := one.recv(65536): found.update(data)\n"
        "    print(found.hexdigest(), flush=True)\n"
    )
    client = (
        "import random, socket\n"
        f"with socket.create_connection(({address!r}, 7000), 5) as one: "
        f"one.sendall(random.Random(1).randbytes({size}))\n"
    )
    inside = ("ip", "netns", "exec")
    far_end = (*inside, destination, "timeout", "60", sys.executable, "-c", server)
    with subprocess.Popen(far_end, stdout=subprocess.PIPE, text=True) as far:
        assert far.stdout is not None
        assert far.stdout.readline() == "ready\n"
        run(*inside, source, sys.executable, "-c", client, timeout_s=40)
        assert far.stdout.readline().strip() == hashlib.sha256(random.Random(1).randbytes(size)).hexdigest()


def test_large_packets_of_tcp_pass_between_two_kernels(fou: TwoNodes) -> None:
    transfer(fou.pod1, fou.pod2, POD2)


def restart(node: Agent, datapath: str, how: signal.Signals = signal.SIGTERM) -> None:
    node.end(how)
    others = tuple(word for word in node.argv if not word.startswith("--datapath"))
    node.argv = (*others, f"--datapath={datapath}")
    node.start()
    node.wait_ready()
    wait_until(lambda: node.state()["datapath"] == datapath, 5, f"the data path is {datapath}", lambda: node.log)


def test_two_kernels_with_offload_leave_large_packets_whole(fou: TwoNodes) -> None:
    nodes = (fou.node1, fou.node2)
    before = [node.argv for node in nodes]
    try:
        for node in nodes:
            node.argv = (*node.argv, "--offload")
            restart(node, "kernel")
        fou.wait_connected()
        with wire(fou.node1.netns) as underlay:
            transfer(fou.pod1, fou.pod2, POD2)
        assert max(map(len, underlay.packets)) > 1500
    finally:
        for node, argv in zip(nodes, before, strict=True):
            node.argv = argv
            restart(node, "kernel")
        fou.wait_connected()


@pytest.mark.parametrize("datapath", ["native", "python"])
def test_a_process_and_the_kernel_carry_each_others_packets(fou: TwoNodes, datapath: str) -> None:
    restart(fou.node2, datapath)
    try:
        fou.wait_connected()
        assert "fou" not in on(fou.node2, "ip -d link")
        assert not on(fou.node2, "ip fou show").strip()
        transfer(fou.pod1, fou.pod2, POD2)
        transfer(fou.pod2, fou.pod1, POD1)
    finally:
        restart(fou.node2, "kernel")
    fou.wait_connected()
    assert "ipip" in on(fou.node2, "ip -d link show flannel0")


# --- what happens to devices, rules and the port


@pytest.mark.parametrize(
    "command",
    [
        f"ip link delete {DEVICE}",
        "ip link delete flannel0",
        "ip route delete 10.0.90.0/24",
        f"ip link set {DEVICE} mtu 1300",
    ],
)
def test_a_foreign_change_is_reverted_within_five_seconds(fou: TwoNodes, command: str) -> None:
    node = fou.node1

    def state() -> tuple[set[str], list[str], list[str]]:
        shown = on(node, "ip -d link")
        return (
            lines(on(node, "ip route")),
            re.findall(r"ipip remote.*encap-dport \d+", shown),
            re.findall(r"mtu \d+", shown),
        )

    before = state()
    on(node, command)
    wait_until(
        lambda: [sorted(one) for one in state()] == [sorted(one) for one in before],
        5,
        "all is as before",
        lambda: (before, state(), node.log),
    )
    fou.wait_connected(timeout_s=5)


def test_rules_that_are_gone_come_back(fou: TwoNodes) -> None:
    node = fou.node1
    before = node.state()["counters"]["rx_packets"]
    table = "overlay-agent-fou-10.0.0.0-16"
    on(node, f"nft delete table ip {table}")
    wait_until(lambda: table in on(node, "nft list tables"), 40, "the table is back", lambda: node.log)
    fou.wait_connected(timeout_s=5)
    assert before > 0


def pinging(netns: str, address: str, count: int) -> subprocess.Popen[str]:
    words = ("ip", "netns", "exec", netns, "ping", "-n", "-q", f"-c{count}", "-i0.05", "-W2", address)
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_packets_go_on_without_the_agent_and_through_its_next_start(fou: TwoNodes) -> None:
    node = fou.node1
    with pinging(fou.pod1, POD2, 80) as flow:
        node.end(signal.SIGKILL)
        time.sleep(1)  # without an agent, under traffic
        node.start()
        node.wait_ready()
        said = flow.communicate(timeout=60)[0]
    assert " 0% packet loss" in said, said


def test_a_removed_peers_packets_stop_within_100_ms(fou: TwoNodes) -> None:
    fou.node2.end(signal.SIGKILL)
    fou.wait_connected()
    key = "/coreos.com/network/subnets/10.0.90.0-24"
    with wire(fou.pod1) as at_pod, wire(fou.node2.netns) as underlay, pinging(fou.pod1, POD2, 60) as flow:
        wait_until(lambda: len(carried(underlay)) > 5, 5, "packets flow")
        fou.underlay.etcdctl("del", key)
        deleted = time.time()
        flow.communicate(timeout=60)
        send_raw(fou.node2.netns, [outer(inner("<removed>"))])
        time.sleep(0.3)  # it must not arrive; the one before did
        replies = [when for when, packet in at_pod.timed if packet[9] == 1 and packet[12:16] == socket.inet_aton(POD2)]
        assert not any(b"<removed>" in packet for packet in at_pod.packets)
    assert replies
    print(f"last packet of the peer {1000 * (max(replies) - deleted):.0f} ms after etcdctl returned")
    assert max(replies) - deleted < 0.1
    fou.node2.start()
    fou.node2.wait_ready()
    fou.wait_connected()


def test_cleanup_leaves_no_device_no_port_and_no_rule(fou: TwoNodes) -> None:
    node = fou.node2
    node.end(signal.SIGTERM)
    assert "flfou-" in on(node, "ip link"), "packets go on without the agent"
    flags = [word for word in node.argv if word.startswith(("--subnet-file", "--etcd-endpoints", "--iface"))]
    run("ip", "netns", "exec", node.netns, sys.executable, "-m", "agent", "cleanup", *flags)
    left = on(node, "ip -d link") + on(node, "ip fou show") + on(node, "nft list ruleset")
    assert not re.findall("flfou-|flannel0|port 8285|overlay-agent-", left)
    node.start()
    node.wait_ready()
    fou.wait_connected()


def test_a_hundred_peers_get_their_devices_in_less_than_a_second(underlay: Underlay) -> None:
    if missing := missing_here():
        pytest.skip(f"this kernel has no {' and no '.join(missing)}")
    netns = underlay.host("many", OURS)
    costs = json.loads(run("ip", "netns", "exec", netns, sys.executable, "-m", "tests.netns.fou_scale", "100").stdout)
    print(costs)
    assert costs["devices"] == 100
    assert costs["made_s"] < 1
    assert costs["removed_s"] < 0.1
