"""What is waited for after faults have ended."""

from typing import Any

import pytest

from testbed.faults.lab_recovery import LabRecovery
from testbed.faults.recovery import NotReady, Touched, awaited

AGENT = NotReady("node1", "node1", "no answer yet")
POD = NotReady("pod shell1", "node1", "the pause process is not running")
ETCD = NotReady("etcd", "etcd1", "etcd1 does not answer yet")
TABLE = NotReady("forwarding", None, "etcd: no answer")
ALL = [AGENT, POD, ETCD, TABLE]


def fault(*machines: str, excused: frozenset[str] = frozenset()) -> Touched:
    return Touched(frozenset(machines), excused)


def test_the_last_fault_waits_for_all_of_the_lab() -> None:
    assert awaited(ALL, [fault("node1")], others=False) == ALL


def test_beside_others_a_fault_waits_for_its_own_machines() -> None:
    assert awaited(ALL, [fault("node1")], others=True) == [AGENT, POD]
    assert awaited(ALL, [fault("node1"), fault("etcd1")], others=True) == [AGENT, POD, ETCD]
    assert awaited(ALL, [fault()], others=True) == []


def test_a_part_not_ready_before_the_fault_is_not_attributed_to_it() -> None:
    before = frozenset({POD.subject})
    assert awaited(ALL, [fault("node1", excused=before)], others=False) == [AGENT, ETCD, TABLE]
    assert awaited([POD], [fault("node1", excused=before), fault("node1")], others=False) == [POD], "of the other one"


def test_nothing_is_waited_for_when_no_fault_has_ended() -> None:
    assert awaited(ALL, [], others=False) == []


def test_a_line_names_the_object_and_the_reason() -> None:
    assert str(POD) == "pod shell1: the pause process is not running"


def test_a_look_that_cannot_be_had_now_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    nothing: Any = None
    recovery = LabRecovery(nothing, nothing, nothing)
    monkeypatch.setattr(recovery, "_parts", refuse)
    assert recovery.missing([fault("node1")], others=False) == ["can't start new thread"]
