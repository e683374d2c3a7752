"""A node whose agent is dead: packets are lost, not refused; and who stops it on purpose finds them refused."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import Agent, Underlay, run
from tests.netns.conftest import Namespace
from tests.netns.overlay import network, on
from tests.netns.test_udp_backend import LEASES, NETWORK, ROOT, UNREACHABLE, Node, ping
from tests.netns.test_udp_backend import datapath as datapath
from tests.netns.test_udp_backend import nodes as nodes
from tests.netns.test_udp_backend import overlay as overlay
from tests.waiting import constantly, wait_until

pytestmark = pytest.mark.root

Overlay = tuple[Node, Node]
PORT = 40_400
ECHO = f"""
import socket
server = socket.create_server(("", {PORT}))
while True:
    connection, _ = server.accept()
    connection.sendall(connection.recv(100))
    connection.close()
"""
ASK = f"""
import socket, sys
connection = socket.create_connection((sys.argv[1], {PORT}), 30)
connection.sendall(b"hello")
print(connection.recv(100).decode(), connection.getsockname()[0])
"""


class Client:
    """A program that connects to pod2 and says what it got."""

    def __init__(self, where: Namespace, wanted: str) -> None:
        self.wanted = wanted
        self._where = where
        self._process = where.popen(["python3", "-c", ASK, "10.0.90.2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def waits(self) -> bool:
        """Return whether its SYN is out and nothing has come back."""
        waiting = self._where.run(["ss", "-Htn", "state", "syn-sent", f"dport = :{PORT}"]).stdout
        return self._process.poll() is None and bool(waiting.strip())

    def said(self) -> str:
        """Wait for its end and return its output."""
        out, err = self._process.communicate(timeout=40)
        return (out + err).strip()


def clients(overlay: Overlay) -> list[Client]:
    """Return a client in node1's pod and one on node1 itself, with the output of each on success."""
    node1, node2 = overlay
    node2.pod.popen(["python3", "-c", ECHO])
    listening = ["ss", "-Htln", f"sport = :{PORT}"]
    wait_until(lambda: node2.pod.run(listening).stdout.strip(), timeout_s=30, what="pod2 listens")
    return [Client(node1.pod, "hello 10.0.46.2"), Client(node1.namespace, "hello 10.0.46.0")]


@pytest.mark.parametrize("then", ["native", "python"])
def test_a_connection_that_begins_while_the_agent_is_dead_is_made_by_the_next(then: str, overlay: Overlay) -> None:
    node1, _ = overlay
    node1.kill()
    begun = clients(overlay)
    for client in begun:
        wait_until(client.waits, timeout_s=15, what="its SYN is out")
    constantly(lambda: all(client.waits() for client in begun), for_s=1.5, what="both wait, none is refused")
    node1.datapath = then
    assert node1.start()["device"] == "flannel0"
    node1.meet_all()
    assert [client.said() for client in begun] == [client.wanted for client in begun]


def test_a_node_that_ignores_routes_of_devices_without_carrier_drops_all_the_same(nodes: Overlay) -> None:
    node1, _ = nodes
    node1.namespace.run(["sysctl", "-qw", "net.ipv4.conf.default.ignore_routes_with_linkdown=1"])
    node1.start()
    node1.meet_all()
    assert "Destination Net Unreachable" in ping(node1.pod, "10.0.77.5"), "the agent refuses what nobody has"
    node1.kill()
    for source in (node1.pod, node1.namespace):
        said = ping(source, "10.0.90.2", "-W1")
        assert "100% packet loss" in said
        assert "Unreachable" not in said


def test_packets_wait_for_an_agent_that_does_not_know_its_peers_yet(overlay: Overlay) -> None:
    """To know of none is not to know that there is none."""
    node1, node2 = overlay
    node1.kill()
    node1.start()
    pings = [
        source.popen(["ping", "-n", "-c1", "-W20", address], stdout=subprocess.PIPE)
        for source, address in ((node1.pod, "10.0.90.2"), (node1.namespace, "10.0.90.2"), (node2.pod, "10.0.46.2"))
    ]
    constantly(lambda: all(it.poll() is None for it in pings), for_s=1, what="none is answered or refused")
    assert node1.drops() == {}
    node1.meet_all()
    assert [it.wait(20) for it in pings] == [0, 0, 0]
    assert node1.drops() == {}


def test_a_flanneld_that_takes_over_from_a_killed_agent_makes_its_own_flannel0(overlay: Overlay) -> None:
    node1, _ = overlay
    node1.kill()
    addresses = (LEASES[node1.subnet], LEASES["10.0.90.0/24"])
    program = [sys.executable, "-m", "tests.netns.flanneld_steps", NETWORK, node1.subnet, *addresses]
    flanneld = node1.namespace.popen(["env", "-C", str(ROOT), *program], stdout=subprocess.PIPE)
    assert flanneld.stdout is not None
    assert flanneld.stdout.readline() == "flannel0\n"
    assert "persist off" in node1.namespace.run(["ip", "-d", "link", "show", "flannel0"]).stdout
    for source in (node1.pod, node1.namespace):
        assert " 0% packet loss" in ping(source, "10.0.90.2")
    flanneld.kill()
    flanneld.wait()
    assert node1.start()["device"] == "flannel0"
    node1.meet_all()
    assert "ttl=62" in ping(node1.pod, "10.0.90.2")


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        found = Underlay(tmp_path, f"da{os.getpid()}-", undo)
        found.start_etcd()
        found.write_config()
        yield found


@pytest.fixture
def agent(underlay: Underlay) -> Agent:
    node = underlay.agent("node1", "192.168.8.227", pinned="10.0.46.1/24")
    node.wait_ready()
    return node


def left(node: Agent) -> set[str]:
    """Return what there is for packets of the pod network once the agent has ended."""
    wait_until(lambda: "flannel0" not in on(node, "ip -br link"), timeout_s=20, what="flannel0 is gone")
    devices = {line.split()[0] for line in on(node, "ip -br link").splitlines()}
    routes = {" ".join(line.split()) for line in on(node, "ip route").splitlines()}
    return {device for device in devices if device.startswith("overlay-")} | {
        route for route in routes if "10.0.0.0/16" in route
    }


DROPPED = {"overlay-drop0", "10.0.0.0/16 dev overlay-drop0 metric 4278198271 linkdown", UNREACHABLE}
REFUSED = {UNREACHABLE}


@pytest.mark.parametrize(
    ("how", "wanted"), [(signal.SIGTERM, REFUSED), (signal.SIGINT, REFUSED), (signal.SIGKILL, DROPPED)]
)
def test_packets_are_refused_only_when_the_agent_is_stopped_on_purpose(
    how: signal.Signals, wanted: set[str], agent: Agent
) -> None:
    agent.end(how)
    assert left(agent) == wanted


def test_cleanup_after_a_kill_leaves_nothing_of_it(agent: Agent) -> None:
    agent.end()
    at = agent.argv.index("agent") + 1
    said = run(*agent.argv[:at], "cleanup", *agent.argv[at:]).stdout
    assert "removed: ip link delete overlay-drop0\n" in said
    assert left(agent) == set()
    assert "nothing to remove" in run(*agent.argv[:at], "cleanup", *agent.argv[at:]).stdout


@pytest.mark.slow
def test_an_agent_stopped_while_it_waits_for_etcd_undoes_what_the_killed_one_left(
    underlay: Underlay, agent: Agent
) -> None:
    agent.end()
    underlay.stop_etcd()
    agent.start()
    wait_until(lambda: "network config" in agent.get("/readyz")[1], timeout_s=10, what="it waits for the config")
    constantly(lambda: left(agent) == DROPPED, for_s=1, what="packets are dropped while it waits")
    assert agent.end(signal.SIGTERM) == 0
    assert left(agent) == REFUSED


@pytest.mark.slow
def test_packets_are_dropped_while_a_restarting_agent_is_away(underlay: Underlay, agent: Agent) -> None:
    underlay.ip(agent.netns, "link set eth0 mtu 1400")
    assert agent.process.wait(10) == 1
    assert left(agent) == DROPPED
    agent.start()
    agent.wait_ready()
    assert "mtu 1372" in on(agent, "ip link show overlay-drop0")


@pytest.mark.slow
def test_a_node_that_lost_its_subnet_to_another_has_packets_refused(underlay: Underlay, agent: Agent) -> None:
    owner = '{"PublicIP":"192.168.8.9","PublicIPv6":null}'
    underlay.etcdctl("put", "/coreos.com/network/subnets/10.0.46.0-24", owner)
    assert agent.process.wait(20) == 1
    assert left(agent) == REFUSED


@pytest.mark.slow
def test_another_backend_after_a_kill_removes_it(underlay: Underlay, agent: Agent) -> None:
    agent.end()
    underlay.write_config(network({"Type": "vxlan"}))
    agent.start()
    agent.wait_ready()
    assert left(agent) == REFUSED


@pytest.mark.slow
def test_another_network_after_a_kill_has_its_own_in_its_place(underlay: Underlay, agent: Agent) -> None:
    agent.end()
    underlay.write_config(network({"Type": "udp"}).replace("10.0.0.0", "10.9.0.0"))
    agent.start()
    agent.wait_ready()
    devices = on(agent, "ip -br -4 address show type tun").split()
    assert (devices[0], devices[3]) == ("flannel0", "overlay-drop0")
    assert devices[2] == devices[5]
    assert devices[2].startswith("10.9.")


@pytest.mark.slow
def test_two_networks_of_a_node_have_one_each(underlay: Underlay, agent: Agent) -> None:
    blue = network({"Type": "udp", "Port": 8299}).replace("10.0.0.0", "10.9.0.0")
    underlay.etcdctl("put", "/blue/network/config", blue)
    directory = underlay.directory / "blue"
    directory.mkdir()
    flags = (f"--subnet-file={directory / 'subnet.env'}", "--etcd-prefix=/blue/network", "--bridge=blue0")
    argv = (*agent.argv, *flags, f"--docker-opts-file={directory / 'docker_opts.env'}", "--healthz-port=8299")
    second = Agent(agent.netns, "blue", directory, argv, health_port=8299)
    second.start()
    underlay.undo.callback(second.end)
    second.wait_ready()
    assert "10.9.0.0/16 dev flannel1" in on(agent, "ip route")
    assert "10.9.0.0/16 dev overlay-drop1 metric 4278198271 linkdown" in on(agent, "ip route")
    agent.end()
    second.end(signal.SIGTERM)
    assert left(agent) == DROPPED
