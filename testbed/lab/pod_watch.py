"""Notices when a pod becomes ready or stops being so, and tells the lab's subscribers.

Most changes are told by the pods themselves. What nobody tells is that a program has begun to listen on its port, so
pods whose containers run and which are not ready are looked at again and again; ready ones now and then.
"""

import threading
import time
from collections.abc import Callable, Iterable

from testbed.lab.changes import Changes
from testbed.pods.pod import Pod
from testbed.pods.pod_state import PodStatus

EAGER_S = 0.05
"""Between two looks at a pod that may become ready at any moment."""
PATIENCE = 6
"""So many times as long as a look takes passes at least until the next one."""
EAGER_FOR_S = 30.0
"""How long after its last change a pod that is not ready is looked at so often."""
LAZY_S = 2.0

Seen = tuple[bool, bool, str | None, str]
"""Ready, terminating, address, state: what subscribers may depend on."""


class PodWatch:
    """Looks at pods in a thread of its own and notifies `changes` when something about them is different."""

    def __init__(self, pods: Callable[[], Iterable[Pod]], changes: Changes) -> None:
        """`pods` returns those that there are now."""
        self._pods = pods
        self._changes = changes
        self._seen: dict[str, Seen] = {}
        self._changed_at: dict[str, float] = {}
        self._look = threading.Event()
        self._asked: set[str] = set()
        """Names of pods that have said that they changed, since the last look."""
        self._asking = threading.Lock()

    def start(self) -> None:
        """Watch until the lab ends."""
        threading.Thread(target=self._run, name="pod watch", daemon=True).start()

    def look(self, name: str) -> None:
        """The pod of this name has changed: look at it at once."""
        with self._asking:
            self._asked.add(name)
            self._look.set()

    def _take_asked(self) -> set[str]:
        with self._asking:
            asked, self._asked = self._asked, set()
            self._look.clear()
            return asked

    def _run(self) -> None:
        everything = time.monotonic()
        waiting: set[str] = set()
        eager_s = EAGER_S
        while True:
            self._look.wait(eager_s if waiting else max(0.0, everything - time.monotonic()))
            asked = self._take_asked()
            full = time.monotonic() >= everything
            if full:
                everything = time.monotonic() + LAZY_S
            # Not all at every change: a hundred pods that start would be looked at ten thousand times.
            started = time.monotonic()
            waiting = self._look_at(None if full else waiting | asked)
            # Looking must not take the processor from those that are still starting.
            eager_s = max(EAGER_S, PATIENCE * (time.monotonic() - started))

    def _look_at(self, names: set[str] | None) -> set[str]:
        """Look at these pods, or at all; returns those that are worth another look soon."""
        now, found, different = time.monotonic(), dict[str, Seen](), False
        soon = set()
        for pod in self._pods():
            if names is not None and pod.name not in names:
                continue
            status = pod.status()
            found[pod.name] = (status.ready, status.terminating, status.address, status.state)
            if found[pod.name] != self._seen.get(pod.name):
                self._changed_at[pod.name], different = now, True
            if _may_become_ready(status) and now < self._changed_at[pod.name] + EAGER_FOR_S:
                soon.add(pod.name)
        if names is None:
            different |= found.keys() != self._seen.keys()
            self._seen = found
            self._changed_at = {name: at for name, at in self._changed_at.items() if name in found}
        else:
            self._seen.update(found)
        if different:
            self._changes.notify()
        return soon


def _may_become_ready(status: PodStatus) -> bool:
    return not status.ready and not status.terminating and any(one.state == "running" for one in status.containers)
