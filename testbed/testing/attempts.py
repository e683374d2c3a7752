"""Repeat a trial until it is in time, wrong, or late too often.

Wrong results (a forbidden loss, a changed subnet, a broken invariant, no recovery) count at once. A trial that only
exceeded its limit is repeated if the machine was busy: a limit is meaningful only if the agent gets a processor. Late
each time, or once on a quiet machine, is a problem.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from testbed.faults.trials import Trial
from testbed.testing.heartbeats import Heartbeats
from testbed.testing.lab_handle import LabHandle
from testbed.testing.machine_load import Pressure
from testbed.testing.trial_run import Findings, run_trial

ATTEMPTS = 3
BUSY_SHARE = 0.25
"""Share of time with a task waiting for a processor; a lab of three nodes alone on two processors is at a
tenth of it.
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a trial."""

    number: int
    """From 1."""
    found: Findings
    waited: float | None
    """Share of time with a task waiting for a processor; None if the kernel does not count it."""

    @property
    def busy(self) -> bool:
        """Return whether the machine was too busy for a limit to be meaningful."""
        return self.waited is not None and self.waited > BUSY_SHARE

    @property
    def is_last(self) -> bool:
        """Return whether it decides."""
        found = self.found
        return not found.problems or not self.busy or found.wrong or self.number >= ATTEMPTS


def attempts(lab: LabHandle, heartbeats: Heartbeats, trial: Trial) -> Iterator[Attempt]:
    """Yield attempts; repeat while the machine may be the cause. The last one decides."""
    for number in range(1, ATTEMPTS + 1):
        pressure = Pressure()
        found = run_trial(lab, heartbeats, trial)
        attempt = Attempt(number, found, pressure.share())
        yield attempt
        if attempt.is_last:
            return
