"""How busy the machine is with whatever it does: what a limit that was missed has to be held against.

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
    """Seconds since the machine started in which somebody waited for a processor; None: this kernel does not count."""
    try:
        found = SOME_TOTAL.search(pressure.read_text())
    except OSError:
        return None
    return int(found[1]) / 1e6 if found else None


class Pressure:
    """The share of a time in which somebody waited for a processor."""

    def __init__(self, read: Callable[[], float | None] = waited_s, now: Callable[[], float] = time.monotonic) -> None:
        self._read, self._now = read, now
        self._waited_s, self._began = read(), now()

    def share(self) -> float | None:
        """Since this object was made, 0 to 1; None where the kernel does not count."""
        waited = self._read()
        if waited is None or self._waited_s is None:
            return None
        return min(1.0, (waited - self._waited_s) / max(0.001, self._now() - self._began))
