"""Runs one trial on a running lab: heartbeats, faults, healing, recovery, invariants; measures and judges it."""

import time
from dataclasses import dataclass, field
from typing import Any

from testbed.control.questions import FAULT
from testbed.errors import TestbedError
from testbed.faults.trials import Trial
from testbed.testing.heartbeats import Heartbeats
from testbed.testing.invariants import Baseline, broken
from testbed.testing.lab_handle import LabHandle
from testbed.testing.waiting import NotInTime, wait_until

CONTROL_LIMIT_S = 20.0
PATIENCE_S = 20.0
"""How much longer than the limit to wait, so that a miss has a number."""
SETTLE_LIMIT_S = 15.0
"""For what may come later than packets: leases of dead nodes, descriptors, threads."""


@dataclass
class Findings:
    """The findings of a trial."""

    measured_s: float = 0.0
    """Gap or recovery, whichever the trial limits."""
    gap: str = ""
    """The longest gap, with its pair."""
    problems: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """The problems that are only a missed time limit."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Actions and their times, in seconds of CLOCK_MONOTONIC."""

    @property
    def wrong(self) -> bool:
        """Return whether there is a problem that no slow machine explains."""
        return any(problem not in self.late for problem in self.problems)

    def note(self, what: str) -> float:
        """Record an action now."""
        self.history.append({"at": time.monotonic(), "what": what})
        return time.monotonic()


def run_trial(
    lab: LabHandle,
    heartbeats: Heartbeats,
    trial: Trial,
    *,
    patience_s: float = PATIENCE_S,
    settle_s: float = SETTLE_LIMIT_S,
) -> Findings:
    """Run it once; afterwards the lab is as before, unless `problems` lists anything.

    Never raises for its findings. `patience_s`: how long to wait after the limit. `settle_s`: how long the invariants
    may take to hold.
    """
    found = Findings()
    try:
        for text in trial.prepare:
            lab.ask(FAULT, {"words": text.split()}, timeout_s=PATIENCE_S * 2)
        lab.wait_ready(CONTROL_LIMIT_S)
        heartbeats.wait_steady(CONTROL_LIMIT_S)
    except (NotInTime, TestbedError) as late:
        lab.heal(limit_s=0)
        found.problems.append(f"before the trial: {late}")
        if isinstance(late, NotInTime):
            found.late.append(found.problems[-1])
        return found
    before = Baseline.of(lab)
    try:
        _inject_and_recover(lab, heartbeats, trial, found, trial.limit_s + patience_s)
    except (NotInTime, TestbedError) as failure:
        found.problems.append(str(failure))
    finally:
        lab.heal(limit_s=0)
    _check_invariants(lab, trial, before, found, settle_s)
    return found


def _inject_and_recover(
    lab: LabHandle, heartbeats: Heartbeats, trial: Trial, found: Findings, patience_s: float
) -> None:
    restarts = {name: node.agent_restarts for name, node in lab.nodes.items()}
    began = found.note("injecting")
    done = [lab.ask(FAULT, {"words": text.split()}, timeout_s=PATIENCE_S * 2) for text in trial.faults]
    injected = found.note("injected")
    if trial.mended_by_lab:
        wait_until(lambda: not lab.faults() or _restarted(lab, restarts), patience_s, "the lab repairs it")
        healed = injected
    else:
        time.sleep(max(0.0, injected + trial.hold_s - time.monotonic()))
        healed = found.note("healing") if any(fault["on"] for fault in done) or not done else injected
        lab.heal(limit_s=0)
        found.note("healed")
    wait_until(lambda: lab.status()["state"] == "ready", patience_s, "the lab is ready")
    ready_after_s = found.note("ready") - healed
    heartbeats.wait_steady(patience_s)
    with heartbeats.locked():
        until = heartbeats.record.newest
        gap = heartbeats.record.longest_gap(began, healed if trial.prepare else until)
        recovery = heartbeats.record.recovered_after(healed, until)
        share = heartbeats.record.share_lost(began, healed) if healed > began + 1 else 0.0
        untouched = heartbeats.record.lost(began, until, set(trial.untouched)) if trial.untouched else {}
        damaged = heartbeats.record.damaged
    found.gap = str(gap)
    _judge(trial, found, gap.seconds, max(recovery.seconds, ready_after_s))
    if share > trial.share_lost:
        found.problems.append(f"{share:.0%} of the heartbeats were lost (want at most {trial.share_lost:.0%})")
    found.problems += [
        f"{a} to {b}: {len(times)} heartbeats were lost (want none)" for (a, b), times in untouched.items()
    ]
    if damaged:
        found.problems.append(f"{damaged} heartbeats arrived damaged")


def _judge(trial: Trial, found: Findings, gap_s: float, recovery_s: float) -> None:
    found.measured_s = gap_s if trial.gap_s else recovery_s
    if trial.gap_s is not None and gap_s > trial.gap_s:
        found.late.append(f"nothing arrived for {found.gap} (limit {trial.gap_s:g} s)")
    if recovery_s > trial.limit_s:
        found.late.append(f"works again after {recovery_s:.1f} s (limit {trial.limit_s:g} s)")
    found.problems += found.late


def _restarted(lab: LabHandle, before: dict[str, int]) -> bool:
    return any(node.agent_restarts > before[name] for name, node in lab.nodes.items())


def _check_invariants(lab: LabHandle, trial: Trial, before: Baseline, found: Findings, settle_s: float) -> None:
    last: list[str] = []

    def hold() -> bool:
        nonlocal last
        try:
            last = broken(lab, before, keeps_subnets=trial.keeps_subnets, expected=trial.says)
        except (AssertionError, TestbedError, ValueError) as failure:
            last = [str(failure)]
        return not last

    try:
        wait_until(hold, settle_s, "the invariants hold")
    except NotInTime:
        found.problems += last
