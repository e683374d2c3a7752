"""`testbed fault …` and `lab.fault(…)`: what they do to agents, what they say, and how it ends."""

import json
import re

import pytest

from testbed.control.questions import FAULT
from testbed.errors import TestbedError
from testbed.testing.lab_handle import LabHandle
from tests.e2e.lab import Lab


@pytest.fixture
def lab(two_nodes_handle: LabHandle) -> LabHandle:
    """Return the shared lab, with nothing broken."""
    two_nodes_handle.wait_ready()
    return two_nodes_handle


def test_a_killed_agent_is_started_again(lab: LabHandle) -> None:
    before = lab.nodes["node1"]
    with lab.fault("agent kill node1") as fault:
        assert f"SIGKILL to process {before.agent_pid}" in fault["did"]
        assert not fault["on"]
        lab.wait_until(lambda: lab.nodes["node1"].agent_restarts > before.agent_restarts, 30)
        lab.agent("node1").wait_ready()
    assert lab.nodes["node1"].subnet == before.subnet


def test_a_stopped_agent_stays_away_until_it_is_healed(lab: LabHandle) -> None:
    with lab.fault("agent stop node1"):
        assert lab.nodes["node1"].agent_state == "stopped"
        assert [fault["fault"] for fault in lab.faults()] == ["agent stop node1"]
        with pytest.raises(TestbedError, match="the agent of node1 is not running"):
            lab.ask(FAULT, {"words": ["agent", "pause", "node1"]})
    lab.agent("node1").wait_ready()
    assert lab.faults() == []


def test_a_paused_agent_carries_no_packet_and_goes_on_where_it_was(lab: LabHandle) -> None:
    pid = lab.agent("node1").pid
    assert lab.ping("shell1", "shell2").lost == 0
    with lab.fault("agent pause node1"):
        assert lab.ping("shell1", "shell2").lost == 1
    lab.wait_until(lambda: lab.ping("shell1", "shell2").lost == 0, 30)
    assert lab.agent("node1").pid == pid


def test_trace_check_and_status_name_the_fault_that_explains_a_loss(lab: LabHandle) -> None:
    verbs = Lab(lab.name)
    sentence = r"fault \d+ \(partition\) is on: node1 / node2"
    with lab.fault("disk full node1"), lab.fault("partition node1 / node2"):
        traced = verbs.testbed("trace", "shell1", "shell2", "--timeout", "0.3")
        assert re.search(sentence, traced.out), traced.out
        assert "testbed fault heal" in traced.out
        assert re.search(rf"^{sentence}$", verbs.testbed("check").out, re.MULTILINE)
        assert "disk full" not in traced.out + verbs.testbed("check").out
        status = verbs.must("status")
        assert re.search(rf"^{sentence}$", status, re.MULTILINE)
        assert re.search(r"^fault \d+ \(disk full\) is on: node1$", status, re.MULTILINE)
        silent = verbs.testbed("trace", "shell1", "shell2", "--timeout", "0.3", "--no-why")
        assert "is on" not in silent.out
        # What still works has nothing to be explained.
        assert "is on" not in verbs.must("trace", "shell1", "echo1")
    lab.wait_until(lambda: lab.ping("shell1", "shell2").lost == 0, 30)
    assert "is on" not in verbs.must("trace", "shell1", "shell2") + verbs.must("check") + verbs.must("status")


def test_an_agent_whose_main_loop_is_held_continues_when_released(lab: LabHandle) -> None:
    pid = lab.agent("node1").pid
    with lab.fault("agent hang node1") as fault:
        assert fault["did"] == f"the main thread of process {pid}, the agent of node1, is held with ptrace"
        status = lab.exec("node1", "cat", f"/proc/{pid}/task/{pid}/status").check()
        assert "State:\tt (tracing stop)" in status
        assert lab.ping("shell1", "shell2").lost == 0  # the data path has threads of its own
    lab.agent("node1").wait_ready()
    assert lab.agent("node1").pid == pid


@pytest.mark.slow
def test_an_agent_whose_main_loop_hangs_exits_and_is_restarted(lab: LabHandle) -> None:
    before = lab.nodes["node1"]
    with lab.fault("agent hang node1"):
        lab.wait_until(lambda: lab.nodes["node1"].agent_restarts > before.agent_restarts, 20)
        lab.agent("node1").wait_ready()
    assert lab.nodes["node1"].subnet == before.subnet
    assert "MainThread loop stalled for" in lab.logs("node1")


def test_the_verbs_report_what_was_done_how_it_ends_and_what_comes_next(two_nodes: Lab, lab: LabHandle) -> None:
    said = two_nodes.must("fault", "agent", "stop", "node2", "--for", "60")
    number = re.match(
        r"fault (\d+), agent stop node2: SIGTERM to process \d+, .*\nundone by a restart, .* in 60 s", said
    )
    assert number, said
    assert re.fullmatch(r"  sudo testbed fault heal( --lab \S+)?", said.splitlines()[-1])
    assert "agent stop node2" in two_nodes.must("fault", "list")
    assert two_nodes.json("fault", "list")[0]["number"] == int(number[1])
    assert "the agent of node2 is restarted" in two_nodes.must("fault", "heal", number[1])
    assert "no fault is on" in two_nodes.must("fault", "list")
    lab.wait_ready()
    reasons = [(event["reason"], event["object"]) for event in lab.events()]
    assert ("Injected", f"fault/{number[1]}") in reasons
    assert ("Healed", f"fault/{number[1]}") in reasons


def test_heal_returns_when_what_was_broken_is_ready_again(two_nodes: Lab, lab: LabHandle) -> None:
    for fault in ("agent stop node1", "etcd stop etcd1", "dns stop"):
        two_nodes.must("fault", *fault.split())
        two_nodes.must("fault", "heal")
        assert lab.status()["state"] == "ready", fault
        assert not [ping for ping in lab.ping_all() if ping.lost], fault
        assert lab.agent("node1").state()["ready"]


def test_heal_says_what_is_not_ready_when_its_time_is_over(two_nodes: Lab, lab: LabHandle) -> None:
    two_nodes.must("fault", "node", "crash", "node1")
    late = two_nodes.testbed("fault", "heal", "--timeout", "0.1")
    assert late.code == 1
    assert re.search(r"^not ready \d+ s later: .*node1: agent", late.out, re.MULTILINE), late
    assert lab.faults() == [], "it has ended all the same"
    assert "NotReady" in [event["reason"] for event in lab.events()]
    lab.wait_ready(60)


def test_heal_beside_another_fault_reports_what_it_waited_for_and_what_is_still_active(
    two_nodes: Lab, lab: LabHandle
) -> None:
    two_nodes.must("fault", "etcd", "stop", "etcd1")
    number = two_nodes.json("fault", "agent", "stop", "node1")["number"]
    healed = two_nodes.testbed("fault", "heal", str(number), "--timeout", "2")
    assert healed.code == 0, "another fault may be why"
    waited = r"^not ready \d+ s later: node1: .* \(still active: etcd stop etcd1\)$"
    assert re.search(waited, healed.out, re.MULTILINE), healed
    two_nodes.must("fault", "heal")
    assert lab.status()["state"] == "ready"


def test_a_pod_that_crashed_before_the_fault_is_not_waited_for(two_nodes: Lab, lab: LabHandle) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "crashes"}}
    spec = {"nodeName": "node1", "containers": [{"name": "main", "image": "shell", "command": ["false"]}]}
    two_nodes.must("apply", "-f", "-", stdin=json.dumps({**pod, "spec": spec}))
    try:
        lab.wait_until(lambda: "crashes" in lab.pods and lab.pods["crashes"].restarts > 0, 40)
        with lab.fault("agent stop node1"):
            pass
        assert lab.agent("node1").state()["ready"]
    finally:
        two_nodes.must("delete", "pod", "crashes", "--grace-period", "0")


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("agent", "kill"), 2, "agent kill: NODE is missing (want agent kill NODE)"),
        (("agent", "kil", "node1"), 2, "no such fault (got agent kil; want agent kill, agent crashloop"),
        (("agent", "kill", "node9"), 1, "no node named node9 (there are: node1, node2)"),
        (("heal", "soon"), 2, "no number (got soon; want numbers of `fault list`)"),
        (("heal", "4711"), 1, "no fault 4711 is active"),
        (("agent", "stop", "node1", "--timeout", "3"), 2, "--timeout goes with heal"),
        (("list", "all"), 2, "fault list takes no more words"),
    ],
)
def test_an_impossible_request_is_one_line(two_nodes: Lab, words: tuple[str, ...], code: int, complaint: str) -> None:
    answer = two_nodes.testbed("fault", *words)
    assert answer.code == code, answer
    assert complaint in answer.err
    assert len(answer.err.splitlines()) == 1
