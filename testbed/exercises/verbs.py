"""What the lab answers to `testbed check`, and to `up broken/NAME` once it is up."""

import json
import threading
import time
from collections.abc import Sequence

from testbed.control.answers.faults import CheckAnswer, ExerciseAnswer
from testbed.control.questions import CHECK, EXERCISE
from testbed.control.server import AnyVerb, Request, Verb
from testbed.errors import InvalidInput, TestbedError
from testbed.exercises.breakage import BREAKERS, break_lab
from testbed.exercises.judge import judge
from testbed.exercises.look import look
from testbed.lab.clock import now
from testbed.lab.state import LabState
from testbed.plain_files import read_plain, replace_plain

RECORD = "exercise.json"
"""In the lab's directory: which exercise is on."""
RECORD_BYTES = 4096
SYMPTOM_LIMIT_S = 40.0
"""What is broken shows within seconds; with a lease at the latest when it ends."""


def exercise_verbs(state: LabState) -> Sequence[AnyVerb]:
    """Return the verbs."""
    exercises = _Exercises(state)
    return (Verb(CHECK, exercises.check, changes=False), Verb(EXERCISE, exercises.begin))


class _Exercises:
    def __init__(self, state: LabState) -> None:
        self._state = state
        self._record = state.directory / RECORD
        self._one_at_a_time = threading.Lock()

    def check(self, _request: Request) -> CheckAnswer:
        """The judge's word."""
        return self._judged()

    def begin(self, request: Request) -> ExerciseAnswer:
        """Break the lab, and wait until one can see it."""
        name = request.argument("name", str)
        if name not in BREAKERS:
            raise InvalidInput(f"exercise: no such exercise (got {name}; want {', '.join(BREAKERS)})")
        with self._one_at_a_time:
            former = json.loads(read_plain(self._record, RECORD_BYTES)) if self._record.exists() else None
            if former is not None and self._judged()["well"] is False:
                if former["name"] != name:
                    raise TestbedError(
                        f"exercise: {former['name']} is not solved yet (testbed check says what is wrong)"
                    )
                return {"name": former["name"], "since": former["since"], "begun": False}
            begun = ExerciseAnswer(name=name, since=now(), begun=True)
            try:
                break_lab(self._state, name)
            except TestbedError as failure:
                raise failure.within("exercise") from failure
            except OSError as failure:
                raise TestbedError(f"exercise: {failure}") from failure
            replace_plain(self._record, json.dumps(begun).encode())
            deadline = time.monotonic() + SYMPTOM_LIMIT_S
            while self._judged()["well"]:
                if time.monotonic() > deadline:
                    raise TestbedError(f"exercise: {name}: the lab is as well as before")
            return begun

    def _judged(self) -> CheckAnswer:
        verdicts = judge(look(self._state))
        return {"well": all(one.holds for one in verdicts), "checks": [one.line() for one in verdicts]}
