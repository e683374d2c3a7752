"""Agents on machines whose firewall drops what it forwards: iptables' chain is opened, others' chains are named."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.netns.agents import Agent, Underlay, agent_command, ping, run, wait_until
from tests.netns.overlay import POD2, TwoNodes, on
from tests.waiting import constantly

pytestmark = pytest.mark.root

FIREWALL = "add table inet hostfw; add chain inet hostfw f1 { type filter hook forward priority 10; policy drop; }"
NAMED = "chain f1 of table inet hostfw (policy drop) drops packets between pods of 10.0.0.0/16"
PROMPTLY_S = 1.0
"""What a policy that comes later may cost: the agent is woken by the kernel's report."""
SOON_S = 30.0
"""Far below the 600 s after which a patient agent looks by itself."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    with ExitStack() as undo:
        yield TwoNodes(Underlay(tmp_path_factory.mktemp("fp"), f"fp{os.getpid()}-", undo), {"Type": "udp"})


@pytest.fixture
def nodes(two: TwoNodes) -> Iterator[TwoNodes]:
    """Start two nodes that reach each other and have no foreign rules, before and after."""
    yield two
    on(two.node1, "nft flush ruleset")
    wait_until(lambda: two.node1.state()["warnings"] == [], 30, "no warning is left", lambda: two.node1.log)
    two.wait_connected()


@pytest.fixture
def patient(nodes: TwoNodes) -> Iterator[TwoNodes]:
    """Let the first agent look by itself every ten minutes only: what it does sooner follows a report of the kernel."""
    node, argv = nodes.node1, nodes.node1.argv
    restart(node, (*argv, "--iptables-resync=600"))
    nodes.wait_connected()
    yield nodes
    restart(node, argv)


def restart(node: Agent, argv: tuple[str, ...]) -> None:
    node.end()
    node.argv = argv
    node.start()
    node.wait_ready()


def forward(node: Agent) -> list[str]:
    return on(node, "iptables -S FORWARD").splitlines()


def lost(two: TwoNodes) -> bool:
    return ping(two.pod1, POD2, "-W0.3").returncode != 0


@pytest.mark.row("C27")
def test_a_policy_of_drop_that_comes_later_costs_less_than_a_second(patient: TwoNodes) -> None:
    took_s: list[float] = []
    # A pause of the machine is not the agent's.
    while len(took_s) < 3 and min(took_s, default=9.0) >= PROMPTLY_S:
        on(patient.node1, "nft flush ruleset")
        on(patient.node1, "iptables -P FORWARD DROP")
        began = time.monotonic()
        wait_until(
            lambda: len(forward(patient.node1)) == 3, SOON_S, "our rules are in the chain", lambda: patient.node1.log
        )
        took_s.append(time.monotonic() - began)
    assert min(took_s) < PROMPTLY_S, took_s
    assert patient.connected()
    assert patient.node1.get("/readyz") == (200, "agent is ready\n")
    assert patient.node1.state()["warnings"] == []
    assert "chain FORWARD of table ip filter (policy drop)" in patient.node1.log


def test_a_chain_that_is_emptied_has_our_rules_again_at_once(patient: TwoNodes) -> None:
    on(patient.node1, "iptables -P FORWARD DROP")
    for harm in ("iptables -F FORWARD", "iptables -D FORWARD 1"):
        wait_until(
            lambda: len(forward(patient.node1)) == 3, SOON_S, "our rules are in the chain", lambda: patient.node1.log
        )
        on(patient.node1, harm)
        wait_until(lambda: len(forward(patient.node1)) == 3, SOON_S, f"they are back after {harm}")
    assert patient.connected()


def test_a_chain_that_we_cannot_join_is_named_and_readiness_is_unchanged(nodes: TwoNodes) -> None:
    run("ip", "netns", "exec", nodes.node1.netns, "nft", FIREWALL)
    warnings = wait_until(lambda: nodes.node1.state()["warnings"], 30, "the chain is named", lambda: nodes.node1.log)
    assert len(warnings) == 1
    assert NAMED in warnings[0]
    assert f"WARNING {warnings[0]}" in nodes.node1.log
    assert nodes.node1.get("/readyz") == (200, "agent is ready\n")
    assert lost(nodes), "an accept of ours cannot outvote it"
    remedy = warnings[0].partition("accept them with: ")[2]
    on(nodes.node1, remedy)
    wait_until(lambda: nodes.node1.state()["warnings"] == [], 30, "it is named no more")
    assert f"INFO no longer: {warnings[0]}" in nodes.node1.log
    assert nodes.connected()


def node_alone(directory: Path, undo: ExitStack, *flags: str) -> Agent:
    """Return a machine with a policy of drop, on which an agent then starts."""
    underlay = Underlay(directory, f"fo{os.getpid()}-", undo)
    underlay.start_etcd()
    underlay.write_config()
    node = underlay.agent("node", "192.168.8.227", *flags, start=False)
    undo.callback(node.end)
    on(node, "iptables -P FORWARD DROP")
    run("ip", "netns", "exec", node.netns, "nft", FIREWALL)
    node.start()
    node.wait_ready()
    return node


@pytest.mark.row("C28")
def test_the_switch_of_flannel_leaves_the_chain_alone(tmp_path: Path) -> None:
    with ExitStack() as undo:
        node = node_alone(tmp_path, undo)
        assert len(forward(node)) == 3
        assert [NAMED in warning for warning in node.state()["warnings"]] == [True]
        node.end()
        assert len(forward(node)) == 3, "an agent that ends leaves its rules"
        node.argv = (*node.argv, "--iptables-forward-rules=false")
        node.start()
        node.wait_ready()
        assert forward(node) == ["-P FORWARD DROP"]
        assert node.state()["warnings"] == []
        on(node, "iptables -F FORWARD")
        constantly(lambda: forward(node) == ["-P FORWARD DROP"], for_s=2 * PROMPTLY_S, what="no rule of ours comes")


def test_cleanup_takes_only_our_rules_out(tmp_path: Path) -> None:
    with ExitStack() as undo:
        node = node_alone(tmp_path, undo)
        on(node, "iptables -A FORWARD -p tcp -j ACCEPT")
        node.end()
        command = agent_command(node.netns, node.directory, "--bridge=docker0")
        removed = run(*command[: command.index("agent") + 1], "cleanup", *command[command.index("agent") + 1 :]).stdout
        assert removed.count("removed: nft delete rule ip filter FORWARD handle ") == 2
        assert forward(node) == ["-P FORWARD DROP", "-A FORWARD -p tcp -j ACCEPT"]
        assert "hostfw" in on(node, "nft list tables")
