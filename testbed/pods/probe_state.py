"""The meaning of consecutive probe results, by Kubernetes' thresholds. Pure."""

from dataclasses import dataclass

from testbed.cluster.probe import Probe


@dataclass(frozen=True, slots=True)
class ProbeState:
    """The state of a probe."""

    passing: bool
    """The probe's current verdict on its container."""
    streak: int = 0
    """Consecutive equal results: successes above 0, failures below."""

    def after(self, success: bool, probe: Probe) -> "ProbeState":
        """Return the state after one more result."""
        if success:
            streak = max(self.streak, 0) + 1
            return ProbeState(self.passing or streak >= probe.success_threshold, streak)
        streak = min(self.streak, 0) - 1
        return ProbeState(self.passing and -streak < probe.failure_threshold, streak)


NOT_READY_YET = ProbeState(passing=False)
"""Initial state of a readiness probe: no traffic before the first success."""
ALIVE = ProbeState(passing=True)
"""Initial state of a liveness probe: no restart before it has failed."""
