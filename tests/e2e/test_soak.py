"""`testbed soak` on the cluster that comes with it."""

import json
import signal
import threading
from pathlib import Path

import pytest

from testbed.pytest_plugin import NewLab
from testbed.testing.lab_handle import LabHandle
from tests.e2e.command import run_verb, running
from tests.e2e.lab import Lab
from tests.waiting import wait_until


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.row("F47")
def test_two_minutes_of_random_faults_cost_nothing(new_lab: NewLab) -> None:
    with new_lab("faults") as handle:
        answer = run_verb("soak", "--lab", handle.name, "--minutes", "2", "--seed", "1", limit_s=300)
        assert answer.code == 0, answer
        assert "0 problems, minutes 2 --seed 1" in answer.out
        asked, *attempts = map(json.loads, (handle.record.rundir / "soak-1.jsonl").read_text().splitlines())
        assert asked["seed"] == 1
        assert len(attempts) >= 5
        assert all(attempt["resources"] for attempt in attempts)


@pytest.mark.slow
def test_a_history_can_be_replayed_and_its_mistakes_are_reported(new_lab: NewLab, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    names = ["F22 lease revoke node1", "F20 etcd compact", "F2 agent kill node1"]
    first.write_text("".join(json.dumps({"trial": name, "attempt": 1}) + "\n" for name in names))
    with new_lab("faults") as handle:
        answer = run_verb("soak", "--lab", handle.name, "--replay", str(first), "--history", str(second), limit_s=120)
        assert answer.code == 0, answer
        _, control, *attempts = map(json.loads, second.read_text().splitlines())
        assert control["trial"] == "control"
        assert list(dict.fromkeys(attempt["trial"] for attempt in attempts)) == names
        second.unlink()
        leaking = threading.Thread(target=leak_while, args=(handle, second))
        leaking.start()
        answer = run_verb("soak", "--lab", handle.name, "--replay", str(first), "--history", str(second), limit_s=120)
        leaking.join()
        assert answer.code == 1, answer
        assert "problem: " in answer.out
        assert "network namespaces" in answer.out
        # The lab is named where others run.
        assert answer.out.rstrip().removesuffix(f" --lab {handle.name}").endswith(f"testbed soak --replay {second}")


def leak_while(lab: LabHandle, history: Path) -> None:
    """Leave something behind once the soak has done its control run."""
    wait_until(lambda: history.exists() and len(history.read_text().splitlines()) > 1, timeout_s=60, what="a control")
    lab.script("ip netns add left").check()


@pytest.mark.slow
@pytest.mark.timeout(400)  # a lab's start, a control trial, and the end of both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_soak_that_is_ended_heals_its_faults(number: int, new_lab: NewLab, tmp_path: Path) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("what is started below nohup ignores it too")
    history = tmp_path / "history.jsonl"
    history.write_text(json.dumps({"trial": "F30 partition node1", "attempt": 1}) + "\n")
    with new_lab("faults") as handle, running("soak", "--lab", handle.name, "--replay", str(history)) as process:
        wait_until(handle.faults, timeout_s=90, what="a fault is active")
        process.send_signal(number)
        assert process.wait(60) == 130
        assert handle.faults() == []


def test_an_invalid_history_is_refused(two_nodes: Lab, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("junk")
    answer = two_nodes.testbed("soak", "--replay", str(tmp_path / "junk"))
    assert answer.code == 2
    assert "junk:1: no line of a soak's history" in answer.err
    answer = two_nodes.testbed("soak", "--replay", "x", "--seed", "1")
    assert answer.code == 2
    assert "want: one of them" in answer.err


def test_a_lab_with_other_nodes_is_refused(two_nodes: Lab) -> None:
    answer = two_nodes.testbed("soak", "--minutes", "0.1")
    assert answer.code == 2
    assert "this lab has no node3 (want: sudo testbed up faults;" in answer.err
