"""A trial until it is in time, wrong, or late too often.

What is wrong (something lost that must not be, a subnet changed, an invariant broken, no recovery) counts at once. What
is only later than its limit is tried again when the machine was busy meanwhile: a limit says something about the agent
only where the agent gets a processor. Late each time, or once on a quiet machine, is a problem.
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
"""Of the time somebody waited for a processor; a lab of three nodes alone on two processors is at a tenth of it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of a trial's."""

    number: int
    """From 1."""
    found: Findings
    waited: float | None
    """The share of the time in which somebody waited for a processor; None where the kernel does not count."""

    @property
    def busy(self) -> bool:
        """Whether the machine had too much to do for a limit to mean something."""
        return self.waited is not None and self.waited > BUSY_SHARE

    @property
    def is_last(self) -> bool:
        """Whether it decides."""
        found = self.found
        return not found.problems or not self.busy or found.wrong or self.number >= ATTEMPTS


def attempts(lab: LabHandle, heartbeats: Heartbeats, trial: Trial) -> Iterator[Attempt]:
    """Do it; again while it may be the machine's fault. The last one decides."""
    for number in range(1, ATTEMPTS + 1):
        pressure = Pressure()
        found = run_trial(lab, heartbeats, trial)
        attempt = Attempt(number, found, pressure.share())
        yield attempt
        if attempt.is_last:
            return
