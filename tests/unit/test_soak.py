import json
from itertools import islice
from pathlib import Path

import pytest

from testbed.faults.trials import CONTROL, TRIALS
from testbed.testing.machine_load import Pressure, waited_s
from testbed.testing.soak import NoHistory, grown, in_random_order, replay
from testbed.testing.trial_run import Findings

BEFORE = {"node1 agent descriptors": 20, "node1 agent RSS kB": 40_000, "etcd leases": 3, "node1 agent CPU ticks": 5}


def test_kept_state_and_system_settings_are_no_problem() -> None:
    assert grown({**BEFORE, "node1 agent RSS kB": 43_000, "node1 agent CPU ticks": 5_000}, BEFORE) == []


def test_everything_that_leaks_is_reported() -> None:
    now = {"node1 agent descriptors": 40, "node1 agent RSS kB": 80_000, "etcd leases": 4, "node1 agent CPU ticks": 5}
    told = grown(now, BEFORE)
    assert [line.partition(":")[0] for line in told] == ["node1 agent descriptors", "node1 agent RSS kB", "etcd leases"]


def test_a_new_counter_is_not_compared() -> None:
    assert grown({"node4 links": 9}, BEFORE) == []


def test_a_seed_is_an_order() -> None:
    first, again, other = (list(islice(in_random_order(TRIALS, seed, 1), 20)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_history_is_replayed_with_each_trial_once(tmp_path: Path) -> None:
    history, (one, two) = tmp_path / "soak.jsonl", TRIALS[:2]
    lines = [
        {"seed": 1, "minutes": 2, "replay": None},
        {"trial": CONTROL.name, "attempt": 1},
        {"trial": two.name, "attempt": 1},
        {"trial": two.name, "attempt": 2},
        {"trial": one.name, "attempt": 1},
        {"trial": two.name, "attempt": 1},
    ]
    history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert replay(history) == [two, one, two]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "contains no trial"),
        ("junk\n", ":1: no line of a soak's history"),
        ('{"seed": 1}\n[]\n', ":2: no line of a soak's history"),
        ('{"trial": "F99 nothing", "attempt": 1}\n', ":1: unknown trial (got F99 nothing)"),
    ],
)
def test_an_invalid_history_is_reported_with_its_line(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "history").write_text(text)
    with pytest.raises(NoHistory) as caught:
        replay(tmp_path / "history")
    assert complaint in str(caught.value)


def test_only_a_missed_limit_may_be_the_machines_fault() -> None:
    assert not Findings(problems=["late"], late=["late"]).wrong
    assert Findings(problems=["late", "I1: a subnet is there twice"], late=["late"]).wrong
    assert not Findings().wrong


def test_the_pressure_of_a_time_is_a_share(tmp_path: Path) -> None:
    waited, clock = iter([10.0, 11.0]), iter([100.0, 104.0])
    assert Pressure(lambda: next(waited), lambda: next(clock)).share() == 0.25
    assert Pressure(lambda: None).share() is None
    assert waited_s(tmp_path / "absent") is None
    (tmp_path / "cpu").write_text("some avg10=1.0 avg60=0.5 avg300=0.1 total=2500000\nfull avg10=0 total=0\n")
    assert waited_s(tmp_path / "cpu") == 2.5
