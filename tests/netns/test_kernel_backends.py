"""vxlan and host-gw keep the kernel as it should be: what users of flannel ask for (stale routes, lost devices …)."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import Agent, Underlay, agent_command, run, wait_until
from tests.netns.overlay import TwoNodes, lines, network, on, vtep_mac

pytestmark = [pytest.mark.root, pytest.mark.slow]

FAKE = "/coreos.com/network/subnets/10.0.77.0-24"
MACS = ("0a:00:00:00:00:01", "0a:00:00:00:00:02")


@pytest.fixture(scope="module")
def vxlan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path_factory.mktemp("vx"), f"vx{os.getpid()}-", undo), {"Type": "vxlan"})


@pytest.fixture(scope="module")
def host_gw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path_factory.mktemp("hg"), f"hg{os.getpid()}-", undo), {"Type": "host-gw"})


def entries(node: Agent) -> dict[str, set[str]]:
    """Return everything that a backend keeps, as `ip` and `bridge` print it."""
    present = {
        "addresses": {line for line in lines(on(node, "ip -br -4 address")) if line.startswith("flannel")},
        "routes": lines(on(node, "ip route")),
        "fdb": {line for line in lines(on(node, "bridge fdb show")) if " dst " in line},
        "neighbours": {line for line in lines(on(node, "ip neigh show nud permanent")) if "flannel" in line},
    }
    return present


def peer(public_ip: str, mac: str) -> str:
    """Return a lease of a node that there is not."""
    data = {"VNI": 1, "VtepMAC": mac}
    return json.dumps({"PublicIP": public_ip, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data})


@pytest.mark.parametrize(
    "command",
    [
        "ip link delete flannel.1",
        "ip link set flannel.1 down",
        "ip link set flannel.1 mtu 1300",
        "ip link set flannel.1 address 0a:00:00:00:00:09",
        "ip address flush dev flannel.1",
        "ip route delete 10.0.90.0/24",
        "ip route replace 10.0.90.0/24 via 192.168.8.10 dev eth0",
        "ip neigh delete 10.0.90.0 dev flannel.1",
        "ip neigh replace 10.0.90.0 lladdr 0a:00:00:00:00:09 dev flannel.1 nud permanent",
        "bridge fdb replace 0a:00:00:00:00:09 dev flannel.1 dst 192.168.8.9 self permanent",
        "FDB bridge fdb delete MAC dev flannel.1 dst 192.168.8.228 self",
        "ip link set eth0 down",
    ],
)
@pytest.mark.row("C21")
def test_a_foreign_change_is_reverted_within_five_seconds(vxlan: TwoNodes, command: str) -> None:
    node = vxlan.node1

    def state() -> tuple[dict[str, set[str]], str]:
        link = run("ip", "-n", node.netns, "-d", "link", "show", "flannel.1", check=False).stdout
        # Without its index, which is the only thing that a new device may have of its own.
        return entries(node), link.partition(": ")[2]

    before = state()
    on(node, command.removeprefix("FDB ").replace("MAC", vtep_mac(vxlan.node2)))
    if command.endswith("eth0 down"):
        # A cable pulled and plugged in again; the default route was the operator's.
        on(node, "ip link set eth0 up")
        on(node, "ip route add default via 192.168.8.10")
    wait_until(lambda: state() == before, 5, "all is as before", lambda: (before, state(), node.log))
    vxlan.wait_connected(timeout_s=5)


@pytest.mark.parametrize(
    "command",
    [
        "ip route delete 10.0.90.0/24",
        "ip route replace 10.0.90.0/24 via 192.168.8.10 dev eth0",
        "ip route delete unreachable 10.0.0.0/16 metric 4278198272",
        "ip link set eth0 down",
    ],
)
def test_plain_routes_are_as_before_within_five_seconds(host_gw: TwoNodes, command: str) -> None:
    node = host_gw.node1
    before = entries(node)
    on(node, command)
    if command.endswith("eth0 down"):
        on(node, "ip link set eth0 up")
        on(node, "ip route add default via 192.168.8.10")
    wait_until(lambda: entries(node) == before, 5, "all is as before", lambda: (before, entries(node), node.log))
    host_gw.wait_connected(timeout_s=5)


@pytest.mark.slow
def test_packets_flow_while_the_agent_is_dead(vxlan: TwoNodes, host_gw: TwoNodes) -> None:
    for nodes in (vxlan, host_gw):
        before = entries(nodes.node1)
        for how in (signal.SIGKILL, signal.SIGTERM):
            nodes.node1.end(how)
            assert nodes.connected()
            assert entries(nodes.node1) == before
            nodes.node1.start()
            nodes.node1.wait_ready()
        assert entries(nodes.node1) == before


@pytest.mark.row("C17")
def test_what_an_earlier_run_left_of_peers_that_have_gone_is_removed_at_start(
    vxlan: TwoNodes, host_gw: TwoNodes
) -> None:
    for nodes, route in (
        (vxlan, "10.0.33.0/24 via 10.0.33.0 dev flannel.1 onlink"),
        (host_gw, "10.0.33.0/24 via 192.168.8.233 dev eth0"),
    ):
        node = nodes.node1
        before = entries(node)
        node.end(signal.SIGTERM)
        on(node, f"ip route add {route}")
        operators = "10.0.34.0/24 via 192.168.8.10 dev eth0 proto static"
        on(node, f"ip route add {operators}")
        if nodes is vxlan:
            on(node, f"ip neigh add 10.0.33.0 lladdr {MACS[0]} dev flannel.1 nud permanent")
            on(node, f"bridge fdb add {MACS[0]} dev flannel.1 dst 192.168.8.233 self permanent")
        node.start()
        node.wait_ready()
        present = entries(node)
        assert operators in present["routes"]
        present["routes"].remove(operators)
        assert present == before
        on(node, f"ip route delete {operators}")


@pytest.mark.row("C19")
def test_a_peers_changed_mac_and_address_replace_all_the_old_entries(vxlan: TwoNodes) -> None:
    node, etcd = vxlan.node1, vxlan.underlay.etcdctl
    before = entries(node)
    for public_ip, mac in (
        ("192.168.8.231", MACS[0]),
        ("192.168.8.231", MACS[1]),
        ("192.168.8.232", MACS[1]),
        ("192.168.8.233", MACS[0]),
    ):
        etcd("put", FAKE, peer(public_ip, mac))
        wanted = {
            "addresses": before["addresses"],
            "routes": before["routes"] | {"10.0.77.0/24 via 10.0.77.0 dev flannel.1 onlink"},
            "fdb": before["fdb"] | {f"{mac} dev flannel.1 dst {public_ip} self permanent"},
            "neighbours": before["neighbours"] | {f"10.0.77.0 dev flannel.1 lladdr {mac} PERMANENT"},
        }
        wait_until(lambda w=wanted: entries(node) == w, 5, "exactly the new entries", lambda: entries(node))  # type: ignore[misc] # mypy cannot read a lambda's default
    etcd("del", FAKE)
    wait_until(lambda: entries(node) == before, 5, "nothing is left of the peer", lambda: entries(node))


def test_a_peers_changed_address_replaces_a_plain_route(host_gw: TwoNodes) -> None:
    node, etcd = host_gw.node1, host_gw.underlay.etcdctl
    before = entries(node)
    for public_ip in ("192.168.8.231", "192.168.8.232"):
        etcd("put", FAKE, json.dumps({"PublicIP": public_ip, "PublicIPv6": None, "BackendType": "host-gw"}))
        wanted = before["routes"] | {f"10.0.77.0/24 via {public_ip} dev eth0"}
        wait_until(lambda w=wanted: entries(node)["routes"] == w, 5, "exactly the new route", lambda: entries(node))  # type: ignore[misc] # the same
    etcd("del", FAKE)
    wait_until(lambda: entries(node) == before, 5, "nothing is left of the peer", lambda: entries(node))


def test_leases_of_another_backend_and_without_usable_data_are_no_peers_and_do_no_harm(vxlan: TwoNodes) -> None:
    node, etcd = vxlan.node1, vxlan.underlay.etcdctl
    before = entries(node)
    for value in (
        '{"PublicIP":"192.168.8.231","PublicIPv6":null}',
        '{"PublicIP":"192.168.8.231","PublicIPv6":null,"BackendType":"host-gw"}',
        peer("192.168.8.231", "no mac"),
    ):
        etcd("put", FAKE, value)
        revision = json.loads(etcd("get", FAKE, "-w=json").stdout)["header"]["revision"]
        wait_until(lambda r=revision: node.state()["revision"] >= r, 5, "the agent knows it", lambda: node.state())  # type: ignore[misc] # the same
        assert entries(node) == before
        assert node.get("/readyz")[0] == 200
    assert "lease 10.0.77.0/24 of 192.168.8.231 ignored: of backend type udp" in node.log
    assert "has no VtepMAC" in node.log
    etcd("del", FAKE)


def test_an_unreachable_peer_does_not_stop_the_others_from_being_routed(host_gw: TwoNodes) -> None:
    node, etcd = host_gw.node1, host_gw.underlay.etcdctl
    etcd("put", FAKE, '{"PublicIP":"203.0.113.9","PublicIPv6":null,"BackendType":"host-gw"}')
    wait_until(lambda: node.get("/readyz")[0] == 503, 8, "the node says so", lambda: node.log)
    assert "ip route replace 10.0.77.0/24 via 203.0.113.9 dev eth0" in node.get("/readyz")[1]
    assert host_gw.connected()
    etcd("del", FAKE)
    node.wait_ready(timeout_s=10)


@pytest.mark.row("C19")
def test_a_new_device_has_a_new_mac_which_peers_learn(vxlan: TwoNodes) -> None:
    old = vtep_mac(vxlan.node2)
    vxlan.node2.end(signal.SIGTERM)
    on(vxlan.node2, "ip link delete flannel.1")
    vxlan.node2.start()
    vxlan.node2.wait_ready()
    new = vtep_mac(vxlan.node2)
    assert new != old
    assert new in vxlan.underlay.leases()["/coreos.com/network/subnets/10.0.90.0-24"]
    vxlan.wait_connected(timeout_s=5)
    present = json.dumps({kind: sorted(found) for kind, found in entries(vxlan.node1).items()})
    assert old not in present
    assert present.count(new) == 2


def restart_with(nodes: TwoNodes, config: str) -> None:
    for node in nodes.nodes:
        node.end(signal.SIGTERM)
    nodes.underlay.write_config(config)
    for node in nodes.nodes:
        node.start()
    for node in nodes.nodes:
        node.wait_ready()
    nodes.wait_connected()


@pytest.mark.slow
@pytest.mark.row("C29")
def test_another_backend_after_a_restart_finds_nothing_of_the_one_before(underlay: Underlay) -> None:
    nodes = TwoNodes(underlay, {"Type": "vxlan"})
    restart_with(nodes, network({"Type": "vxlan", "VNI": 7, "Port": 4789, "MTU": 1400}))
    flannels = re.findall(r"(flannel\S+?):.* mtu (\d+)", on(nodes.node1, "ip link"))
    assert flannels == [("flannel.7", "1350")]
    assert "FLANNEL_MTU=1350" in nodes.node1.subnet_file.read_text()
    assert "dstport 4789" in on(nodes.node1, "ip -d link show flannel.7")
    restart_with(nodes, network({"Type": "host-gw"}))
    assert "flannel" not in on(nodes.node1, "ip link")
    assert "10.0.90.0/24 via 192.168.8.228 dev eth0" in lines(on(nodes.node1, "ip route"))
    restart_with(nodes, network({"Type": "udp"}))
    assert "10.0.90.0/24" not in on(nodes.node1, "ip route")
    assert "10.0.0.0/16 dev flannel0" in on(nodes.node1, "ip route")


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        yield Underlay(tmp_path, f"kb{os.getpid()}-", undo)


@pytest.mark.slow
@pytest.mark.row("C29")
def test_cleanup_removes_device_routes_and_all_and_twice_is_harmless(underlay: Underlay) -> None:
    underlay.start_etcd()
    for number, backend in enumerate(("vxlan", "host-gw")):
        underlay.write_config(network({"Type": backend}))
        underlay.etcdctl("put", FAKE, peer("192.168.8.231", MACS[0]).replace("vxlan", backend))
        node = underlay.agent(f"n{number}", f"192.168.8.22{number}")
        before = lines(on(node, "ip route"))
        node.wait_ready()
        assert "10.0.77.0/24" in on(node, "ip route")
        node.end(signal.SIGTERM)
        command = agent_command(node.netns, node.directory, "--bridge=docker0")
        at = command.index("agent") + 1
        cleanup = (*command[:at], "cleanup", *command[at:])
        said = run(*cleanup).stdout
        assert ("ip link delete flannel.1" in said) == (backend == "vxlan")
        assert lines(on(node, "ip route")) == before
        assert "flannel" not in on(node, "ip link")
        assert run(*cleanup).stdout == "nothing to remove\n"


@pytest.mark.row("C30")
def test_a_network_of_the_machine_inside_the_pod_network_is_refused_at_start(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config(network({"Type": "vxlan"}))
    node = underlay.agent("node", "192.168.8.227", start=False)
    underlay.ip(node.netns, "link add office type veth peer name far")
    underlay.ip(node.netns, "address add 10.0.3.7/24 dev office")
    underlay.ip(node.netns, "link set office up")
    done = run(*node.argv, check=False)
    assert done.returncode == 3
    assert "error: office: its network and the pod network overlap (got 10.0.3.0/24; want one outside" in done.stderr
    assert underlay.leases() == {}
