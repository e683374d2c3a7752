"""Faults in random order for minutes: every trial judged, and at the end nothing may have grown."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.faults.trials import CONTROL, TRIALS, Trial
from testbed.testing.invariants import SLACK, kind_of
from testbed.testing.lab_handle import LabHandle
from testbed.testing.probing import Probing
from testbed.testing.trial_run import Findings, run_trial

LONGEST_S = 40.0
"""A trial that takes longer would leave room for few others."""
RSS_GROWTH = 1.25
"""Times what it was: allocators keep what they had once."""
MEMORY = "agent RSS kB"
NEVER_COMPARED = {"agent CPU ticks"}


def trials_for(lab: LabHandle) -> list[Trial]:
    """Those that make sense in this lab."""
    members = len(lab.status()["etcd"])
    return [trial for trial in TRIALS if trial.hold_s <= LONGEST_S and trial.etcd_members <= members]


def soak(
    lab: LabHandle, minutes: float, seed: int, history: Path, tell: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Run trials until the time is over; how many, and every problem. `history` gets a JSON line for each."""
    chosen = random.Random(seed)
    trials, problems, count = trials_for(lab), list[str](), 0
    began = time.monotonic()
    with Probing(lab) as probing, history.open("w", encoding="utf-8") as file:
        run_trial(lab, probing, CONTROL)
        before: Mapping[str, int] = lab.ask("resources")
        while time.monotonic() < began + minutes * 60:
            trial = chosen.choice(trials)
            found = run_trial(lab, probing, trial)
            count += 1
            _note(file.write, trial, found, lab.ask("resources"))
            file.flush()
            result = "ok" if not found.problems else "; ".join(found.problems)
            tell(
                f"{time.monotonic() - began:6.0f} s  {trial.name}: {found.measured_s:.1f} s, gap {found.gap}: {result}"
            )
            problems += [f"{trial.name}: {problem}" for problem in found.problems]
        problems += grown(lab.ask("resources"), before)
    return count, problems


def grown(now: Mapping[str, int], before: Mapping[str, int]) -> Sequence[str]:
    """What there is more of than before, a line each. Pure."""
    problems = []
    for what, count in now.items():
        kind, was = kind_of(what), before.get(what, count)
        most = was * RSS_GROWTH if kind == MEMORY else was + SLACK.get(kind, 0)
        if kind not in NEVER_COMPARED and count > most:
            problems.append(f"{what}: {count}, and were {was} before (want at most {most:.0f})")
    return problems


def _note(write: Callable[[str], object], trial: Trial, found: Findings, resources: Mapping[str, int]) -> None:
    entry = {
        "trial": trial.name,
        "measured_s": round(found.measured_s, 3),
        "problems": found.problems,
        "history": found.history,
        "resources": dict(resources),
    }
    write(json.dumps(entry) + "\n")
