"""What a row of probes' successes and failures means, by Kubernetes' thresholds. Pure."""

from dataclasses import dataclass

from testbed.cluster.probe import Probe


@dataclass(frozen=True, slots=True)
class ProbeState:
    """Where a probe stands."""

    passing: bool
    """What the probe says of its container now."""
    streak: int = 0
    """How many results in a row were alike: successes above 0, failures below."""

    def after(self, success: bool, probe: Probe) -> "ProbeState":
        """The state after one more result."""
        if success:
            streak = max(self.streak, 0) + 1
            return ProbeState(self.passing or streak >= probe.success_threshold, streak)
        streak = min(self.streak, 0) - 1
        return ProbeState(self.passing and -streak < probe.failure_threshold, streak)


NOT_READY_YET = ProbeState(passing=False)
"""A readiness probe's beginning: nothing is sent to a container before it has said that it is ready."""
ALIVE = ProbeState(passing=True)
"""A liveness probe's beginning: nothing is restarted before it has failed."""
