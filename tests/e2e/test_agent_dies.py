"""An agent that dies or is restarted takes its subnet back, and pods go on."""

import pytest

from tests.e2e.lab import Lab
from tests.waiting import wait_until


def test_agent_killed_hard_comes_back_with_its_subnet_and_pods_reach_each_other(two_nodes: Lab) -> None:
    before = two_nodes.node("node1")
    peer = two_nodes.pod("shell2")["address"]
    two_nodes.kill_9(before["agent"]["pid"])
    wait_until(
        lambda: (
            two_nodes.pings("shell1", peer)
            and two_nodes.node("node1")["agent"]["restarts"] > before["agent"]["restarts"]
        ),
        timeout_s=30,
        what="shell1 reaches shell2 through a new agent",
    )
    wait_until(lambda: two_nodes.json("status")["state"] == "ready", timeout_s=40, what="the lab is ready again")
    after = two_nodes.node("node1")
    assert after["subnet"] == before["subnet"]
    assert after["agent"]["pid"] != before["agent"]["pid"]
    assert after["agent"]["restarts"] == before["agent"]["restarts"] + 1
    assert [event for event in two_nodes.handle.events() if event["object"] == "node/node1"][-1][
        "reason"
    ] == "Restarted"


def test_the_other_nodes_agent_is_not_disturbed_by_it(two_nodes: Lab) -> None:
    other = two_nodes.node("node2")
    before = two_nodes.node("node1")["agent"]
    two_nodes.kill_9(before["pid"])

    def is_back() -> bool:
        agent = two_nodes.node("node1")["agent"]
        return bool(agent["restarts"] > before["restarts"] and agent["state"] == "ready")

    wait_until(is_back, timeout_s=40, what="node1's agent is ready again")
    assert two_nodes.node("node2")["agent"] == other["agent"]


def test_restart_of_one_agent_starts_a_new_process_with_the_same_subnet(two_nodes: Lab) -> None:
    before = {node["name"]: node for node in two_nodes.json("status")["nodes"]}
    assert f"subnet {before['node1']['subnet']}" in two_nodes.must("restart", "agent", "node1")
    after = {node["name"]: node for node in two_nodes.json("status")["nodes"]}
    assert after["node1"]["subnet"] == before["node1"]["subnet"]
    assert after["node1"]["agent"]["pid"] != before["node1"]["agent"]["pid"]
    assert after["node2"]["agent"]["pid"] == before["node2"]["agent"]["pid"]
    assert after["node1"]["agent"]["state"] == "ready"


@pytest.mark.slow
def test_restart_of_all_agents_leaves_every_pair_reachable(two_nodes: Lab) -> None:
    before = {node["name"]: node for node in two_nodes.json("status")["nodes"]}
    two_nodes.must("restart", "agent", "--all")
    after = {node["name"]: node for node in two_nodes.json("status")["nodes"]}
    for name, node in after.items():
        assert node["subnet"] == before[name]["subnet"]
        assert node["agent"]["pid"] != before[name]["agent"]["pid"]
    assert ", 0 lost" in two_nodes.must("ping")


def test_lab_whose_agent_does_not_answer_is_degraded(two_nodes: Lab) -> None:
    """A stopped process is there and answers nothing."""
    pid = str(two_nodes.node("node2")["agent"]["pid"])
    two_nodes.run("node1", "kill", "-STOP", pid)
    try:
        assert two_nodes.json("status")["state"] == "degraded"
    finally:
        two_nodes.run("node1", "kill", "-CONT", pid)
    wait_until(lambda: two_nodes.json("status")["state"] == "ready", timeout_s=40, what="the lab is ready again")


@pytest.mark.slow
def test_pods_follow_their_node_to_another_subnet(two_nodes: Lab) -> None:
    """Its agent dies, and before the next start somebody else takes the subnet."""
    node = two_nodes.node("node1")
    pod = next(pod for pod in two_nodes.json("status")["pods"] if pod["node"] == "node1")
    two_nodes.must("fault", "lease", "steal", "node1")
    wait_until(
        lambda: two_nodes.node("node1")["subnet"] not in (node["subnet"], None),
        timeout_s=20,
        what="node1 has another subnet",
    )
    wait_until(
        lambda: two_nodes.pod(pod["name"])["address"] != pod["address"] and two_nodes.pod(pod["name"])["ready"],
        timeout_s=20,
        what="its pod is built again with another address",
    )
    wait_until(
        lambda: ", 0 lost" in two_nodes.testbed("ping").out, timeout_s=20, what="every pod reaches every other again"
    )
    assert "SubnetChanged" in {event["reason"] for event in two_nodes.handle.events()}
    two_nodes.must("fault", "heal")
