"""How long our lease lives by our own clock, and what follows from that.

Pure: the time is an argument. The clock is monotonic, so a jump of the wall clock does not end a lease.
"""

import math
from dataclasses import dataclass, replace

REFUSALS = 3
"""After so many refused renewals in a row the key moves to a new etcd lease, even if time is left."""


@dataclass(frozen=True, slots=True)
class LeaseLife:
    """The state at etcd's last answer; the defaults are a reservation's."""

    renewed_at: float = 0.0
    """When the last successful renewal was requested."""
    ttl_s: float = math.inf
    """The TTL granted then; 0 once etcd has reported that the lease or our key is gone, also for a reservation."""
    refused: int = 0
    """Renewals in a row that etcd refused although it answered another request at the same time."""
    refusal: str = ""
    """The reason for the refusal."""

    def left_s(self, now: float) -> float:
        """Return the time until etcd ends the lease without renewal; 0 when our subnet may belong to another node."""
        return max(0.0, self.renewed_at + self.ttl_s - now)

    def words(self, now: float) -> str:
        """Return that time for people."""
        left_s = self.left_s(now)
        return "reserved" if math.isinf(left_s) else f"{left_s:.0f} s left"

    def refuse(self, why: str) -> "LeaseLife":
        """Return the state after one more refusal."""
        return replace(self, refused=self.refused + 1, refusal=why)

    def end(self) -> "LeaseLife":
        """Return the state after etcd reported that the lease, or our key, is gone."""
        return replace(self, ttl_s=0.0)

    def may_ask_again(self, now: float) -> bool:
        """Return whether there is time to retry a refused renewal."""
        return self.refused < REFUSALS and self.left_s(now) > self.ttl_s / 3

    def warning(self, now: float) -> str | None:
        """Return the warning about a lease that works now and will fail later."""
        if self.left_s(now) == 0:
            return "the lease has expired by our clock, and etcd does not answer"
        if self.refused >= REFUSALS:
            return f"etcd answers, but does not renew our lease, so its key gets a new one each time: {self.refusal}"
        return None
