"""Labs of many nodes: agents that are forks are agents like any other, and `bench scale` measures how labs grow."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import host
from tests.e2e.command import Answer, run_verb
from tests.e2e.lab import Lab
from tests.waiting import wait_until

PNG = b"\x89PNG\r\n\x1a\n"
PARENT = " -m testbed.processes.agent_parent "
COLLECTABLE_LIMIT = 1024
"""Of neighbour entries in all namespaces together (net.ipv4.neigh.default.gc_thresh3)."""


def parent_of_agents(lab: Lab) -> int:
    """Return the host's number of the process that agents are forked from."""
    return host.pid_in(host.footprint(lab.json("status")["pid"]), PARENT)


def test_an_agent_comes_back_when_what_it_was_forked_from_is_gone_too(two_nodes: Lab) -> None:
    before = two_nodes.node("node1")["agent"]
    parent = parent_of_agents(two_nodes)
    os.kill(parent, signal.SIGKILL)
    # Nobody is disturbed by that.
    assert two_nodes.node("node1")["agent"] == before
    two_nodes.kill_9(before["pid"])
    wait_until(
        lambda: (
            two_nodes.node("node1")["agent"]["restarts"] > before["restarts"]
            and two_nodes.json("status")["state"] == "ready"
        ),
        timeout_s=60,
        what="node1 has an agent again",
    )
    assert parent_of_agents(two_nodes) != parent


def test_an_agent_is_in_its_node_and_looks_as_if_it_had_been_started_there(two_nodes: Lab) -> None:
    agent = two_nodes.node("node1")["agent"]["pid"]
    command = two_nodes.json("describe", "node", "node1")["Agent"]["command"]
    assert two_nodes.run("node1", "ps", "-o", "args=", "-p", str(agent)).strip() == command
    script = f"readlink /proc/self/ns/net /proc/self/ns/mnt /proc/{agent}/ns/net /proc/{agent}/ns/mnt /proc/{agent}/cwd"
    *namespaces, directory = two_nodes.run("node1", "sh", "-c", script).split()
    assert namespaces[:2] == namespaces[2:]
    assert directory == "/"
    parent = two_nodes.run("node1", "ps", "-o", "ppid=", "-p", str(agent)).strip()
    assert "testbed.supervisor.lab_init" in two_nodes.run("node1", "ps", "-o", "args=", "-p", parent)


def measured(*words: str, limit_s: float) -> dict[str, Any]:
    answer: Answer = run_verb("bench", "scale", *words, "-o", "json", limit_s=limit_s)
    assert answer.code == 0, str(answer)
    found: dict[str, Any] = answer.json
    return found


def is_well(size: dict[str, Any]) -> None:
    """Check everything that must hold whatever else the machine does."""
    assert size["pings"] == {"sent": 1000, "lost": 0, "which": []}
    assert size["etcd_restarted"]["pings_sent"] > 0
    assert size["etcd_restarted"]["pings_lost"] == 0
    assert size["neighbours"]["collectable"] < COLLECTABLE_LIMIT
    assert size["neighbours"]["permanent"] >= size["nodes"] * (size["nodes"] - 1)
    assert set(size["phases_s"]) == {"launch", "underlay", "etcd", "agents", "pods", "services", "forwarding"}
    assert sum(size["phases_s"].values()) <= size["up_s"]


@pytest.mark.slow
def test_two_sizes_are_measured_beside_plain_mininet_and_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "scale.png"
    result = measured("--nodes", "3,20", "--rest", "2", "--plot", str(picture), limit_s=110)
    small, large = result["sizes"]
    assert (small["nodes"], small["pods"], large["nodes"], large["pods"]) == (3, 6, 20, 40)
    for size in (small, large):
        is_well(size)
        assert size["plain_mininet_s"] > 0
        assert size["times_plain_mininet"] == pytest.approx(size["up_s"] / size["plain_mininet_s"], abs=0.02)
    assert large["memory_kib"]["agents"] > small["memory_kib"]["agents"]
    assert picture.read_bytes().startswith(PNG)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_hundred_nodes_and_two_hundred_pods_reach_each_other_and_take_little(tmp_path: Path) -> None:
    (size,) = measured("--nodes", "100", "--rest", "5", "--no-plain", limit_s=280)["sizes"]
    is_well(size)
    memory = size["memory_kib"]
    # 17.6 MiB measured, 4 of them what pyroute2 dirties in each agent (docs/performance.md).
    assert (memory["agents"] + memory["pauses"] + memory["machines"]) / 100 <= 19 * 1024
    assert memory["init"] <= 200 * 1024
    assert memory["threads"] < 100, "a thread of the supervisor for each pod or node"


def test_sizes_that_are_none_are_refused() -> None:
    answer = run_verb("bench", "scale", "--nodes", "10,many")
    assert answer.code == 2
    assert answer.err.strip() == (
        "error: testbed bench scale: --nodes: not sizes of labs (got 10,many; want numbers from 2 on, e.g. 10,50,100)"
    )


def test_more_than_the_machine_holds_is_refused_before_anything_is_made() -> None:
    answer = run_verb("bench", "scale", "--nodes", "2,390", "--pods-per-node", "200")
    assert answer.code == 3
    # A small machine has no room for the first of the two sizes.
    got = r"\(got (2 nodes and 400|390 nodes and 78000) pods, about "
    assert re.search(f"more nodes than this machine holds {got}", answer.err)
    assert "up" not in answer.err
