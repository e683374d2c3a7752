"""The cases of flannel's own `functional/` and `e2e/` suites, by their names there, for each backend of this kernel.

Theirs run flanneld in containers or kind; ours run our agent in bare network namespaces with a real etcd.
"""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from tests.netns.agents import Agent, Underlay, ping, run, wait_until
from tests.netns.overlay import POD1, POD2, TwoNodes, network, on, skip_without

pytestmark = [pytest.mark.root, pytest.mark.slow]

PSK = "cDTJgNyxPdfWWdzMYIZjoR+TtJVoDTm8j/4S0bgEOOo="
BACKENDS: dict[str, dict[str, object]] = {
    "udp": {"Type": "udp"},
    "vxlan": {"Type": "vxlan"},
    "vxlan, DirectRouting": {"Type": "vxlan", "DirectRouting": True},
    "host-gw": {"Type": "host-gw"},
    "ipip": {"Type": "ipip"},
    "ipip, DirectRouting": {"Type": "ipip", "DirectRouting": True},
    # As flannel's functional test has it.
    "wireguard": {"Type": "wireguard", "PSK": PSK, "PersistentKeepaliveInterval": 300},
}


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("udp", "vxlan, DirectRouting", "ipip, DirectRouting")]


@pytest.fixture(scope="module", params=["vxlan", "host-gw", "ipip", "wireguard", *OTHERS])
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    if (kind := request.param.partition(",")[0]) in ("ipip", "wireguard"):
        skip_without(kind)
    with ExitStack() as undo:
        underlay = Underlay(tmp_path_factory.mktemp("fn"), f"fn{os.getpid()}-", undo)
        yield TwoNodes(underlay, BACKENDS[request.param])


@pytest.mark.row("C7")
def test_provides_pod_to_pod_connectivity_and_no_more_hops_than_two(nodes: TwoNodes) -> None:
    """functional: «pings between two flannel hosts»; e2e: «provides pod-to-pod connectivity»."""
    for pod, address in ((nodes.pod1, POD2), (nodes.pod2, POD1)):
        answers = run("ip", "netns", "exec", pod, "ping", "-n", "-c3", "-i0.1", "-W2", address).stdout
        assert answers.count("ttl=62 ") == 3
    # functional pings from the host itself, with its own end of the subnet.
    assert ping(nodes.node1.netns, "10.0.90.1", "-I", "10.0.46.1").returncode == 0
    assert ping(nodes.node2.netns, "10.0.46.1", "-I", "10.0.90.1").returncode == 0


@pytest.mark.row("C8")
def test_passes_iperf3_throughput_test(nodes: TwoNodes) -> None:
    """functional and e2e: «passes iperf3 throughput test»; it completes, there is no threshold."""
    server = ("ip", "netns", "exec", nodes.pod2, "timeout", "20", "iperf3", "-s", "-1", "-D")
    run(*server)
    client = ("ip", "netns", "exec", nodes.pod1, "iperf3", "-c", POD2, "-t1", "-J", "--connect-timeout=2000")

    def answer() -> str:
        done = run(*client, check=False)
        return done.stdout if done.returncode == 0 else ""

    report = json.loads(wait_until(answer, 30, "iperf3 ends well"))
    assert report["end"]["sum_received"]["bits_per_second"] > 1e6


@pytest.mark.slow
@pytest.mark.row("C9")
def test_recovers_pod_connectivity_after_a_pod_is_deleted_and_recreated(nodes: TwoNodes) -> None:
    """e2e resilience."""
    address = "10.0.90.7"
    for name in ("c", "d"):
        pod = nodes.underlay.pod(nodes.node2, name, f"{address}/24")
        # The pod speaks first, so that its node learns the new MAC behind the old address.
        wait_until(partial(reaches, pod, POD1), 5, f"pod {name} reaches the other node")
        assert reaches(nodes.pod1, address)
        run("ip", "netns", "delete", pod)
        # The kernel takes a namespace apart in its own time.
        wait_until(lambda: not reaches(nodes.pod1, address, "-W1"), 10, f"pod {name} has gone")


@pytest.mark.row("C10")
def test_preserves_connectivity_and_subnet_leases_across_a_rolling_restart(nodes: TwoNodes) -> None:
    """e2e resilience: «… across a flannel DaemonSet restart»."""
    before = [node.subnet_file.read_text() for node in nodes.nodes]
    leases = set(nodes.underlay.leases())
    for node in nodes.nodes:
        assert node.end(signal.SIGTERM) == 0
        node.start()
        node.wait_ready()
        nodes.wait_connected()
    assert [node.subnet_file.read_text() for node in nodes.nodes] == before
    assert set(nodes.underlay.leases()) == leases


def reaches(netns: str, address: str, *flags: str) -> bool:
    """Return whether one ping is answered."""
    return ping(netns, address, *flags).returncode == 0


def second_agent(underlay: Underlay, node: Agent, network_number: int, *flags: str) -> Agent:
    """Start another agent on the same node, for another network."""
    directory = node.directory / f"network{network_number}"
    directory.mkdir()
    own = (f"--etcd-prefix=/network{network_number}", f"--subnet-file={directory}/subnet.env", "--bridge=")
    more = ("--docker-opts-file=", f"--healthz-port={8286 + network_number}", *flags)
    agent = Agent(node.netns, f"{node.name}-{network_number}", directory, (*node.argv, *own, *more))
    agent.health_port = 8286 + network_number
    agent.start()
    underlay.undo.callback(agent.end)
    return agent


@pytest.mark.slow
@pytest.mark.row("C31")
def test_multi_vxlan_and_host_gw_dual_networks_route_traffic_over_the_correct_backend(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """functional: «multi (vxlan+host-gw dual networks)»."""
    with ExitStack() as undo:
        underlay = Underlay(tmp_path_factory.mktemp("multi"), f"fm{os.getpid()}-", undo)
        nodes = TwoNodes(underlay, {"Type": "vxlan"})
        second = network({"Type": "host-gw"}).replace("10.0.0.0/16", "10.5.0.0/16")
        underlay.etcdctl("put", "/network1/config", second)
        addresses = {}
        for node in nodes.nodes:
            agent = second_agent(underlay, node, 1)
            agent.wait_ready()
            (addresses[node.name],) = re.findall(r"FLANNEL_SUBNET=(\S+)/24", agent.subnet_file.read_text())
            # As the functional test does: an interface of its own holds the first address of the second network.
            # (Theirs is of type dummy, which this kernel may lack; a bridge without ports is as good.)
            underlay.ip(node.netns, "link add dummy0 type bridge")
            underlay.ip(node.netns, f"address add {addresses[node.name]}/24 dev dummy0")
            underlay.ip(node.netns, "link set dummy0 up")
        # Else a node answers on eth0 for the addresses of all its interfaces, and its neighbour needs no overlay.
        on(nodes.node2, "sysctl -qw net.ipv4.conf.all.arp_ignore=1")
        far = addresses["node2"]
        right = [("10.0.46.1", "10.0.90.1"), (addresses["node1"], far)]
        for source, destination in right:
            wait_until(
                partial(reaches, nodes.node1.netns, destination, "-I", source),
                10,
                f"{source} reaches {destination}",
            )
        assert ping(nodes.node1.netns, far, "-I", "flannel.1").returncode != 0
        assert ping(nodes.node1.netns, "10.0.90.1", "-I", "eth0").returncode != 0
        for source, destination in right:
            assert ping(nodes.node1.netns, destination, "-I", source).returncode == 0
        # Each agent keeps its own rules and routes, and none takes the other's for left over.
        tables = re.findall(r"table ip (\S+)", on(nodes.node1, "nft list ruleset"))
        assert sorted(tables) == ["overlay-agent-10.0.0.0-16", "overlay-agent-10.5.0.0-16"]
