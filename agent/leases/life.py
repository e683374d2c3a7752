"""How long our lease lives by our own clock, and what follows from that: pure, the time is an argument.

The clock is the monotonic one: a wall clock that jumps ends no lease.
"""

import math
from dataclasses import dataclass, replace

REFUSALS = 3
"""After so many refused renewals in a row the key moves to a new etcd lease, even if there is time left."""


@dataclass(frozen=True, slots=True)
class LeaseLife:
    """As of the last answer of etcd; without arguments that of a reservation."""

    renewed_at: float = 0.0
    """When the renewal was asked for that etcd did last."""
    ttl_s: float = math.inf
    """What etcd granted then; 0 once it has reported that the lease or our key is gone, also that of a reservation."""
    refused: int = 0
    """Renewals in a row that etcd did not do although it answered another question at the same time."""
    refusal: str = ""
    """Why it did not."""

    def left_s(self, now: float) -> float:
        """Until etcd ends the lease if it is not renewed again; 0 when our subnet may be another's."""
        return max(0.0, self.renewed_at + self.ttl_s - now)

    def words(self, now: float) -> str:
        """How long that is, for people."""
        left_s = self.left_s(now)
        return "reserved" if math.isinf(left_s) else f"{left_s:.0f} s left"

    def refuse(self, why: str) -> "LeaseLife":
        """Return what is known after one more refusal."""
        return replace(self, refused=self.refused + 1, refusal=why)

    def end(self) -> "LeaseLife":
        """Return what is known after etcd reported that the lease, or our key, is gone."""
        return replace(self, ttl_s=0.0)

    def may_ask_again(self, now: float) -> bool:
        """Whether there is time to ask once more for a renewal that was refused."""
        return self.refused < REFUSALS and self.left_s(now) > self.ttl_s / 3

    def warning(self, now: float) -> str | None:
        """What works now and will not for ever."""
        if self.left_s(now) == 0:
            return "the lease is over by our clock, and etcd does not answer"
        if self.refused >= REFUSALS:
            return f"etcd answers, but does not renew our lease, so its key gets a new one each time: {self.refusal}"
        return None
