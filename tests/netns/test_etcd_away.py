"""An etcd without its leader, its majority, or any member: packets flow on, agents stay calm and say what is wrong."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import NETWORK, Agent, Underlay, ping, wait_until
from tests.netns.etcd_members import EtcdMembers
from tests.rows import MEASURED

pytestmark = [pytest.mark.root, pytest.mark.slow]

TTL_S = 5
QUORUM_AWAY_S = 60.0
AWAY_S = 6.0 * TTL_S
"""Stands for five minutes with a lease of 50 s."""
RECOVERY_LIMIT_S, JOIN_LIMIT_S = 3.0, 3.0
"""An agent that asks in vain asks again each 1 to 2 s; who joins first asks for the config, then for a subnet."""
NO_LEADER = "etcdserver: no leader (are enough of its members up?)"
CPU_LIMIT, LINES_LIMIT_PER_S = 0.10, 1.0


class Calm:
    """What an agent costs and says in a time."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._began, self._cpu_s, self._lines = time.monotonic(), self._used_s(), len(agent.log.splitlines())

    def check(self) -> str:
        """Return how calm it was; fail if it was not."""
        took_s = time.monotonic() - self._began
        share = (self._used_s() - self._cpu_s) / took_s
        rate = (len(self._agent.log.splitlines()) - self._lines) / took_s
        told = f"{self._agent.name}: {share:.1%} of a core, {rate:.2f} lines a second in {took_s:.0f} s"
        assert share < CPU_LIMIT, told
        assert rate <= LINES_LIMIT_PER_S, told
        return told

    def _used_s(self) -> float:
        fields = Path(f"/proc/{self._agent.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Pinging:
    """Ten requests a second from a pod; `lost` says which were not answered."""

    def __init__(self, netns: str, address: str, undo: ExitStack) -> None:
        command = ["ip", "netns", "exec", netns, "ping", "-n", "-i0.1", address]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        undo.enter_context(self._process)
        undo.callback(self._process.kill)

    def lost(self) -> list[int]:
        """End it; return the lost ones among those before the last answered."""
        self._process.send_signal(signal.SIGINT)
        said, _ = self._process.communicate(timeout=10)
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)}
        assert len(answered) > 10, said
        return [number for number in range(1, max(answered)) if number not in answered]


class Three:
    """Two nodes with a pod each on an etcd of three members."""

    def __init__(self, underlay: Underlay) -> None:
        self.underlay = underlay
        self.etcd = EtcdMembers(underlay)
        self.etcd.etcdctl("put", "/coreos.com/network/config", NETWORK)
        self.flags = (f"--etcd-endpoints={self.etcd.endpoints}", f"--subnet-lease-ttl={TTL_S}s")
        self.nodes = [
            underlay.agent("node1", "192.168.8.227", *self.flags, pinned="10.0.46.1/24"),
            underlay.agent("node2", "192.168.8.228", *self.flags, pinned="10.0.90.1/24"),
        ]
        for node in self.nodes:
            node.wait_ready()
        self.pod1 = underlay.pod(self.nodes[0], "a", "10.0.46.2/24")
        self.pod2 = underlay.pod(self.nodes[1], "b", "10.0.90.2/24")
        wait_until(lambda: ping(self.pod1, "10.0.90.2").returncode == 0, 30, "the pods reach each other")

    def pinging(self) -> Pinging:
        """Ping from one pod to the other, until the test ends."""
        return Pinging(self.pod1, "10.0.90.2", self.underlay.undo)

    def renewed(self) -> bool:
        """Return whether both leases are fresh: more than half of their life is left."""
        left: list[float] = [node.state()["lease"]["seconds_left"] for node in self.nodes]
        return min(left) > TTL_S / 2


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Three]:
    with ExitStack() as undo:
        yield Three(Underlay(tmp_path, f"ea{os.getpid()}-", undo))


def test_a_leader_that_is_killed_costs_no_packet_and_no_lease(three: Three) -> None:
    leases = three.etcd.leases()
    pinging = three.pinging()
    leader = three.etcd.leader()
    three.etcd.stop([leader])
    wait_until(lambda: three.etcd.etcdctl("get", "x", check=False).returncode == 0, 10, "another leads")
    wait_until(three.renewed, TTL_S, "the leases are kept", lambda: [node.log for node in three.nodes])
    three.etcd.start([leader])
    wait_until(three.renewed, TTL_S, "the leases are kept")
    assert pinging.lost() == []
    assert three.etcd.leases() == leases


@pytest.mark.row("F13")
def test_a_lost_majority_costs_no_packet_and_a_joining_node_reports_what_it_waits_for(
    three: Three, record_property: Callable[[str, object], None]
) -> None:
    leases = three.etcd.leases()
    pinging = three.pinging()
    calm = [Calm(node) for node in three.nodes]
    three.etcd.stop([0, 1])
    end = time.monotonic() + QUORUM_AWAY_S
    joins = three.underlay.agent("node3", "192.168.8.229", *three.flags)
    wants = [NO_LEADER, "192.168.8.12:2379: ", "192.168.8.13:2379: "]
    wait_until(
        lambda: all(want in joins.get("/readyz")[1] for want in wants), 15, "who joins says why", lambda: joins.log
    )
    assert joins.get("/readyz")[0] == 503
    wait_until(lambda: NO_LEADER in joins.log, 20, "its log says so too", lambda: joins.log)
    wait_until(lambda: NO_LEADER in three.nodes[0].log, 20, "so does who was there before")
    told = next(line for line in joins.log.splitlines() if NO_LEADER in line)
    calm.append(Calm(joins))
    wait_until(lambda: time.monotonic() > end, QUORUM_AWAY_S + 1, "the time is over")
    assert joins.process.poll() is None
    print(told, *(one.check() for one in calm), sep="\n")
    lines = [line for line in joins.log.splitlines() if "WARNING" in line]
    assert len(lines) <= QUORUM_AWAY_S, lines
    healed = time.monotonic()
    three.etcd.start([0, 1])
    answers = time.monotonic()
    wait_until(three.renewed, RECOVERY_LIMIT_S + 5, "the leases are kept again")
    recovered_s = time.monotonic() - answers
    joins.wait_ready(JOIN_LIMIT_S)
    joined_s = time.monotonic() - answers
    print(
        f"etcd answers after {answers - healed:.1f} s, renewed after {recovered_s:.1f} s, joined after {joined_s:.1f} s"
    )
    told = json.dumps({"promise": f"no packet lost; {RECOVERY_LIMIT_S:g} s", "seconds": [round(recovered_s, 2)]})
    record_property(MEASURED, told)
    assert recovered_s <= RECOVERY_LIMIT_S
    assert pinging.lost() == []
    assert {key: value for key, value in three.etcd.leases().items() if key in leases} == leases
    assert "Traceback" not in joins.log


@pytest.mark.row("F14")
def test_an_etcd_that_is_away_for_long_costs_no_packet_little_work_and_few_lines(three: Three) -> None:
    leases = three.etcd.leases()
    pinging = three.pinging()
    three.etcd.stop([0, 1, 2])
    calm = [Calm(node) for node in three.nodes]
    end = time.monotonic() + AWAY_S
    wait_until(lambda: time.monotonic() > end, AWAY_S + 1, "the time is over")
    print(*(one.check() for one in calm), sep="\n")
    assert all(node.get("/readyz")[0] == 200 for node in three.nodes)
    three.etcd.start([0, 1, 2])
    answers = time.monotonic()
    wait_until(three.renewed, 10, "the leases are kept again")
    print(f"renewed {time.monotonic() - answers:.1f} s after etcd answers")
    assert pinging.lost() == []
    assert three.etcd.leases() == leases
