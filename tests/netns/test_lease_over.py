"""Agents whose etcd answers but does not renew their lease, and agents whose etcd is silent."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import ENDPOINT, ETCD_ADDRESS, Agent, Underlay, ping, wait_until
from tests.netns.etcd_gate import GRANT, KEEP_ALIVE, EtcdGate
from tests.waiting import constantly

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.row("F49")]

TTL_S = 6
KEY = "/coreos.com/network/subnets/10.0.46.0-24"


class TwoNodes:
    """Node 1 reaches etcd by the gate, node 2 without it; a pod on each."""

    def __init__(self, underlay: Underlay) -> None:
        self.underlay = underlay
        underlay.start_etcd()
        underlay.write_config()
        self.gate = EtcdGate(underlay)
        flags = (f"--etcd-endpoints={self.gate.endpoint}", f"--subnet-lease-ttl={TTL_S}s")
        self.node1 = underlay.agent("node1", "192.168.8.227", *flags, pinned="10.0.46.1/24")
        self.node2 = underlay.agent("node2", "192.168.8.228", pinned="10.0.90.1/24")
        for node in (self.node1, self.node2):
            node.wait_ready()
        self.pod1 = underlay.pod(self.node1, "a", "10.0.46.2/24")
        underlay.pod(self.node2, "b", "10.0.90.2/24")
        wait_until(self.connected, 30, "the pods reach each other")

    def connected(self) -> bool:
        return ping(self.pod1, "10.0.90.2").returncode == 0

    def key(self) -> str:
        return self.underlay.etcdctl("get", "--print-value-only", KEY).stdout.strip()

    def fine(self) -> bool:
        """Return whether node 1 is ready, has time left, and its pod reaches the other's."""
        left: float = self.node1.state()["lease"]["seconds_left"]
        return self.node1.get("/readyz")[0] == 200 and left > 0 and self.connected()


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[TwoNodes]:
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path, f"lo{os.getpid()}-", undo))


@pytest.fixture
def behind_proxy(tmp_path: Path) -> Iterator[Agent]:
    """Yield an agent that knows no more of etcd than a real `etcd grpc-proxy`, on etcd's machine."""
    with ExitStack() as undo:
        underlay = Underlay(tmp_path, f"lp{os.getpid()}-", undo)
        underlay.start_etcd()
        underlay.write_config()
        listens = f"{ETCD_ADDRESS}:23790"
        start = ["etcd", "grpc-proxy", "start", f"--endpoints={ENDPOINT}", f"--listen-addr={listens}"]
        with (tmp_path / "proxy.log").open("wb") as log:
            proxy = subprocess.Popen(["ip", "netns", "exec", underlay.etcd_netns, *start], stdout=log, stderr=log)
        undo.callback(proxy.wait, 10)
        undo.callback(proxy.kill)
        flags = (f"--etcd-endpoints=http://{listens}", f"--subnet-lease-ttl={TTL_S}s")
        agent = underlay.agent("node1", "192.168.8.227", *flags)
        agent.wait_ready()
        yield agent


def test_an_agent_behind_a_grpc_proxy_keeps_its_lease(behind_proxy: Agent) -> None:
    def fine() -> bool:
        left: float = behind_proxy.state()["lease"]["seconds_left"]
        return behind_proxy.get("/readyz")[0] == 200 and left > 0

    constantly(fine, for_s=3 * TTL_S, what="ready with time left")
    assert "WARNING" not in behind_proxy.log


def warned(agent: Agent, words: str) -> bool:
    return any(words in warning for warning in agent.state()["warnings"])


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_where_keep_alives_fail_the_lease_lives_on_by_transactions(how: str, two_nodes: TwoNodes) -> None:
    constantly(two_nodes.fine, for_s=TTL_S, what="the open gate changes nothing")
    assert two_nodes.node1.state()["warnings"] == []
    two_nodes.gate.shut(**{"refuse" if how == "refuses" else "hang": [KEEP_ALIVE]})
    constantly(two_nodes.fine, for_s=3 * TTL_S, what="ready, with time left, and connected")
    wait_until(lambda: warned(two_nodes.node1, "etcd answers, but does not renew our lease"), TTL_S, "the warning")
    assert two_nodes.node2.log.count("peers:") <= 3, "peers do not see it"
    two_nodes.gate.open()
    wait_until(lambda: two_nodes.node1.state()["warnings"] == [], TTL_S + 4, "keep-alives are used again")


def test_a_lease_that_is_over_while_etcd_answers_is_a_reason_not_to_be_ready(two_nodes: TwoNodes) -> None:
    two_nodes.gate.shut(refuse=[KEEP_ALIVE, GRANT])
    wait_until(lambda: two_nodes.node1.get("/readyz")[0] == 503, TTL_S + 4, "not ready", lambda: two_nodes.node1.log)
    status = two_nodes.node1.get("/readyz")[1]
    assert "subnet lease: the lease on 10.0.46.0/24 expired; etcd answers, but does not renew it: " in status
    wait_until(lambda: two_nodes.key() == "", 4, "the key is gone")
    state = two_nodes.node1.state()
    assert state["forwarding"] == [{"subnet": "10.0.90.0/24", "via": "192.168.8.228:8285"}], "it forwards on"
    assert state["lease"]["seconds_left"] == 0
    constantly(lambda: two_nodes.node1.get("/readyz")[0] == 503, for_s=5, what="not ready")
    two_nodes.gate.open()
    two_nodes.node1.wait_ready(5)
    assert "192.168.8.227" in two_nodes.key()
    assert two_nodes.node1.subnet() == "10.0.46.0/24"
    wait_until(two_nodes.connected, 5, "the pods reach each other again")
    assert "re-acquired the same subnet" in two_nodes.node1.log


def test_a_lease_that_is_over_while_etcd_is_silent_is_a_warning_and_packets_flow(two_nodes: TwoNodes) -> None:
    two_nodes.underlay.pause_etcd()
    try:
        node1 = two_nodes.node1
        wait_until(lambda: node1.state()["lease"]["seconds_left"] == 0, TTL_S + 2, "it is over by our clock")
        constantly(
            lambda: node1.get("/readyz")[0] == 200 and two_nodes.connected(),
            for_s=3 * TTL_S,
            what="ready and connected",
        )
        assert warned(node1, "the lease has expired by our clock, and etcd does not answer")
        assert "the lease cannot be renewed, 0 s left" in node1.log
    finally:
        two_nodes.underlay.resume_etcd()
    wait_until(two_nodes.fine, 10, "the lease is renewed again")
    wait_until(lambda: two_nodes.node1.state()["warnings"] == [], TTL_S, "no warning is left")
