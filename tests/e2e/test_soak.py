"""`testbed soak` on the cluster that comes with it."""

import json

import pytest

from testbed.pytest_plugin import NewLab
from tests.e2e.command import run_verb
from tests.e2e.lab import Lab


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.row("F47")
def test_two_minutes_of_random_faults_cost_nothing(new_lab: NewLab) -> None:
    with new_lab("faults") as handle:
        answer = run_verb("soak", "--lab", handle.name, "--minutes", "2", "--seed", "1", limit_s=300)
        assert answer.code == 0, answer
        assert "0 problems, seed 1" in answer.out
        history = (handle.record.rundir / "soak-1.jsonl").read_text().splitlines()
        assert len(history) >= 2
        assert all(json.loads(line)["resources"] for line in history)


def test_a_lab_with_other_nodes_is_refused(two_nodes: Lab) -> None:
    answer = two_nodes.testbed("soak", "--minutes", "0.1")
    assert answer.code == 2
    assert "this lab has no node3 (want: sudo testbed up faults)" in answer.err
