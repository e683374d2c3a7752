"""Time for policies that wait: a clock that tests can replace, and back-off with jitter."""

import random
import threading
import time
from typing import Protocol

FIRST_S, LONGEST_S = 0.1, 2.0
"""The first and the longest delay of a back-off."""


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
    """Growing delays: doubled from FIRST_S up to LONGEST_S, each cut by up to a half at random."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next_s = FIRST_S

    def next_s(self) -> float:
        """Return how long to wait before the next try, in seconds."""
        delay_s, self._next_s = self._next_s, min(LONGEST_S, self._next_s * 2)
        # Without jitter all nodes that lost etcd together would come back together.
        return delay_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start from the first delay again, after a success."""
        self._next_s = FIRST_S
