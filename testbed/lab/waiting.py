"""Wait until nothing is missing."""

import time
from collections.abc import Callable

POLL_S = 0.05


def wait_for(missing: Callable[[], str], limit_s: float) -> str:
    """Wait until `missing` returns ""; return its last result, empty if nothing is missing."""
    deadline = time.monotonic() + limit_s
    while (text := missing()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return text
