import json
import threading
from pathlib import Path

import pytest

from testbed.faults.catalogue import FaultRequest, NoSuchFault
from testbed.faults.ledger import FaultImpossible, Injected, Ledger


class Machine:
    """Something that can be broken; `log` is what happened to it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.mendable = True
        self.mended = threading.Event()

    def stop(self, request: FaultRequest) -> Injected:
        name = str(request.values[0])
        if name == "absent":
            raise FaultImpossible("no node named absent")
        self.log.append(f"stop {name}")
        return Injected(f"stopped {name}", "by a start", lambda: self.start(name))

    def kill(self, request: FaultRequest) -> Injected:
        self.log.append("kill")
        return Injected("killed", "by the lab")

    def start(self, name: str) -> str:
        if not self.mendable:
            raise OSError("no memory")
        self.log.append(f"start {name}")
        self.mended.set()
        return f"started {name}"


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def ledger(machine: Machine, tmp_path: Path) -> Ledger:
    return Ledger({"agent stop": machine.stop, "agent kill": machine.kill}, tmp_path / "faults.jsonl")


def test_what_is_on_is_listed_until_it_is_healed(ledger: Ledger, machine: Machine) -> None:
    ledger.inject(["agent", "stop", "a"])
    ledger.inject(["agent", "stop", "b"])
    assert [(fault.number, fault.fault, fault.on) for fault in ledger.active()] == [
        (1, "agent stop a", True),
        (2, "agent stop b", True),
    ]
    healed = ledger.heal()
    assert [one["did"] for one in healed] == ["started b", "started a"]  # the newest first, as brackets close
    assert ledger.active() == []
    assert machine.log == ["stop a", "stop b", "start b", "start a"]


def test_a_fault_that_is_over_at_once_is_not_on(ledger: Ledger) -> None:
    assert not ledger.inject(["agent", "kill", "a"]).on
    assert ledger.active() == []
    assert ledger.heal() == []


def test_one_of_several_is_healed_by_its_number(ledger: Ledger) -> None:
    for name in "abc":
        ledger.inject(["agent", "stop", name])
    ledger.heal([2])
    assert [fault.number for fault in ledger.active()] == [1, 3]
    with pytest.raises(FaultImpossible, match=r"no fault 2 is on \(on: 1, 3\)"):
        ledger.heal([1, 2])
    assert [fault.number for fault in ledger.active()] == [1, 3]


def test_the_same_fault_cannot_be_on_twice(ledger: Ledger, machine: Machine) -> None:
    ledger.inject(["agent", "stop", "a"])
    with pytest.raises(FaultImpossible, match="is on already, as fault 1"):
        ledger.inject(["agent", "stop", "a"])
    assert machine.log == ["stop a"]


def test_what_cannot_be_mended_stays_on_and_keeps_no_other_from_it(ledger: Ledger, machine: Machine) -> None:
    ledger.inject(["agent", "stop", "a"])
    machine.mendable = False
    assert ledger.heal()[0] == {"number": 1, "fault": "agent stop a", "healed": False, "did": "no memory"}
    machine.mendable = True
    assert [one["healed"] for one in ledger.heal()] == [True]


def test_what_could_not_be_injected_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(FaultImpossible):
        ledger.inject(["agent", "stop", "absent"])
    with pytest.raises(NoSuchFault):
        ledger.inject(["agent", "tickle", "a"])
    assert ledger.active() == []


def test_a_fault_with_a_time_heals_itself(ledger: Ledger, machine: Machine) -> None:
    fault = ledger.inject(["agent", "stop", "a"], lasts_s=0.01)
    assert "by itself in 0.01 s" in fault.undone
    assert machine.mended.wait(5)
    with pytest.raises(FaultImpossible):
        ledger.heal([fault.number])


def test_every_injection_and_healing_is_written_down(ledger: Ledger, tmp_path: Path) -> None:
    ledger.inject(["agent", "stop", "a"])
    ledger.heal()
    entries = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert entries[0]["injected"]["fault"] == "agent stop a"
    assert entries[1]["ended"] == {"number": 1, "fault": "agent stop a", "healed": True, "did": "started a"}


def test_a_history_that_cannot_be_written_changes_nothing_about_faults(
    ledger: Ledger, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("as before")
    (tmp_path / "faults.jsonl").symlink_to("elsewhere")
    fault = ledger.inject(["agent", "stop", "node1"])
    assert [one.number for one in ledger.active()] == [fault.number]
    assert [one["healed"] for one in ledger.heal()] == [True]
    assert machine.log == ["stop node1", "start node1"]
    assert (tmp_path / "elsewhere").read_text() == "as before"
