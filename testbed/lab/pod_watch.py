"""Detects when a pod becomes ready or unready, and notifies the lab's subscribers.

Pods report most changes themselves. Only the start of listening on a port is not reported, so running pods that are not
ready are polled often; ready ones rarely.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import NamedTuple

from testbed.cluster.object_key import ObjectKey
from testbed.lab.changes import Changes
from testbed.pods.pod import Pod
from testbed.pods.pod_state import PodStatus

EAGER_S = 0.05
"""Interval between checks of a pod that may become ready at any moment."""
PATIENCE = 6
"""The pause is at least this many times as long as a check takes."""
EAGER_FOR_S = 30.0
"""How long after its last change a pod that is not ready is polled this often."""
LAZY_S = 2.0
log = logging.getLogger(__name__)

Seen = tuple[bool, bool, str | None, str]
"""Ready, terminating, address, state: what subscribers may depend on."""


class Since(NamedTuple):
    """When a condition of a pod last changed."""

    holds: bool
    at: float
    """Seconds since the epoch."""
    monotonic: float
    """The same on the monotonic clock."""


class PodTimes(NamedTuple):
    """When the conditions of a pod changed last; None: never, since the pod was registered."""

    started: Since | None = None
    ready: Since | None = None

    def after(self, status: PodStatus) -> "PodTimes":
        """Return the same after a check of the pod."""
        return PodTimes(_since(self.started, status.phase != "Pending"), _since(self.ready, status.ready))


def _since(before: Since | None, holds: bool) -> Since | None:
    if (before.holds if before else False) == holds:
        return before
    return Since(holds, time.time(), time.monotonic())


class PodWatch:
    """Checks pods in its own thread and notifies `changes` when something about them differs."""

    def __init__(self, pods: Callable[[], Iterable[Pod]], changes: Changes) -> None:
        """`pods` returns the current pods."""
        self._pods = pods
        self._changes = changes
        self._seen: dict[ObjectKey, Seen] = {}
        self._changed_at: dict[ObjectKey, float] = {}
        self._times: weakref.WeakKeyDictionary[Pod, PodTimes] = weakref.WeakKeyDictionary()
        self._look = threading.Event()
        self._asked: set[ObjectKey] = set()
        """Keys of pods that have reported a change since the last check."""
        self._asking = threading.Lock()

    def start(self) -> None:
        """Watch until the lab ends."""
        threading.Thread(target=self._run, name="pod watch", daemon=True).start()

    def times(self, pod: Pod) -> PodTimes:
        """Return when its conditions changed."""
        return self._times.get(pod, PodTimes())

    def look(self, key: ObjectKey) -> None:
        """Check the pod at once: it has changed."""
        with self._asking:
            self._asked.add(key)
            self._look.set()

    def _take_asked(self) -> set[ObjectKey]:
        with self._asking:
            asked, self._asked = self._asked, set()
            self._look.clear()
            return asked

    def _run(self) -> None:
        everything = time.monotonic()
        waiting: set[ObjectKey] = set()
        eager_s = EAGER_S
        while True:
            self._look.wait(eager_s if waiting else max(0.0, everything - time.monotonic()))
            asked = self._take_asked()
            full = time.monotonic() >= everything
            if full:
                everything = time.monotonic() + LAZY_S
            # Not all at every change: a hundred starting pods would be checked ten thousand times.
            started = time.monotonic()
            keys = None if full else waiting | asked
            try:
                waiting = self._look_at(keys)
            except Exception:
                # One pod that cannot be checked must not end the watch over all; everything is checked again soon.
                log.exception("pod watch")
            # Checks must not take the processor from pods that are still starting.
            eager_s = max(EAGER_S, PATIENCE * (time.monotonic() - started))

    def _look_at(self, keys: set[ObjectKey] | None) -> set[ObjectKey]:
        """Check these pods, or all; return those that need another check soon."""
        now, found, different = time.monotonic(), dict[ObjectKey, Seen](), False
        soon = set()
        for pod in self._pods():
            if keys is not None and pod.key not in keys:
                continue
            status = pod.status()
            self._times[pod] = self.times(pod).after(status)
            found[pod.key] = (status.ready, status.terminating, status.address, status.state)
            if found[pod.key] != self._seen.get(pod.key):
                self._changed_at[pod.key], different = now, True
            if _may_become_ready(status) and now < self._changed_at[pod.key] + EAGER_FOR_S:
                soon.add(pod.key)
        if keys is None:
            different |= found.keys() != self._seen.keys()
            self._seen = found
            self._changed_at = {key: at for key, at in self._changed_at.items() if key in found}
        else:
            self._seen.update(found)
        if different:
            self._changes.notify()
        return soon


def _may_become_ready(status: PodStatus) -> bool:
    return not status.ready and not status.terminating and any(one.state == "running" for one in status.containers)
