"""An exercise that cannot be begun completely goes on where it stopped, and breaks nothing twice."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed.control.answers.faults import ExerciseAnswer
from testbed.errors import TestbedError
from testbed.exercises import verbs
from testbed.exercises.catalogue import EXERCISES

TWO_FAULTS = next(one for one in EXERCISES.values() if len(one.faults) == 2)
OTHER = next(one for one in EXERCISES.values() if one is not TWO_FAULTS)


class Lab:
    """A lab in which a fault can fail, and a symptom be missing."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.injected: list[str] = []
        self.refused: set[str] = set()
        self.well = self.shows = True
        pods = {"node1": [SimpleNamespace(name="client")], "node2": [SimpleNamespace(name="tomcat")]}
        state = SimpleNamespace(
            directory=directory, nodes=dict.fromkeys(pods), pods=SimpleNamespace(on=lambda node: pods[node])
        )
        nothing: Any = None
        monkeypatch.setattr(verbs, "break_lab", self.inject)
        monkeypatch.setattr(verbs, "look", lambda *_: None)
        monkeypatch.setattr(verbs, "judge", lambda _: [SimpleNamespace(line=lambda: {"holds": self.well})])
        monkeypatch.setattr(verbs, "SYMPTOM_LIMIT_S", 0.0)
        _, _, self._exercise = verbs.exercise_verbs(cast("Any", state), nothing, nothing, nothing, nothing)

    def inject(self, _state: object, _services: object, _policies: object, fault: str, _variant: object) -> None:
        if fault in self.refused:
            raise OSError("ip route: No space left on device")
        self.injected.append(fault)
        self.well = not self.shows

    def begin(self, name: str) -> ExerciseAnswer:
        request: Any = SimpleNamespace(argument=lambda key, *_: {"name": name, "seed": 0}[key])
        answer: ExerciseAnswer = self._exercise.run(request)
        return answer


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_a_fault_that_failed_is_injected_later_and_the_first_one_not_again(lab: Lab) -> None:
    first, second = TWO_FAULTS.faults
    lab.refused = {second}
    with pytest.raises(TestbedError, match="exercise: ip route: No space left"):
        lab.begin(TWO_FAULTS.name)
    with pytest.raises(TestbedError, match=f"{TWO_FAULTS.name} has begun without a symptom"):
        lab.begin(OTHER.name)
    lab.refused = set()
    assert lab.begin(TWO_FAULTS.name)["begun"] is True
    assert lab.begin(TWO_FAULTS.name)["begun"] is False
    assert lab.injected == [first, second]


def test_a_lab_without_a_symptom_is_not_broken_again(lab: Lab) -> None:
    lab.shows = False
    for _ in range(2):
        with pytest.raises(TestbedError, match="no symptom after"):
            lab.begin(OTHER.name)
    lab.well = False
    assert lab.begin(OTHER.name)["begun"] is True
    assert lab.injected == list(OTHER.faults)


def test_a_solved_exercise_may_be_begun_again(lab: Lab) -> None:
    for _ in range(2):
        assert lab.begin(OTHER.name)["begun"] is True
        lab.well = True
    assert lab.injected == [*OTHER.faults, *OTHER.faults]
