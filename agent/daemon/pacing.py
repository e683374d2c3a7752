"""Time for policies that wait: a clock that tests can replace, and back-off with jitter."""

import random
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Where now comes from and where waiting happens."""

    def now(self) -> float:
        """Return monotonic seconds from an arbitrary start."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait until `event` is set, at most `timeout_s`; return whether it is set."""


class SystemClock:
    """The machine's own."""

    def now(self) -> float:
        """Return seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Block the calling thread."""
        return event.wait(max(0.0, timeout_s))


class Backoff:
    """Growing delays: `first_s` doubled up to `longest_s`, each cut by up to a half at random."""

    def __init__(self, rng: random.Random, first_s: float = 0.1, longest_s: float = 2.0) -> None:
        self._rng = rng
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Return how long to wait before the next try, in seconds."""
        delay_s, self._next_s = self._next_s, min(self._longest_s, self._next_s * 2)
        # Without jitter all nodes that lost etcd together would come back together.
        return delay_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start from the first delay again, after a success."""
        self._next_s = self._first_s
