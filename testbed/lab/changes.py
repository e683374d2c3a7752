"""Who wants to know that something in the lab changed: pods, their readiness and labels, nodes.

    lab.pods_changed.subscribe("services", program_services)     called once at once, then after every change
    lab.pods_changed.notify()                                    returns at once; a burst becomes one call
    lab.pods_changed.notify_and_wait(2.0)                        returns once everybody has acted on it

A callback is told nothing: it looks at the lab as it is then, so that no missed message can make it wrong.
"""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Changes:
    """A list of subscribers; each is called in a thread of its own, never twice at the same time."""

    def __init__(self) -> None:
        self._subscribers: list[_Subscriber] = []
        self._subscribing = threading.Lock()

    def subscribe(self, name: str, callback: Callable[[], None]) -> None:
        """Call `callback` soon, and again soon after every `notify`. What it raises is logged."""
        subscriber = _Subscriber(name, callback)
        with self._subscribing:
            self._subscribers = [*self._subscribers, subscriber]
        subscriber.ask()

    def notify(self) -> None:
        """Something changed; returns at once."""
        for subscriber in self._subscribers:
            subscriber.ask()

    def notify_and_wait(self, limit_s: float) -> list[str]:
        """Something changed, and what comes next must wait until everybody has acted on it.

        Returns the names of those whose call did not end within `limit_s` seconds. Must not be called by a callback.
        """
        deadline = time.monotonic() + limit_s
        asked = [(subscriber, subscriber.ask()) for subscriber in self._subscribers]
        return [one.name for one, number in asked if not one.wait_for(number, deadline - time.monotonic())]


class _Subscriber:
    def __init__(self, name: str, callback: Callable[[], None]) -> None:
        self.name = name
        self._callback = callback
        self._asked = 0
        self._done = 0
        """The highest number that had been asked for when a call began which has ended."""
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=f"changes for {name}", daemon=True).start()

    def ask(self) -> int:
        """Want a call that begins after now; returns the number to wait for."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            return self._asked

    def wait_for(self, number: int, limit_s: float) -> bool:
        """Whether a call that began after `ask` returned `number` has ended, at the latest after the limit."""
        with self._changed:
            return self._changed.wait_for(lambda: self._done >= number, max(0.0, limit_s))

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._done)
                number = self._asked
            try:
                self._callback()
            except Exception:
                # One subscriber's mistake must not end its subscription: the next change may mend it.
                log.exception("changes: %s", self.name)
            with self._changed:
                self._done = number
                self._changed.notify_all()
