"""The tests of faults can fail: an agent in which one thing is broken does not pass the trial that is about it."""

import sys
from pathlib import Path

import pytest
import yaml

from testbed.faults.trials import CONTROL, TRIALS, TTL_S, Trial
from testbed.places import TOPOLOGIES
from testbed.pytest_plugin import NewLab
from testbed.testing.probing import Probing
from testbed.testing.trial_run import run_trial
from tests.mutants.run_agent import MUTANTS

LAUNCHER = Path(__file__).resolve().parents[1] / "mutants" / "run_agent.py"
FLAGS = ["--ip-masq", "--bridge=docker0", "--healthz-ip=127.0.0.1", "--healthz-port=8286", "--subnet-lease-ttl=5s"]
"""What the lab gives our agent and nobody else's."""


def cluster(mutant: str) -> list[object]:
    """The cluster for faults with a mutant on node1."""
    documents: list[object] = list(yaml.safe_load_all((TOPOLOGIES / "faults.yaml").read_text()))
    first = documents[0]
    assert isinstance(first, dict)
    command = [sys.executable, str(LAUNCHER), mutant, "--node-name=node1", *FLAGS]
    first["nodes"]["node1"] = {"agent": {"command": command}}
    return documents


def trial_of(fault: str) -> Trial:
    return next(trial for trial in TRIALS if trial.faults == (fault,))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("mutant", "trial", "complaint"),
    [
        ("device", trial_of("device delete node1"), "I4: node1 links"),
        ("rules", trial_of("rules flush node1"), "nftables tables"),
        ("renewal", Trial("control", (), 5, hold_s=12, gap_s=0), "I1: node1 has the keys []|nothing arrived"),
        ("watch", Trial("F36", ("node readdress node2 192.168.8.150",), 5, mended_by_lab=True), "no probe between"),
        ("repair", trial_of("lease delete node1"), "I1: node1 has the keys []|nothing arrived|no probe between"),
        ("despair", Trial("F14", ("etcd stop etcd1",), 5, gap_s=0, hold_s=TTL_S + 3), "nothing arrived"),
        ("chance", trial_of("node crash node1"), "node1 has 10."),
        ("address", trial_of("node readdress node1 192.168.8.150"), "the lab mends it"),
        ("watchdog", trial_of("agent hang node1"), "the lab mends it"),
    ],
    ids=list(MUTANTS),
)
def test_a_broken_agent_does_not_pass(mutant: str, trial: Trial, complaint: str, new_lab: NewLab) -> None:
    with new_lab(cluster(mutant)) as lab, Probing(lab) as probing:
        if mutant != "renewal":
            good = run_trial(lab, probing, CONTROL)
            assert good.problems == [], "the mutant works as long as nothing is broken"
        found = run_trial(lab, probing, trial)
    assert any(word in problem for problem in found.problems for word in complaint.split("|")), found.problems
