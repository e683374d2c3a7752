"""How a pod ends, in the order that loses no request: nobody is sent to it any more, then TERM, then the grace."""

import time
from typing import TYPE_CHECKING

from testbed.pods.pod import Pod

if TYPE_CHECKING:
    from testbed.supervisor.lab import Lab

ROUTES_LIMIT_S = 3.0
"""How long services may take to forget the pod; one that takes longer is told of in an event."""
UNDER_WAY_S = 0.2
"""For requests that were on their way when the last node forgot the pod: to arrive, and to be answered."""


def end_pod(lab: "Lab", pod: Pod, grace_s: float | None = None) -> None:
    """End the pod and forget it; returns when it is gone. `grace_s` None: as its manifest says."""
    pod.mark_terminating()
    # Told in any case: the pod's own word wakes the pod watch first, and we must not wait for that.
    late = lab.pods_changed.notify_and_wait(ROUTES_LIMIT_S)
    for name in late:
        why = f"{name} may still send to the pod after {ROUTES_LIMIT_S:g} s; it is ended all the same"
        lab.event("Warning", f"pod/{pod.name}", "StillUsed", why)
    if grace_s is None or grace_s > 0:
        time.sleep(UNDER_WAY_S)
    pod.delete(grace_s)
    lab.forget_pod(pod)
