"""The tests of faults can fail: an agent in which one thing is broken does not pass the trial of the row it is about.

Mutants share labs: which one node1 runs is in a file that its launcher reads, and before anything is done it carries
packets without a loss. A mutant that leaves the lab in disorder costs a new one. A few labs are worked on side by side.
"""

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest
import yaml

from testbed.control.questions import FAULT
from testbed.errors import TestbedError
from testbed.faults.trials import OUT_S, TRIALS, TTL_S, Trial
from testbed.places import TOPOLOGIES
from testbed.pytest_plugin import NewLab
from testbed.testing.heartbeats import Heartbeats
from testbed.testing.lab_handle import LabHandle
from testbed.testing.trial_run import Findings, run_trial
from testbed.testing.waiting import NotInTime
from tests.mutants.mutants import CHOSEN, MUTANTS, STARTED
from tests.netns.test_agent_mutants import CASES as OF_AGENTS_ALONE

LAUNCHER = Path(__file__).resolve().parents[1] / "mutants" / "run_agent.py"
FLAGS = ["--ip-masq", "--bridge=docker0", "--healthz-ip=127.0.0.1", "--healthz-port=8286", "--subnet-lease-ttl=5s"]
"""What the lab gives our agent and nobody else's."""
PATIENCE_S, SETTLE_S = 1.0, 2.0
"""Nothing is to be measured: soon after the limit the trial has failed."""
ORDER_LIMIT_S = 15.0
CASE_LIMIT_S = 400.0
"""With all that wait before it."""
LABS = {1: 3, 3: 1}
"""How many are worked on at the same time, by their number of etcd members."""

SILENCE = "nothing arrived|no heartbeat between|without a lost heartbeat between"
"""The last: packets are still lost when the limit is over, which is how it ends on a busy machine."""
NO_KEY = f"I1: node1 has the keys []|{SILENCE}"
NO_PEERS = f"I2: node1 forwards by|{SILENCE}"
OTHER_SUBNET = "node1 has 10."


def of(row: str, number: int = 0) -> Trial:
    """Return a row's trial as it is."""
    return [trial for trial in TRIALS if trial.row == row][number]


LEASE_OUT = Trial("F12", ("etcd stop etcd1",), 3, hold_s=OUT_S, gap_s=0, etcd_members=3)
COMPACTED = ("lease revoke node2", "lease revoke node3", "etcd compact")


class Case(NamedTuple):
    """A row can fail."""

    row: str
    mutant: str
    trial: Trial
    """The row's, or a shorter one."""
    complaint: str
    """What it has to say, or one of these."""


CASES = tuple(
    Case(*case)
    for case in (
        ("F1", "amnesia", of("F1"), OTHER_SUBNET),
        ("F2", "sluggish", Trial("F2", ("agent kill node1",), 5, gap_s=3, hold_s=6), "nothing arrived"),
        ("F3", "leftovers", Trial("F3", ("agent crashloop node1 2 1500ms",), 5, hold_s=3.5), "I4: node1 routes"),
        ("F4", "amnesia", of("F4"), OTHER_SUBNET),
        ("F6", "repair", of("F6"), NO_KEY),
        ("F7", "amnesia", of("F7"), OTHER_SUBNET),
        ("F8", "watchdog", Trial("F8", ("agent hang node1",), 14, gap_s=3, mended_by_lab=True), "the lab repairs it"),
        ("F11", "one_endpoint", LEASE_OUT, SILENCE),
        ("F12", "hasty_panic", of("F12"), SILENCE),
        ("F13", "panic", of("F13").again, SILENCE),
        ("F14", "despair", Trial("F14", ("etcd stop etcd1",), 5, gap_s=0, hold_s=3), SILENCE),
        ("F15", "repair", of("F15"), NO_KEY),
        ("F17", "regrant", Trial("F17", ("etcd quota etcd1",), 3, gap_s=0, hold_s=OUT_S), SILENCE),
        ("F18", "hasty", of("F18"), SILENCE),
        ("F20", "history", Trial("F20", COMPACTED, 3), NO_PEERS),
        ("F22", "repair", of("F22"), NO_KEY),
        ("F23", "repair", of("F23"), NO_KEY),
        ("F27", "timid", Trial("F27", ("link down node1 s1",), 2, hold_s=1), SILENCE),
        # Longer than a second each time: the kernel may take so long to report a lost carrier.
        ("F28", "timid", Trial("F28", ("link flap node1 s1 2 3s",), 2, hold_s=7), SILENCE),
        ("F29", "panic", of("F29"), SILENCE),
        ("F30", "repair", of("F30"), NO_KEY),
        ("F31", "repair", of("F31"), NO_KEY),
        ("F32", "suspicious", Trial("F32", ("oneway node2,node3 / node1",), 5, hold_s=3), SILENCE),
        ("F33", "panic", of("F33"), SILENCE),
        ("F35", "chance", of("F35", 1), OTHER_SUBNET),
        ("F36", "address", of("F36"), "the lab repairs it"),
        ("F36", "watch", Trial("F36", ("node readdress node2 192.168.8.150",), 5, mended_by_lab=True), SILENCE),
        ("F39", "wall_clock", of("F39", 1), SILENCE),
        ("F40", "offended", of("F40"), NO_KEY),
        ("F41", "device", of("F41"), "I4: node1 links"),
        ("F41", "rules", of("F41", 1), "nftables tables"),
        ("F47", "renewal", Trial("control", (), 5, hold_s=TTL_S + 3, gap_s=0), NO_KEY),
    )
)


class Patient:
    """A lab in which node1 runs whatever mutant is asked for."""

    def __init__(self, new_lab: NewLab, etcd_members: int) -> None:
        self._new_lab, self._etcd_members = new_lab, etcd_members
        self._undo = ExitStack()
        self._parts: tuple[LabHandle, Heartbeats] | None = None

    def close(self) -> None:
        """Take it down."""
        self._parts = None
        self._undo.close()

    def running(self, mutant: str) -> tuple[LabHandle, Heartbeats]:
        """Return the lab in order, with this mutant on node1; another lab if the last one is not."""
        if self._parts is not None:
            with suppress(NotInTime, TestbedError):
                self._choose(*self._parts, mutant)
                return self._parts
            self.close()
        lab = self._undo.enter_context(self._new_lab(self._cluster()))
        self._parts = lab, self._undo.enter_context(Heartbeats(lab))
        self._choose(*self._parts, mutant)
        return self._parts

    def _choose(self, lab: LabHandle, heartbeats: Heartbeats, mutant: str) -> None:
        lab.script(f"rm -f {STARTED}; echo {mutant} > {CHOSEN}").check()
        before = lab.nodes["node1"].agent_restarts
        lab.ask(FAULT, {"words": ["agent", "kill", "node1"]})
        lab.wait_until(lambda: lab.nodes["node1"].agent_restarts > before, ORDER_LIMIT_S)
        lab.wait_ready(ORDER_LIMIT_S)
        heartbeats.wait_steady(ORDER_LIMIT_S)

    def _cluster(self) -> list[object]:
        """Return the cluster for faults."""
        documents: list[object] = list(yaml.safe_load_all((TOPOLOGIES / "faults.yaml").read_text()))
        first = documents[0]
        assert isinstance(first, dict)
        first["etcd"]["members"] = self._etcd_members
        command = [sys.executable, str(LAUNCHER), str(CHOSEN), "--node-name=node1", *FLAGS]
        first["nodes"]["node1"] = {"agent": {"command": command}}
        return documents


class Ward:
    """Labs side by side: a trial mostly waits, and how fast the machine is decides nothing here."""

    def __init__(self, new_lab: NewLab, cases: Sequence[Case]) -> None:
        """Begins with the cases at once."""
        self._new_lab = new_lab
        self._findings: dict[Case, Future[Findings]] = {case: Future() for case in cases}
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        for etcd_members, labs in LABS.items():
            waiting = SimpleQueue[Case | None]()
            mine = [case for case in cases if case.trial.etcd_members == etcd_members]
            for case in (*mine, *[None] * labs):
                waiting.put(case)
            for _ in range(min(labs, len(mine))):
                self._threads.append(threading.Thread(target=self._work, args=(etcd_members, waiting)))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End what has begun, and take the labs down."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def findings(self, case: Case) -> Findings:
        """Return what this one's trial found; raises what went wrong with it."""
        return self._findings[case].result(timeout=CASE_LIMIT_S)

    def _work(self, etcd_members: int, waiting: "SimpleQueue[Case | None]") -> None:
        patient = Patient(self._new_lab, etcd_members)
        try:
            while (case := waiting.get()) is not None and not self._over.is_set():
                try:
                    lab, heartbeats = patient.running(case.mutant)
                    found = run_trial(lab, heartbeats, case.trial, patience_s=PATIENCE_S, settle_s=SETTLE_S)
                except BaseException as failure:  # pytest's own too, of a lab that did not come up
                    self._findings[case].set_exception(failure)
                    patient.close()
                    continue
                if case.complaint == OTHER_SUBNET:
                    # Its pods keep the old one's addresses.
                    patient.close()
                self._findings[case].set_result(found)
        finally:
            patient.close()


@pytest.fixture(scope="module")
def ward(request: pytest.FixtureRequest, new_lab: NewLab) -> Iterator[Ward]:
    """Working on every case that was chosen."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and hasattr(item, "callspec")]
    chosen = [case for item in items if isinstance(case := item.callspec.params.get("case"), Case)]
    made = Ward(new_lab, chosen)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(CASE_LIMIT_S + 20)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.row}-{case.mutant}")
def test_a_broken_agent_does_not_pass(case: Case, ward: Ward) -> None:
    problems = ward.findings(case).problems
    assert any(word in problem for problem in problems for word in case.complaint.split("|")), problems


def test_each_mutant_is_asked_for() -> None:
    asked_for = {case.mutant for case in CASES} | {mutant for _, mutant, *_ in OF_AGENTS_ALONE}
    assert asked_for == set(MUTANTS) - {"none"}
