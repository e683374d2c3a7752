"""Faults in random order for minutes: every trial is judged, and at the end no resource may have grown.

A trial that is late on a busy machine is repeated: see `attempts`. The history is a file of JSON lines: the request,
then each attempt. `replay` reads the order from it.
"""

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from testbed.control.questions import RESOURCES
from testbed.errors import InvalidInput
from testbed.faults.trials import CONTROL, TRIALS, Trial
from testbed.testing.attempts import Attempt, attempts
from testbed.testing.heartbeats import Heartbeats
from testbed.testing.invariants import SLACK, kind_of
from testbed.testing.lab_handle import LabHandle
from testbed.testing.trial_run import SETTLE_LIMIT_S
from testbed.testing.waiting import NotInTime, wait_until

LONGEST_S = 40.0
"""A longer trial would leave too little time for others."""
RSS_GROWTH = 1.1
"""Factor: caches fill up. In a soak of six minutes it was 1.02."""
MEMORY = "agent RSS kB"
NEVER_COMPARED = {"agent CPU ticks"}


class NoHistory(InvalidInput):
    """The file is not the history of a soak, or has other trials; the message has the place and the reason."""


@dataclass
class Outcome:
    """The result of a soak."""

    trials: int = 0
    late: int = 0
    """Attempts that were late on a busy machine, and in time when repeated."""
    problems: list[str] = field(default_factory=list)


def trials_for(lab: LabHandle) -> list[Trial]:
    """Return the trials that make sense in this lab."""
    etcd = lab.status()["etcd"]
    chosen = [trial for trial in TRIALS if trial.hold_s <= LONGEST_S and trial.etcd_members <= len(etcd)]
    if any("cluster" in member for member in etcd):
        # It is not the lab's to break.
        return [
            trial for trial in chosen if not any(fault.startswith("etcd ") for fault in (*trial.prepare, *trial.faults))
        ]
    return chosen


def in_random_order(trials: Sequence[Trial], seed: int, minutes: float) -> Iterator[Trial]:
    """Yield trials until the time is over; the same seed gives the same order."""
    chosen, end = random.Random(seed), time.monotonic() + minutes * 60
    while time.monotonic() < end:
        yield chosen.choice(trials)


def replay(history: Path) -> list[Trial]:
    """Return the trials of an earlier soak, in their order. Raises NoHistory and OSError."""
    known = {trial.name: trial for trial in TRIALS}
    found = []
    if history.exists() and not history.is_file():
        raise NoHistory(f"{history}: not a file")
    for number, line in enumerate(history.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            name, attempt = (entry["trial"], entry["attempt"]) if "seed" not in entry else (None, 1)
        except (ValueError, KeyError, TypeError) as error:
            raise NoHistory(
                f"{history}:{number}: no line of a soak's history ({type(error).__name__}: {error})"
            ) from error
        if name is not None and name not in known and name != CONTROL.name:
            raise NoHistory(f"{history}:{number}: unknown trial (got {name})")
        if name in known and attempt == 1:
            found.append(known[name])
    if not found:
        raise NoHistory(f"{history}: contains no trial")
    return found


class Soak:
    """One soak of one lab; `history` gets a JSON line for each attempt, `report` a line for people."""

    def __init__(self, lab: LabHandle, heartbeats: Heartbeats, history: IO[str], report: Callable[[str], None]) -> None:
        self._lab, self._heartbeats, self._history, self._report = lab, heartbeats, history, report
        self._began = time.monotonic()
        self._outcome = Outcome()

    def run(self, trials: Iterator[Trial]) -> Outcome:
        """Run all trials, and then check what has grown."""
        self._try(CONTROL)
        before: Mapping[str, int] = self._lab.ask(RESOURCES)
        for trial in trials:
            self._outcome.trials += 1
            self._try(trial)
        self._outcome.problems += self._grown(before)
        return self._outcome

    def _try(self, trial: Trial) -> None:
        """Try it until it is in time, wrong, or late too often."""
        for attempt in attempts(self._lab, self._heartbeats, trial):
            found = attempt.found
            self._note(trial, attempt)
            result = "; ".join(found.problems) or "ok"
            if found.problems and attempt.busy:
                result += f" (a task waited for a processor {attempt.waited:.0%} of the time)"
            after_s = time.monotonic() - self._began
            self._report(
                f"{after_s:6.0f} s  {trial.name}: {found.measured_s:.1f} s, gap {found.gap or 'none'}: {result}"
            )
            if attempt.is_last:
                self._outcome.problems += [f"{trial.name}: {problem}" for problem in found.problems]
            else:
                self._outcome.late += 1

    def _grown(self, before: Mapping[str, int]) -> list[str]:
        """Return what has grown permanently; leftovers of the last trial get a moment to vanish."""
        last: list[str] = []

        def none() -> bool:
            last[:] = grown(self._lab.ask(RESOURCES), before)
            return not last

        with contextlib.suppress(NotInTime):
            wait_until(none, SETTLE_LIMIT_S, "nothing has grown")
        return last

    def _note(self, trial: Trial, attempt: Attempt) -> None:
        found, share = attempt.found, attempt.waited
        resources = self._lab.ask(RESOURCES)
        entry = {
            "trial": trial.name,
            "attempt": attempt.number,
            "measured_s": round(found.measured_s, 3),
            "gap": found.gap,
            "problems": found.problems,
            "late": found.late,
            "machine_waited": None if share is None else round(share, 3),
            "history": found.history,
            "resources": resources,
        }
        self._history.write(json.dumps(entry) + "\n")
        self._history.flush()


def grown(now: Mapping[str, int], before: Mapping[str, int]) -> Sequence[str]:
    """Return everything that has grown, one line each. Pure."""
    problems = []
    for what, count in now.items():
        kind, was = kind_of(what), before.get(what, count)
        most = was * RSS_GROWTH if kind == MEMORY else was + SLACK.get(kind, 0)
        if kind not in NEVER_COMPARED and count > most:
            problems.append(f"{what}: {count}, and were {was} before (want at most {most:.0f})")
    return problems
