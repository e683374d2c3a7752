"""The lab's side of `testbed check` and `hint`, and of `up exercise/N` once the lab is up."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypedDict

from testbed.control.answers.faults import CheckAnswer, CheckLine, ExerciseAnswer, ExerciseOn, HintAnswer
from testbed.control.questions import CHECK, EXERCISE, HINT
from testbed.control.server import AnyVerb, Request, Verb
from testbed.dns.names import Names
from testbed.errors import InvalidInput, TestbedError
from testbed.exercises.breakage import break_lab
from testbed.exercises.catalogue import EXERCISES, Exercise
from testbed.exercises.judge import judge, losses
from testbed.exercises.look import NO_POLICIES, look
from testbed.exercises.variant import Variant, variant_of
from testbed.faults.explain import Loss
from testbed.lab.clock import now
from testbed.lab.state import LabState
from testbed.plain_files import read_plain, replace_plain
from testbed.policies.policies import Policies
from testbed.services.services import Services

RECORD = "exercise.json"
"""File in the lab's directory: the current exercise."""
RECORD_BYTES = 4096
SYMPTOM_LIMIT_S = 40.0
"""A fault shows within seconds; with a lease at the latest when it expires."""


Explained = Callable[[Sequence[Loss]], list[str]]
"""Names the active faults that can explain losses."""


def exercise_verbs(
    state: LabState, names: Names, services: Services, policies: Policies, explained: Explained
) -> Sequence[AnyVerb]:
    """Return the verbs."""
    exercises = _Exercises(state, names, services, policies, explained)
    return (Verb(CHECK, exercises.check, changes=False), Verb(HINT, exercises.hint), Verb(EXERCISE, exercises.begin))


class _Record(TypedDict):
    """The record of an exercise; the student sees only `line`."""

    line: ExerciseOn
    variant: dict[str, str | int]
    injected: int
    """How many of its faults are injected; at least one."""
    shown: bool
    """Whether a symptom was seen: without one, a lab with all checks passed is not a solved exercise."""


class _Exercises:
    def __init__(
        self, state: LabState, names: Names, services: Services, policies: Policies, explained: Explained
    ) -> None:
        self._state = state
        self._policies = policies
        self._names = names
        self._services = services
        self._explained = explained
        self._record = state.directory / RECORD
        self._one_at_a_time = threading.Lock()

    def check(self, _request: Request) -> CheckAnswer:
        """Return the judge's verdicts, and the current exercise."""
        record = self._read()
        # In an exercise a policy may be the fault.
        world = self._policies.world() if record is None else NO_POLICIES
        seen = look(self._state, self._services, self._names, world)
        checks = [one.line() for one in judge(seen)]
        return {
            "lab": self._state.name,
            "exercise": None if record is None else record["line"],
            "well": _holds(checks),
            "checks": checks,
            "faults": [] if _holds(checks) else self._explained(losses(seen)),
        }

    def hint(self, _request: Request) -> HintAnswer:
        """Return the next hint of the current exercise; the last one again when all were given."""
        with self._one_at_a_time:
            record = self._read()
            if record is None:
                raise TestbedError("hint: this lab has no exercise (want: sudo testbed up exercise/1)")
            exercise = EXERCISES[record["line"]["name"]]
            number = min(record["line"]["hints"] + 1, len(exercise.hints))
            record["line"]["hints"] = number
            self._write(record)
            text = _variant(record).fill(exercise.hints[number - 1])
            return {"exercise": exercise.name, "number": number, "of": len(exercise.hints), "hint": text}

    def begin(self, request: Request) -> ExerciseAnswer:
        """Inject the exercise's faults, and wait until they show."""
        name, seed = str(request.argument("name", str)), request.argument("seed", int, 0)
        exercise = EXERCISES.get(name)
        if exercise is None:
            raise InvalidInput(f"exercise: no such exercise (got {name}; want exercise/1 to {[*EXERCISES][-1]})")
        with self._one_at_a_time:
            record = self._unsolved()
            if record is not None and (record["line"]["name"], record["line"]["seed"]) != (name, seed):
                what = "is not solved yet (testbed check shows the remaining problems)"
                if not record["shown"]:
                    what = "has begun without a symptom (want the same again, or another lab)"
                raise TestbedError(f"exercise: {record['line']['name']} {what}")
            if record is not None and record["shown"]:
                return _complaint(record, begun=False)
            record = self._break(exercise, seed, record)
            deadline = time.monotonic() + SYMPTOM_LIMIT_S
            while _holds(self._judged()):
                if time.monotonic() > deadline:
                    raise TestbedError(f"exercise: {name}: no symptom after {SYMPTOM_LIMIT_S:.0f} s")
            record["shown"] = True
            self._write(record)
            return _complaint(record, begun=True)

    def _unsolved(self) -> _Record | None:
        """Return the current exercise; None if there is none, or if its symptom is gone."""
        record = self._read()
        return None if record is None or (record["shown"] and _holds(self._judged())) else record

    def _break(self, exercise: Exercise, seed: int, begun: _Record | None) -> _Record:
        """Inject the faults that are not injected yet."""
        try:
            record = begun or self._fresh(exercise, seed)
            for fault in exercise.faults[record["injected"] :]:
                break_lab(self._state, self._services, self._policies, fault, _variant(record))
                record["injected"] += 1
                # At once: the next may fail, and injecting this one again would too.
                self._write(record)
        except TestbedError as failure:
            raise failure.within("exercise") from failure
        except OSError as failure:
            raise TestbedError(f"exercise: {failure}") from failure
        return record

    def _fresh(self, exercise: Exercise, seed: int) -> _Record:
        pods = {node: [pod.name for pod in self._state.pods.on(node)] for node in self._state.nodes}
        line = ExerciseOn(name=exercise.name, level=exercise.level, seed=seed, since=now(), hints=0)
        return _Record(line=line, variant=asdict(variant_of(pods, seed)), injected=0, shown=False)

    def _read(self) -> _Record | None:
        if not self._record.exists():
            return None
        record: _Record = json.loads(read_plain(self._record, RECORD_BYTES))
        return record

    def _write(self, record: _Record) -> None:
        replace_plain(self._record, json.dumps(record).encode())

    def _judged(self) -> list[CheckLine]:
        return [one.line() for one in judge(look(self._state, self._services, self._names))]


def _holds(checks: Sequence[CheckLine]) -> bool:
    return all(one["holds"] for one in checks)


def _complaint(record: _Record, *, begun: bool) -> ExerciseAnswer:
    text = _variant(record).fill(EXERCISES[record["line"]["name"]].complaint)
    return {**record["line"], "complaint": text, "begun": begun}


def _variant(record: _Record) -> Variant:
    return Variant(**record["variant"])  # type: ignore[arg-type]  # as written
