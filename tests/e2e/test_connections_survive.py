"""TCP connections that begin while agents are killed and stopped: none is refused, none is told of no route."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.e2e.new_connections import NewConnections

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
SEED = 20
PAUSE_S = 0.2
LASTS_S = (0.1, 1.0)
"""How long an agent is stopped."""


@pytest.fixture
def lab(new_lab: NewLab) -> Iterator[LabHandle]:
    """Three nodes with a pod each. Leases live longer than agents are away: what has no lease is refused rightly."""
    text = (TOPOLOGIES / "faults.yaml").read_text()
    assert text.count("--subnet-lease-ttl=5s") == 1
    with new_lab(text.replace("--subnet-lease-ttl=5s", "--subnet-lease-ttl=30s")) as handle:
        yield handle


@pytest.mark.row("F2")
@pytest.mark.parametrize(
    ("faults", "connections"),
    [pytest.param(4, 50, id="quick"), pytest.param(50, 200, id="long", marks=pytest.mark.slow)],
)
@pytest.mark.timeout(400)
def test_a_connection_that_begins_while_agents_die_and_stop_is_not_refused(
    faults: int, connections: int, lab: LabHandle
) -> None:
    pods = {pod.node: pod.name for pod in lab.pods.values()}
    routes = {pod: [other for other in pods.values() if other != pod] for pod in pods.values()}
    # A node's own connections take another path through the kernel than its pods'.
    routes |= {node: [other for other in pods.values() if other != pod] for node, pod in pods.items()}
    restarts = sum(node.agent_restarts for node in lab.nodes.values())
    begun = NewConnections(lab, routes, PAUSE_S, SEED)
    killed = _harm(lab, random.Random(SEED), faults)
    found = begun.end()
    assert sum(node.agent_restarts for node in lab.nodes.values()) - restarts == killed > 0
    print(f"seed {SEED}: {len(found)} connections, {killed} agents killed and {faults - killed} stopped;", end=" ")
    print(f"slowest {max(one.seconds for one in found):.1f} s")
    assert Counter(one.error for one in found if one.error) == {}
    assert [one for one in found if not one.equal] == []
    assert len(found) >= connections


def _harm(lab: LabHandle, chance: random.Random, faults: int) -> int:
    """Kill agents, and stop them for a while, by chance; returns how many were killed."""
    killed: set[int] = set()
    for _ in range(faults):
        lasts_s = chance.uniform(*LASTS_S)
        agent = lab.agent(chance.choice(list(lab.nodes)))
        # A moment after it was killed the status may still have its process.
        lab.wait_until(lambda agent=agent: agent.pid not in {None, *killed}, 30, f"the agent of {agent.node} runs")  # type: ignore[misc]  # mypy and defaults
        if chance.random() < 0.5:
            killed.add(agent.pid or 0)
            agent.kill()
            threading.Event().wait(lasts_s)
        else:
            agent.signal("STOP")
            threading.Event().wait(lasts_s)
            agent.signal("CONT")
    lab.wait_ready()
    return len(killed)
