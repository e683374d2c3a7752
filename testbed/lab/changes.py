"""Notifies subscribers of changes in the lab: pods, their readiness and labels, nodes.

    lab.pods_changed.subscribe("services", program_services)     called once at once, then after every change
    lab.pods_changed.notify()                                    returns at once; a burst becomes one call
    lab.pods_changed.notify_and_wait(2.0)                        returns once all subscribers have acted on it

A callback gets no details: it reads the lab's current state, so a missed message cannot mislead it.
"""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Changes:
    """A list of subscribers; each is called in its own thread, never twice at the same time."""

    def __init__(self) -> None:
        self._subscribers: list[_Subscriber] = []
        self._subscribing = threading.Lock()

    def subscribe(self, name: str, callback: Callable[[], None]) -> None:
        """Call `callback` soon, and again soon after every `notify`. Its exceptions are logged."""
        subscriber = _Subscriber(name, callback)
        with self._subscribing:
            self._subscribers = [*self._subscribers, subscriber]
        subscriber.ask()

    def notify(self) -> None:
        """Announce a change; return at once."""
        for subscriber in self._subscribers:
            subscriber.ask()

    def notify_and_wait(self, limit_s: float) -> list[str]:
        """Announce a change that all subscribers must act on before the caller continues.

        Returns the names of those that did not finish within `limit_s` seconds. A callback must not call it.
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
        """The highest number that was requested when the last finished call began."""
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name=f"changes for {name}", daemon=True).start()

    def ask(self) -> int:
        """Request a call that begins after now; return the number to wait for."""
        with self._changed:
            self._asked += 1
            self._changed.notify_all()
            return self._asked

    def wait_for(self, number: int, limit_s: float) -> bool:
        """Return whether a call that began after `ask` returned `number` has ended, at the latest after the limit."""
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
                # A subscriber's failure must not end its subscription: the next change may repair it.
                log.exception("changes: %s", self.name)
            with self._changed:
                self._done = number
                self._changed.notify_all()
