"""How busy the machine is, to judge a missed limit.

The kernel counts the time in which at least one task was ready to run and had no processor (pressure stall
information, Documentation/accounting/psi.rst).
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

PRESSURE = Path("/proc/pressure/cpu")
SOME_TOTAL = re.compile(r"^some .* total=(\d+)$", re.MULTILINE)


def waited_s(pressure: Path = PRESSURE) -> float | None:
    """Return seconds since the machine's start in which a task waited for a processor; None if the kernel does not
    count them.
    """
    try:
        found = SOME_TOTAL.search(pressure.read_text())
    except OSError:
        return None
    return int(found[1]) / 1e6 if found else None


class Pressure:
    """The share of an interval in which a task waited for a processor."""

    def __init__(self, read: Callable[[], float | None] = waited_s, now: Callable[[], float] = time.monotonic) -> None:
        self._read, self._now = read, now
        self._waited_s, self._began = read(), now()

    def share(self) -> float | None:
        """Return it since this object was created, 0 to 1; None if the kernel does not count it."""
        waited = self._read()
        if waited is None or self._waited_s is None:
            return None
        return min(1.0, (waited - self._waited_s) / max(0.001, self._now() - self._began))
