"""Wait for conditions, never for a time: the one loop of tests that wait for a lab."""

import time
from collections.abc import Callable
from typing import TypeVar

from testbed.errors import TestbedError

T = TypeVar("T")

PERIOD_S = 0.05


class NotInTime(AssertionError):
    """A condition did not become true in time; the text has the last value."""


def wait_until(condition: Callable[[], T], timeout_s: float, what: str = "", period_s: float = PERIOD_S) -> T:
    """Return the condition's first true value.

    Raises NotInTime with `what` and the last value. A condition that raises AssertionError or TestbedError (a lab that
    does not answer yet) counts as not true yet. It is checked at least once, and a last time after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        late = time.monotonic() >= deadline
        cause: Exception | None = None
        try:
            value = condition()
        except (AssertionError, TestbedError) as failure:
            seen, cause = f"{type(failure).__name__}: {failure}", failure
        else:
            if value:
                return value
            seen = repr(value)
        if late:
            wanted = what or getattr(condition, "__name__", "the condition")
            raise NotInTime(f"not within {timeout_s:g} s: {wanted} (last seen: {seen})") from cause
        time.sleep(period_s)
