"""Waiting until nothing is missing any more."""

import time
from collections.abc import Callable

POLL_S = 0.05


def wait_for(missing: Callable[[], str], limit_s: float) -> str:
    """Wait until `missing` says nothing; return its last word, empty when everything is there."""
    deadline = time.monotonic() + limit_s
    while (text := missing()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return text
