"""Waiting for a condition, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
POLL_S = 0.02


def wait_until(condition: Callable[[], T], *, timeout_s: float, what: str) -> T:
    """Return the condition's first true value; fail with `what` and the last value when it stays false too long."""
    deadline = time.monotonic() + timeout_s
    while True:
        late = time.monotonic() > deadline
        value = condition()
        if value:
            return value
        if late:
            pytest.fail(f"not within {timeout_s:g} s: {what} (last seen: {value!r})")
        time.sleep(POLL_S)


def constantly(condition: Callable[[], bool], *, for_s: float, what: str) -> None:
    """Fail as soon as `condition` does not hold within the next `for_s` seconds; it is asked at least twice."""
    deadline = time.monotonic() + for_s
    asked = 0
    while asked < 2 or time.monotonic() < deadline:
        asked += 1
        if not condition():
            pytest.fail(f"not constantly: {what} (asked {asked} times)")
        time.sleep(POLL_S)
