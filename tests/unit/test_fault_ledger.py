import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.errors import NetlinkError
from testbed.control.answers.faults import HealAnswer
from testbed.faults import ledger as ledger_module
from testbed.faults.catalogue import FaultRequest, NoSuchFault
from testbed.faults.ledger import FaultImpossible, Injected, Ledger
from testbed.faults.recovery import Touched
from tests.waiting import wait_until


class Machine:
    """Something that can be broken; `log` is what happened to it."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.mendable = True
        self.refusal: Exception = OSError("no memory")
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
            raise self.refusal
        self.log.append(f"start {name}")
        self.mended.set()
        return f"started {name}"


class Comeback:
    """What faults broke: it is ready again as soon as `lacks` is empty."""

    def __init__(self) -> None:
        self.lacks: list[str] = []
        self.looks: list[tuple[int, bool]] = []
        """How many faults had ended at each look, and whether others were on."""

    def before(self, request: FaultRequest) -> Touched:
        return Touched(frozenset({str(request.values[0])}), frozenset())

    def missing(self, ended: Sequence[Touched], *, others: bool) -> list[str]:
        self.looks.append((len(ended), others))
        return list(self.lacks)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def comeback() -> Comeback:
    return Comeback()


@pytest.fixture
def heard() -> list[HealAnswer]:
    """Return what the ledger told of ends."""
    return []


@pytest.fixture
def ledger(machine: Machine, comeback: Comeback, heard: list[HealAnswer], tmp_path: Path) -> Ledger:
    injectors = {
        "agent kill": machine.kill,
        **dict.fromkeys(
            ("agent stop", "node crash", "node reboot", "node readdress", "link down", "link flap"), machine.stop
        ),
    }
    return Ledger(injectors, tmp_path / "faults.jsonl", comeback, heard.append)


def test_an_active_fault_is_listed_until_it_is_healed(ledger: Ledger, machine: Machine) -> None:
    ledger.inject(["agent", "stop", "a"])
    ledger.inject(["agent", "stop", "b"])
    assert [(fault["number"], fault["fault"], fault["on"]) for fault in ledger.active()] == [
        (1, "agent stop a", True),
        (2, "agent stop b", True),
    ]
    healed = ledger.heal()
    assert [one["did"] for one in healed] == ["started b", "started a"]  # the newest first, as brackets close
    assert ledger.active() == []
    assert machine.log == ["stop a", "stop b", "start b", "start a"]


def test_a_fault_that_is_over_at_once_is_not_on(ledger: Ledger) -> None:
    assert not ledger.inject(["agent", "kill", "a"])["on"]
    assert ledger.active() == []
    assert ledger.heal() == []


def test_one_of_several_is_healed_by_its_number(ledger: Ledger) -> None:
    for name in "abc":
        ledger.inject(["agent", "stop", name])
    ledger.heal([2])
    assert [fault["number"] for fault in ledger.active()] == [1, 3]
    with pytest.raises(FaultImpossible, match=r"no fault 2 is active \(active: 1, 3\)"):
        ledger.heal([1, 2])
    assert [fault["number"] for fault in ledger.active()] == [1, 3]


def test_the_same_fault_cannot_be_on_twice(ledger: Ledger, machine: Machine) -> None:
    ledger.inject(["agent", "stop", "a"])
    with pytest.raises(FaultImpossible, match="already active as fault 1"):
        ledger.inject(["agent", "stop", "a"])
    assert machine.log == ["stop a"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("agent stop a", "node crash a"),
        ("agent stop a", "node reboot a"),
        ("node crash a", "node reboot a 30s"),
        ("node readdress a 192.168.8.150", "node readdress a 192.168.8.151"),
        ("link down a b", "link down b a"),
        ("link down a b", "link flap a b"),
        ("link flap b a 5", "link flap a b 6"),
    ],
)
def test_a_fault_whose_healing_would_undo_an_active_one_is_refused(
    first: str, second: str, ledger: Ledger, machine: Machine
) -> None:
    ledger.inject(first.split())
    with pytest.raises(FaultImpossible) as refused:
        ledger.inject(second.split())
    assert str(refused.value) == f"{second}: {first} is already active as fault 1 (heal it first)"
    assert machine.log == [f"stop {first.split()[2]}"]
    ledger.heal()
    ledger.inject(second.split())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("agent stop a", "node crash b"),
        ("agent stop a", "node readdress a 192.168.8.150"),
        ("node crash a", "link down a b"),
        ("link down a b", "link flap a c"),
    ],
)
def test_faults_of_different_things_are_active_together(first: str, second: str, ledger: Ledger) -> None:
    ledger.inject(first.split())
    ledger.inject(second.split())
    assert [fault["fault"] for fault in ledger.active()] == [first, second]


def test_a_fault_that_cannot_be_repaired_stays_active_and_stops_no_other(ledger: Ledger, machine: Machine) -> None:
    ledger.inject(["agent", "stop", "a"])
    machine.mendable = False
    failed = ledger.heal()[0]
    assert (failed["healed"], failed["did"], failed["missing"]) == (False, "no memory", [])
    machine.mendable = True
    assert [one["healed"] for one in ledger.heal()] == [True]


def test_a_refusal_of_the_kernel_stops_no_other_either(ledger: Ledger, machine: Machine) -> None:
    ledger.inject(["agent", "stop", "a"])
    ledger.inject(["agent", "stop", "b"])
    machine.mendable, machine.refusal = False, NetlinkError("ip link set s1-eth2 up: No such device")
    assert [(one["healed"], one["did"]) for one in ledger.heal()] == [(False, str(machine.refusal))] * 2


def test_a_failed_injection_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(FaultImpossible):
        ledger.inject(["agent", "stop", "absent"])
    with pytest.raises(NoSuchFault):
        ledger.inject(["agent", "tickle", "a"])
    assert ledger.active() == []


def test_active_faults_are_listed_while_another_one_is_injected(machine: Machine, tmp_path: Path) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def take_long(_request: FaultRequest) -> Injected:
        begun.set()
        assert may_end.wait(10)
        return Injected("killed", "by the lab")

    ledger = Ledger({"agent stop": machine.stop, "agent kill": take_long}, tmp_path / "faults.jsonl", Comeback())
    ledger.inject(["agent", "stop", "a"])
    injecting = threading.Thread(target=ledger.inject, args=(["agent", "kill", "b"],))
    injecting.start()
    try:
        assert begun.wait(5)
        looking = threading.Thread(target=ledger.active, daemon=True)
        looking.start()
        looking.join(5)
        assert not looking.is_alive()
        assert [one["fault"] for one in ledger.active()] == ["agent stop a"]
    finally:
        may_end.set()
        injecting.join(5)


def test_a_fault_with_a_time_heals_itself(ledger: Ledger, machine: Machine) -> None:
    fault = ledger.inject(["agent", "stop", "a"], lasts_s=0.01)
    assert "by itself in 0.01 s" in fault["undone"]
    assert machine.mended.wait(5)
    wait_until(lambda: not ledger.active(), timeout_s=5, what="it is over")
    with pytest.raises(FaultImpossible):
        ledger.heal([fault["number"]])


def test_every_injection_and_healing_is_written_down(ledger: Ledger, tmp_path: Path) -> None:
    ledger.inject(["agent", "stop", "a"])
    ledger.heal()
    entries = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert entries[0]["injected"]["fault"] == "agent stop a"
    ended = {"number": 1, "fault": "agent stop a", "healed": True, "did": "started a", "missing": []}
    assert {name: value for name, value in entries[1]["ended"].items() if name != "took_s"} == ended


def test_healing_waits_until_everything_broken_is_ready_again(ledger: Ledger, comeback: Comeback) -> None:
    ledger.inject(["agent", "stop", "a"])
    ledger.inject(["agent", "stop", "b"])
    comeback.lacks = ["a: no answer yet"]

    def left(_pause_s: float) -> bool:
        if len(comeback.looks) == 3:
            comeback.lacks = []
        return False

    healed = ledger.heal(left=left)
    assert comeback.looks == [(2, False)] * 4, "once for all that were healed together"
    assert [one["missing"] for one in healed] == [[], []]


def test_when_the_limit_passes_the_fault_is_over_and_the_missing_parts_are_reported(
    ledger: Ledger, comeback: Comeback, heard: list[HealAnswer]
) -> None:
    ledger.inject(["agent", "stop", "a"])
    comeback.lacks = ["a: no answer yet"]
    (healed,) = ledger.heal(limit_s=0.2)
    assert (healed["healed"], healed["missing"]) == (True, ["a: no answer yet"])
    assert healed["took_s"] >= 0.2
    assert ledger.active() == []
    assert heard == [healed]


def test_without_a_limit_nothing_is_waited_for(ledger: Ledger, comeback: Comeback) -> None:
    ledger.inject(["agent", "stop", "a"])
    comeback.lacks = ["a: no answer yet"]
    assert ledger.heal(limit_s=0)[0]["missing"] == []
    assert comeback.looks == []


def test_a_fault_that_has_ended_is_listed_until_what_it_broke_is_ready_again(
    ledger: Ledger, machine: Machine, comeback: Comeback, heard: list[HealAnswer]
) -> None:
    comeback.lacks = ["a: no answer yet"]
    ledger.inject(["agent", "stop", "a"], lasts_s=0.01)
    wait_until(lambda: len(comeback.looks) > 2, timeout_s=5, what="it is waited for")
    assert machine.mended.is_set()
    assert [fault["number"] for fault in ledger.active()] == [1]
    with pytest.raises(FaultImpossible, match="what it broke is not ready yet"):
        ledger.inject(["agent", "stop", "a"])
    comeback.lacks = []
    assert ledger.heal() == [] or machine.log.count("start a") == 1, "it was ended already"
    wait_until(lambda: not ledger.active(), timeout_s=5, what="it is over")
    wait_until(lambda: heard, timeout_s=5, what="its end is reported")
    assert [one["number"] for one in heard] == [1]


def test_beside_another_fault_the_limit_is_short(
    ledger: Ledger, comeback: Comeback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "BESIDE_OTHERS_S", 0.2)
    ledger.inject(["agent", "stop", "a"])
    ledger.inject(["agent", "stop", "b"])
    comeback.lacks = ["a: waits for b"]
    (healed,) = ledger.heal([1])
    assert healed["missing"] == ["a: waits for b"]
    assert healed["took_s"] < 5
    assert set(comeback.looks) == {(1, True)}


def test_a_client_that_has_left_is_not_waited_for(ledger: Ledger, comeback: Comeback) -> None:
    ledger.inject(["agent", "stop", "a"])
    comeback.lacks = ["a: no answer yet"]
    assert ledger.heal(left=lambda _: True)[0]["missing"] == ["a: no answer yet"]
    assert ledger.active() == []


def test_a_history_that_cannot_be_written_changes_nothing_about_faults(
    ledger: Ledger, machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").write_text("as before")
    (tmp_path / "faults.jsonl").symlink_to("elsewhere")
    fault = ledger.inject(["agent", "stop", "node1"])
    assert [one["number"] for one in ledger.active()] == [fault["number"]]
    assert [one["healed"] for one in ledger.heal()] == [True]
    assert machine.log == ["stop node1", "start node1"]
    assert (tmp_path / "elsewhere").read_text() == "as before"
