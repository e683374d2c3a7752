"""The agent alone: real etcd, real agents in bare namespaces, pods made by hand."""

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import ENDPOINT, HEALTH_PORT, Agent, Underlay, agent_command, ping, run, wait_until
from tests.path_mtu import send_unfragmented
from tests.rows import shows

pytestmark = [pytest.mark.root]
VECTORS = Path(__file__).parents[1] / "vectors" / "real-flanneld"


class TwoNodes:
    """The example of the vectors: node1 10.0.46.0/24, node2 10.0.90.0/24, a pod on each."""

    def __init__(self, underlay: Underlay) -> None:
        self.underlay = underlay
        underlay.start_etcd()
        underlay.write_config()
        self.node1 = underlay.agent("node1", "192.168.8.227", pinned="10.0.46.1/24")
        self.node2 = underlay.agent("node2", "192.168.8.228", pinned="10.0.90.1/24")
        for node in (self.node1, self.node2):
            node.wait_ready()
        self.pod1 = underlay.pod(self.node1, "a", "10.0.46.2/24")
        self.pod2 = underlay.pod(self.node2, "b", "10.0.90.2/24")
        self.wait_connected()

    def wait_connected(self, timeout_s: float = 30) -> None:
        """Wait until the pods reach each other, once each node's watch has seen the other's lease."""
        wait_until(lambda: ping(self.pod1, "10.0.90.2").returncode == 0, timeout_s, "pod1 reaches pod2")


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path_factory.mktemp("two"), f"ag{os.getpid()}-", undo))


@pytest.fixture
def underlay(tmp_path: Path) -> Iterator[Underlay]:
    with ExitStack() as undo:
        yield Underlay(tmp_path, f"al{os.getpid()}-", undo)


def links(netns: str) -> set[str]:
    return {link["ifname"] for link in json.loads(run("ip", "-n", netns, "-j", "link").stdout)}


def rules(netns: str) -> str:
    return run("ip", "netns", "exec", netns, "nft", "list", "ruleset").stdout


def test_two_forwarding_kernels_are_all_that_the_ttl_shows(two_nodes: TwoNodes) -> None:
    assert "ttl=62 " in ping(two_nodes.pod1, "10.0.90.2").stdout
    assert "ttl=62 " in ping(two_nodes.pod2, "10.0.46.2").stdout


def test_the_largest_packet_passes_and_one_byte_more_is_answered_with_the_mtu(two_nodes: TwoNodes) -> None:
    assert ping(two_nodes.pod1, "10.0.90.2", "-Mdo", "-s1444").returncode == 0
    assert ping(two_nodes.pod1, "10.0.90.2", "-Mdo", "-s1445").returncode == 1
    told = run("ip", "netns", "exec", two_nodes.pod1, *send_unfragmented("10.0.90.2", 1445)).stdout
    assert told == "EMSGSIZE 1472\n"


def test_an_address_of_no_node_is_answered_at_once(two_nodes: TwoNodes) -> None:
    assert "Destination Net Unreachable" in ping(two_nodes.pod1, "10.0.77.5", "-W1").stdout, "within a second"
    assert sum(two_nodes.node1.state()["counters"]["drops"].values()) >= 1


def test_etcd_holds_what_the_real_flanneld_writes(two_nodes: TwoNodes) -> None:
    assert two_nodes.underlay.dump() == json.loads((VECTORS / "udp-etcd.json").read_text())


def test_subnet_env_is_that_of_the_real_flanneld(two_nodes: TwoNodes) -> None:
    assert two_nodes.node1.subnet_file.read_bytes() == (VECTORS / "udp-subnet.env").read_bytes()
    assert '--bip=10.0.46.1/24"' in (two_nodes.node1.directory / "docker_opts.env").read_text()


def test_the_kernel_has_the_routes_of_the_real_flanneld(two_nodes: TwoNodes) -> None:
    def parsed(text: str) -> set[str]:
        # Trailing words such as `linkdown` and blanks are no part of the route.
        return {line.strip() for line in text.splitlines() if line.strip()}

    present = parsed(run("ip", "-n", two_nodes.node1.netns, "route").stdout)
    assert parsed((VECTORS / "udp-routes-node1.txt").read_text()) <= present


def test_state_and_metrics_tell_the_peer_the_lease_and_the_packets(two_nodes: TwoNodes) -> None:
    state = two_nodes.node1.state()
    assert state["ready"] is True
    assert state["why_not_ready"] == []
    assert state["forwarding"] == [{"subnet": "10.0.90.0/24", "via": "192.168.8.228:8285"}]
    assert (state["lease"]["subnet"], state["lease"]["public_ip"]) == ("10.0.46.0/24", "192.168.8.227")
    assert (state["lease"]["ttl_s"], state["lease"]["reservation"]) == (30, False)
    assert 0 < state["lease"]["seconds_left"] <= 30
    assert (state["device"], state["overlay_mtu"], state["fenced"]) == ("flannel0", 1472, False)
    metrics = two_nodes.node1.get("/metrics")[1]
    assert re.search(r'^overlay_packets_total\{direction="tx"\} [1-9]', metrics, re.M)
    assert "\noverlay_peers 1\n" in metrics
    assert "\noverlay_ready 1\n" in metrics


def test_the_journal_of_an_agent_is_commands(two_nodes: TwoNodes, tmp_path: Path) -> None:
    node3 = two_nodes.underlay.agent("node3", "192.168.8.229", f"--journal={tmp_path}/journal", pinned="10.0.3.1/24")
    node3.wait_ready()
    commands = [" ".join(json.loads(line)["command"]) for line in (tmp_path / "journal").read_text().splitlines()]
    assert any(command.startswith("ip link add docker0") for command in commands)
    assert any("flannel0" in command for command in commands)
    node3.end()
    # Else its lease would end by itself, in the middle of any other test.
    two_nodes.underlay.etcdctl("del", "/coreos.com/network/subnets/10.0.3.0-24")


def test_an_agent_killed_hard_comes_back_with_its_subnet_within_three_seconds(two_nodes: TwoNodes) -> None:
    took_s: list[float] = []
    # A pause of the machine is not the agent's.
    while len(took_s) < 3 and min(took_s, default=9.0) >= 3:
        two_nodes.node1.end(signal.SIGKILL)
        began = time.monotonic()
        two_nodes.node1.start()
        wait_until(lambda: ping(two_nodes.pod1, "10.0.90.2", "-W0.2").returncode == 0, 20, "pod1 reaches pod2")
        took_s.append(time.monotonic() - began)
        two_nodes.node1.wait_ready()
        assert two_nodes.node1.subnet() == "10.0.46.0/24"
    assert min(took_s) < 3, took_s


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("ip link delete flannel0", "the overlay device"),
        ("ip route delete 10.0.0.0/16 dev flannel0", "the route"),
        ("ip address delete 10.0.46.1/24 dev docker0", "the bridge's address"),
        ("nft flush ruleset", "the rules"),
    ],
)
def test_deleted_state_is_recreated(two_nodes: TwoNodes, command: str, what: str) -> None:
    def kernel() -> tuple[str, str, bool]:
        addresses = run("ip", "-n", two_nodes.node1.netns, "-br", "-4", "address").stdout
        routes = run("ip", "-n", two_nodes.node1.netns, "route").stdout
        interesting = sorted(re.findall(r"(?m)^(?:flannel0|docker0)\S* +\S+ +(.*\S)", addresses))
        return " ".join(interesting), "\n".join(sorted(routes.splitlines())), bool(rules(two_nodes.node1.netns))

    before = kernel()
    run("ip", "netns", "exec", two_nodes.node1.netns, *command.split())
    wait_until(lambda: kernel() == before, 8, f"{what} is back", lambda: (before, kernel()))
    two_nodes.wait_connected(timeout_s=5)


def test_sigterm_leaves_no_device_and_keeps_the_lease(two_nodes: TwoNodes) -> None:
    keys = set(two_nodes.underlay.leases())
    assert two_nodes.node1.end(signal.SIGTERM) == 0
    assert "flannel0" not in links(two_nodes.node1.netns)
    assert set(two_nodes.underlay.leases()) == keys
    assert two_nodes.node1.subnet_file.exists()
    assert "Traceback" not in two_nodes.node1.log
    two_nodes.node1.start()
    two_nodes.node1.wait_ready()
    two_nodes.wait_connected()


def test_an_etcd_that_is_away_stops_no_packet(two_nodes: TwoNodes) -> None:
    two_nodes.underlay.stop_etcd()
    try:
        assert ping(two_nodes.pod1, "10.0.90.2").returncode == 0
        assert two_nodes.node1.get("/readyz")[0] == 200
    finally:
        two_nodes.underlay.start_etcd()
    assert ping(two_nodes.pod1, "10.0.90.2").returncode == 0
    for node in (two_nodes.node1, two_nodes.node2):
        assert "Traceback" not in node.log


@pytest.mark.slow
def test_cleanup_removes_what_a_run_left_and_twice_is_harmless(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config()
    node = underlay.agent("node", "192.168.8.227")
    node.wait_ready()
    node.end(signal.SIGTERM)
    assert "docker0" in links(node.netns)
    assert rules(node.netns)
    command = agent_command(node.netns, node.directory, "--bridge=docker0")
    cleanup = (*command[: command.index("agent") + 1], "cleanup", *command[command.index("agent") + 1 :])
    first = run(*cleanup)
    assert "docker0" in first.stdout
    assert str(node.subnet_file) in first.stdout
    assert "docker0" not in links(node.netns)
    assert rules(node.netns) == ""
    assert not node.subnet_file.exists()
    assert len(underlay.leases()) == 1
    assert run(*cleanup).stdout == "nothing to remove\n"
    assert underlay.leases()


@pytest.mark.slow
def test_cleanup_with_revoke_gives_the_lease_back(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config()
    node = underlay.agent("node", "192.168.8.227")
    node.wait_ready()
    node.end(signal.SIGTERM)
    command = agent_command(node.netns, node.directory, "--revoke")
    run(*command[: command.index("agent") + 1], "cleanup", *command[command.index("agent") + 1 :])
    assert underlay.leases() == {}


@pytest.mark.slow
def test_revoke_on_exit_gives_the_lease_back(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config()
    node = underlay.agent("node", "192.168.8.227", "--revoke-on-exit")
    node.wait_ready()
    assert node.end(signal.SIGTERM) == 0
    assert underlay.leases() == {}


def test_an_etcd_that_is_down_at_start_is_waited_for(underlay: Underlay) -> None:
    node = underlay.agent("node", "192.168.8.227")
    logged = wait_until(
        lambda: node.log if "WARNING" in node.log else "", 30, "the log says what is waited for", lambda: node.log
    )
    assert node.process.poll() is None
    assert node.get("/healthz")[0] == 200
    assert node.get("/readyz")[0] == 503
    # What it had said by then: it says so again every 10 s.
    (waiting,) = [line for line in logged.splitlines() if "WARNING" in line]
    assert ENDPOINT.removeprefix("http://") in waiting
    underlay.start_etcd()
    wait_until(lambda: "config" in node.log.partition(waiting)[2], 30, "a missing config is named", lambda: node.log)
    underlay.write_config()
    node.wait_ready()


@pytest.mark.slow
def test_an_etcd_that_hangs_is_given_up_on_and_asked_again(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config()
    underlay.pause_etcd()
    node = underlay.agent("node", "192.168.8.227")
    wait_until(lambda: "waiting for etcd" in node.log, 10, "the call times out", lambda: node.log)
    underlay.resume_etcd()
    node.wait_ready()


def test_sigterm_while_etcd_is_waited_for_ends_at_once(underlay: Underlay) -> None:
    node = underlay.agent("node", "192.168.8.227")
    wait_until(lambda: node.get("/readyz")[0] == 503, 30, "the agent is up")
    before = time.monotonic()
    assert node.end(signal.SIGTERM) == 0
    assert time.monotonic() - before < 6


def test_a_second_signal_ends_the_agent_at_once(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.pause_etcd()
    node = underlay.agent("node", "192.168.8.227")
    calls = ("ip", "netns", "exec", node.netns, "ss", "-Htn", "state", "established", "dport = :2379")
    wait_until(lambda: run(*calls).stdout.strip(), 30, "the agent calls an etcd that does not answer")
    # Two different ones, for the kernel keeps only one of a kind; which of them it hands over first is its affair.
    node.process.send_signal(signal.SIGTERM)
    node.process.send_signal(signal.SIGINT)
    wait_until(lambda: node.process.poll() is not None, 30, "two signals end it")
    assert node.process.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT)


@pytest.mark.row("B6")
def test_a_subnet_file_below_a_file_is_refused_at_start(underlay: Underlay) -> None:
    blocker = underlay.directory / "blocker"
    blocker.write_text("a file where a directory is needed")
    node = underlay.agent("node", "192.168.8.227", f"--subnet-file={blocker}/subnet.env", start=False)
    done = run(*node.argv, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: --subnet-file: ")
    assert str(blocker) in done.stderr


@pytest.mark.row("F19")
@pytest.mark.slow
@pytest.mark.row("B6")
def test_a_read_only_disk_keeps_the_agent_unready_until_it_is_writable(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config()
    disk = underlay.directory / "disk"
    disk.mkdir()
    node = underlay.agent("node", "192.168.8.227", f"--subnet-file={disk}/subnet.env", start=False)
    # `ip netns exec` gives a mount namespace of its own, so the mount is the agent's alone.
    script = f"mount -t tmpfs -o ro none {disk} && exec {shlex.join(node.argv[4:])}"
    node.argv = (*node.argv[:4], "sh", "-c", script)
    start(node, underlay)
    wait_until(lambda: "subnet file: /" in node.get("/readyz")[1], 10, "the reason is given", lambda: node.log)
    assert f"{disk}/subnet.env: cannot be written: Read-only file system" in node.get("/readyz")[1]
    assert "flannel0" in links(node.netns)
    run("nsenter", "-t", str(node.process.pid), "-m", "mount", "-o", "remount,rw", str(disk))
    node.wait_ready(timeout_s=8)
    assert len(re.findall("cannot be written", node.log)) == 1


@pytest.mark.row("F5")
@pytest.mark.slow
@pytest.mark.row("B42")
def test_a_foreign_owner_of_our_subnet_ends_the_agent_loudly(underlay: Underlay) -> None:
    underlay.start_etcd()
    underlay.write_config()
    node = underlay.agent("node", "192.168.8.227", pinned="10.0.46.1/24")
    node.wait_ready()
    underlay.etcdctl("put", "/coreos.com/network/subnets/10.0.46.0-24", '{"PublicIP":"192.168.8.9","PublicIPv6":null}')
    wait_until(lambda: node.get("/readyz")[0] == 503, 10, "the fenced agent is not ready", lambda: node.log)
    assert node.process.wait(20) == 1
    assert "192.168.8.9" in node.log
    assert "Traceback" not in node.log
    assert underlay.leases()["/coreos.com/network/subnets/10.0.46.0-24"].startswith('{"PublicIP":"192.168.8.9"')


@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        *shows("B3", [(("--iface=nope",), 3, "error: --iface: no such interface")]),
        *shows("B1", [(("--nope",), 2, "error: command line: unknown flag")]),
        (("--healthz-ip=192.0.2.1",), 3, "error: --healthz-port: cannot listen"),
        *shows("B4", [(("--public-ip=10.0.3.4",), 2, "error: --public-ip: ")]),
        *shows("B6", [(("--subnet-file=/run/../nowhere/subnet.env",), 3, "error: --subnet-file: contains `..` (got ")]),
        *shows("B6", [(("--subnet-file=/run",), 3, "error: --subnet-file: is a directory")]),
        *shows("B7", [(("--etcd-endpoints=https://192.168.8.11:2379", "--etcd-cafile=/nowhere.pem"), 4, "error: ")]),
    ],
)
def test_a_known_mistake_is_one_line_and_its_exit_code(
    two_nodes: TwoNodes, tmp_path: Path, flags: tuple[str, ...], code: int, part: str
) -> None:
    command = agent_command(
        two_nodes.underlay.etcd_netns, tmp_path, "--bridge=", f"--healthz-port={HEALTH_PORT}", *flags
    )
    done = run(*command, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code
    assert len(errors) == 1
    assert errors[0].startswith(part)
    assert "Traceback" not in done.stderr
    assert "flannel0" not in links(two_nodes.underlay.etcd_netns)


@pytest.mark.row("B8")
def test_without_rights_the_agent_reports_it(tmp_path: Path) -> None:
    unprivileged = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    command = agent_command("x", tmp_path)
    done = run(*unprivileged, *command[command.index("x") + 1 :], check=False)
    assert done.returncode == 3
    assert "error: machine: no right to change the network" in done.stderr


def test_bridge_makes_docker0_from_an_existing_subnet_env_once(underlay: Underlay) -> None:
    netns = underlay.namespace("b")
    file = underlay.directory / "subnet.env"
    file.write_bytes((VECTORS / "udp-subnet.env").read_bytes())
    command = agent_command(netns, underlay.directory)
    make = (*command[: command.index("agent") + 1], "bridge", f"--subnet-file={file}", "--bridge=docker0")
    for _ in range(2):
        run(*make)
        shown = json.loads(run("ip", "-n", netns, "-j", "-4", "address", "show", "docker0").stdout)
        assert [(a["local"], a["prefixlen"]) for a in shown[0]["addr_info"]] == [("10.0.46.1", 24)]
        assert shown[0]["mtu"] == 1472


def test_bridge_without_a_subnet_env_says_what_is_missing(underlay: Underlay) -> None:
    command = agent_command(underlay.switch, underlay.directory, "--subnet-file=/nowhere/subnet.env")
    done = run(*command[: command.index("agent") + 1], "bridge", *command[command.index("agent") + 1 :], check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: --subnet-file: ")


@pytest.mark.slow
@pytest.mark.row("F25")
@pytest.mark.row("C18")
def test_twenty_agents_at_once_take_twenty_subnets_and_the_next_waits_for_one(underlay: Underlay) -> None:
    underlay.start_etcd()
    config = {"Network": "10.0.0.0/16", "SubnetMin": "10.0.1.0", "SubnetMax": "10.0.20.0", "Backend": {"Type": "udp"}}
    underlay.write_config(json.dumps(config))
    plain = ("--bridge=", "--ip-masq=false", "--iptables-forward-rules=false")
    agents = [underlay.agent(f"n{i}", f"192.168.8.{100 + i}", *plain, start=False) for i in range(21)]
    for agent in agents[:20]:
        start(agent, underlay)
    for agent in agents[:20]:
        agent.wait_ready(timeout_s=60)
    assert len({agent.subnet() for agent in agents[:20]}) == 20
    assert len(underlay.leases()) == 20
    everyone = [len(agent.state()["forwarding"]) for agent in agents[:20]]
    assert everyone == [19] * 20

    start(agents[20], underlay)
    wait_until(lambda: "0 of 20 subnets are free" in agents[20].log, 20, "the 21st says so", lambda: agents[20].log)
    freed = agents[3].subnet()
    agents[3].end(signal.SIGTERM)
    underlay.etcdctl("del", "/coreos.com/network/subnets/" + freed.replace("/", "-"))
    agents[20].wait_ready(timeout_s=30)
    assert agents[20].subnet() == freed


def start(agent: Agent, underlay: Underlay) -> None:
    agent.start()
    underlay.undo.callback(agent.end)
