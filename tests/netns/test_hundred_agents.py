"""A hundred agents that start at once on exactly a hundred free subnets, on an etcd of three members."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from tests.netns.agents import ROOT, Agent, Underlay, wait_until
from tests.netns.etcd_members import EtcdMembers
from tests.rows import MEASURED

pytestmark = [pytest.mark.root, pytest.mark.slow]

COUNT = 100
NETWORK = (
    '{"Network":"10.0.0.0/16","SubnetLen":24,"SubnetMin":"10.0.1.0","SubnetMax":"10.0.100.0","Backend":{"Type":"udp"}}'
)
SUBNETS_LIMIT_S, REFUSED_LIMIT_S = 20.0, 2.0
READY_LIMIT_S = 60.0
"""A hundred data paths share the two processors of one machine here; only that it ends is asked."""
FLAGS = ("--ip-masq=false", "--bridge=", "--docker-opts-file=", "--subnet-lease-ttl=60s")


class Crowd:
    """The agents, as processes of one launcher."""

    def __init__(self, underlay: Underlay, agents: Sequence[Agent]) -> None:
        specification = underlay.directory / "agents.jsonl"
        specification.write_text("".join(json.dumps(self._line(agent)) + "\n" for agent in agents))
        command = [sys.executable, "-m", "tests.netns.fork_agents", str(specification)]
        self.ends: list[str] = []
        self.launcher = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        underlay.undo.callback(self.stop)
        assert self.launcher.stdout is not None  # a pipe was asked for
        self.pids = [int(word) for word in self.launcher.stdout.readline().split()]
        os.set_blocking(self.launcher.stdout.fileno(), False)

    @staticmethod
    def _line(agent: Agent) -> dict[str, object]:
        words = list(agent.argv[agent.argv.index("agent") + 1 :])
        environment = dict([agent.argv[agent.argv.index("env") + 1].split("=", 1)])
        return {
            "netns": agent.netns,
            "log": str(agent.directory / "log"),
            "environment": environment,
            "words": words,
        }

    def ended(self) -> list[str]:
        """Return a line for each agent that has ended."""
        assert self.launcher.stdout is not None  # a pipe was asked for
        self.ends += self.launcher.stdout.readlines()
        return self.ends

    def begin(self) -> None:
        """Start all at the same moment."""
        assert self.launcher.stdin is not None  # a pipe was asked for
        self.launcher.stdin.write("go\n")
        self.launcher.stdin.flush()

    def stop(self) -> None:
        """Kill all of them."""
        if self.launcher.stdin is not None:
            self.launcher.stdin.close()
        self.launcher.wait(20)
        if self.launcher.stdout is not None:
            self.launcher.stdout.close()


@pytest.fixture
def underlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Underlay]:
    with ExitStack() as undo:
        yield Underlay(tmp_path_factory.mktemp("hundred"), f"hu{os.getpid()}-", undo)


@pytest.mark.timeout(300)
@pytest.mark.row("F24")
def test_a_hundred_agents_that_start_within_a_second_share_a_hundred_subnets(
    underlay: Underlay, record_property: Callable[[str, object], None]
) -> None:
    etcd = EtcdMembers(underlay)
    etcd.etcdctl("put", "/coreos.com/network/config", NETWORK)
    flags = (*FLAGS, f"--etcd-endpoints={etcd.endpoints}")
    agents = [
        underlay.agent(f"n{number}", f"192.168.8.{number}", *flags, start=False)
        for number in range(100, 100 + COUNT + 1)
    ]
    last = agents.pop()
    crowd = Crowd(underlay, agents)
    began = time.monotonic()
    crowd.begin()
    wait_until(lambda: len(etcd.leases()) >= COUNT, SUBNETS_LIMIT_S + 20, "every agent has a subnet", etcd.leases)
    took_s = time.monotonic() - began
    record_property(MEASURED, json.dumps({"promise": f"{SUBNETS_LIMIT_S:g} s", "seconds": [round(took_s, 1)]}))
    assert took_s <= SUBNETS_LIMIT_S

    owners = {json.loads(value)["PublicIP"]: key.rpartition("/")[2] for key, value in etcd.leases().items()}
    assert set(owners) == {f"192.168.8.{number}" for number in range(100, 100 + COUNT)}
    assert set(owners.values()) == {f"10.0.{number}.0-24" for number in range(1, COUNT + 1)}
    assert etcd.etcd_leases() == COUNT, "no etcd lease is left of a race that was lost"

    wait_until(lambda: all("subnet 10.0." in agent.log for agent in agents), 20, "all say which subnet they have")
    asked = time.monotonic()
    last.start()
    underlay.undo.callback(last.end)
    wait_until(lambda: "no subnet yet" in last.log, 10, "the hundred and first says why it has none", lambda: last.log)
    refused_after_s = time.monotonic() - asked
    assert "0 of 100 subnets are free" in last.log
    assert refused_after_s <= REFUSED_LIMIT_S + 3, "an interpreter starts meanwhile"

    wait_until(lambda: all(ready(agent) for agent in agents), READY_LIMIT_S, "all are ready", lambda: unready(agents))
    assert crowd.ended() == []
    tables = {agent.name: {entry["subnet"] for entry in agent.state()["forwarding"]} for agent in agents[:5]}
    assert all(len(table) == COUNT - 1 for table in tables.values()), tables
    os.kill(crowd.pids[0], signal.SIGTERM)  # keeps its subnet, which nobody else may take
    assert last.process.poll() is None, "it waits for a free subnet"
    freed = etcd.etcdctl("del", f"/coreos.com/network/subnets/{owners['192.168.8.100']}")
    assert freed.stdout.strip() == "1"
    wait_until(lambda: ready(last), 15, "the hundred and first has the subnet that was freed", lambda: last.log)
    assert last.subnet() == owners["192.168.8.100"].replace("-24", "/24")


def ready(agent: Agent) -> bool:
    return agent.get("/readyz")[0] == 200


def unready(agents: Sequence[Agent]) -> list[str]:
    return [f"{agent.name}: {agent.get('/readyz')[1]} {agent.log[-300:]}" for agent in agents if not ready(agent)][:3]
