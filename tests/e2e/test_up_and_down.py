"""`up` leaves a whole lab or nothing, whatever interrupts it; `down` leaves nothing."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e import host
from tests.e2e.command import Answer, read_until, run_verb
from tests.e2e.lab import Lab
from tests.waiting import wait_until

RUN_ROOT = Path("/run/testbed")
ON_A_HOST_WITHOUT_LABS = ("unshare", "--mount", "--", "sh", "-c", 'mount -t tmpfs none /run && exec "$@"', "sh")


def test_up_of_a_running_lab_with_the_same_file_shows_its_status(two_nodes: Lab) -> None:
    before = two_nodes.json("status")
    answer = two_nodes.up("two_nodes")
    assert answer.code == 0
    assert "node1" in answer.out
    assert two_nodes.json("status") == before


def test_up_of_a_running_lab_with_another_file_suggests_a_remedy_and_changes_nothing(two_nodes: Lab) -> None:
    before = two_nodes.json("status")
    answer = two_nodes.up("nginx_tomcat")
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert "metadata.name: cannot change while lab" in answer.err
    assert f"testbed down --lab {two_nodes.name}" in answer.err
    assert two_nodes.json("status") == before


@pytest.mark.slow
def test_lab_is_named_by_the_environment_too(no_lab: Lab) -> None:
    answer = no_lab.testbed("up", "two_nodes")
    try:
        assert answer.code == 0, answer
        assert no_lab.json("status")["lab"] == no_lab.name
    finally:
        if "lab two-nodes is ready" in answer.out:
            run_verb("down", "--lab", "two-nodes")


@pytest.mark.slow
def test_agent_that_is_left_out_is_printed_as_a_command_that_works(no_lab: Lab) -> None:
    answer = no_lab.up("two_nodes", "--no-agent", "node2")
    assert answer.code == 0, answer
    assert no_lab.node("node2")["agent"]["state"] == "by hand"
    (line,) = [line.strip() for line in answer.out.splitlines() if " -m agent " in line]
    words = line.removeprefix("sudo testbed ").split()
    with no_lab.running(*words) as agent:
        read_until(agent.stderr, "ready")
        wait_until(
            lambda: no_lab.json("get", "routes", "node1")["status"]["forwarding"],
            timeout_s=5,
            what="node1 knows the agent that was started by hand",
        )


@pytest.mark.slow
def test_cluster_of_a_given_size_needs_no_file(no_lab: Lab) -> None:
    assert no_lab.up("--nodes", "3", "--pods-per-node", "1").code == 0
    status = no_lab.json("status")
    assert [node["name"] for node in status["nodes"]] == ["node1", "node2", "node3"]
    assert {node["peers"]["known"] for node in status["nodes"]} == {2}
    assert len(status["pods"]) == 3
    assert "6 pairs, 6 sent, 6 received, 0 lost" in no_lab.must("ping")


@pytest.mark.parametrize("phase", ["underlay", "agents", "pods"])
def test_ctrl_c_during_up_removes_everything(phase: str, no_lab: Lab) -> None:
    with no_lab.terminal("up", "nginx_tomcat", "--lab", no_lab.name) as screen:
        screen.expect(phase)
        seen = host.footprint(_first_process(no_lab))
        screen.type("\x03")
        assert screen.end() == 130
        assert "Traceback" not in screen.seen
    assert seen.remains() == []
    assert not (RUN_ROOT / no_lab.name).exists()
    assert no_lab.testbed("status").code == 1


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGINT))],
)
def test_lab_dies_with_the_up_that_was_starting_it(number: signal.Signals, no_lab: Lab) -> None:
    with no_lab.running("up", "nginx_tomcat", "--lab", no_lab.name) as starting:
        read_until(starting.stdout, r"underlay .*switch")
        seen = host.footprint(_first_process(no_lab))
        starting.send_signal(number)
        assert starting.wait(40) == (-number if number == signal.SIGKILL else 130)
    wait_until(lambda: not seen.remains(), timeout_s=60, what="nothing of the lab is left")
    answer = no_lab.up("two_nodes")
    assert answer.code == 0, answer


@pytest.mark.slow
def test_lab_outlives_the_terminal_it_was_started_on(no_lab: Lab) -> None:
    with no_lab.terminal("up", "two_nodes", "--lab", no_lab.name) as screen:
        assert screen.end(timeout_s=60) == 0
    assert ", 0 lost" in no_lab.must("ping")


def test_down_leaves_nothing(own_lab: Lab) -> None:
    seen = host.footprint(own_lab.json("status")["pid"])
    assert own_lab.down().code == 0
    assert seen.remains() == []
    assert not (RUN_ROOT / own_lab.name).exists()


def without_labs(*words: str) -> Answer:
    return run_verb(*words, prefix=ON_A_HOST_WITHOUT_LABS)


@pytest.mark.parametrize("words", [("down",), ("down", "--all")])
def test_down_with_nothing_running_is_no_error(words: Sequence[str]) -> None:
    answer = without_labs(*words)
    assert (answer.code, answer.err) == (0, "")


@pytest.mark.parametrize("verb", ["status", "get pods", "ping", "exec client -- true", "logs tomcat", "cli", "events"])
def test_verb_without_a_lab_suggests_how_to_start_one(verb: str) -> None:
    answer = without_labs(*verb.split())
    assert (answer.code, answer.err) == (1, "error: no lab is running (start one: sudo testbed up)\n")


def _first_process(lab: Lab) -> int:
    return int(json.loads((RUN_ROOT / lab.name / "lab.json").read_text())["pid"])
