"""Waiting for a condition, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout_s: float, what: str) -> T:
    """Return the condition's first true value; fail with `what` and the last value when it stays false too long."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s: {what} (last seen: {value!r})")
        time.sleep(0.02)
