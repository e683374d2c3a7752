"""Limits logs of programs that write them themselves (agents, etcd, switches, the DNS, the lab).

These keep their files open, so a log that is too large is emptied in place, and its end is saved as LOG.1. Output
between the two steps is lost: one line, if any.
"""

import contextlib
import os
import threading
from pathlib import Path

from testbed.plain_files import plain
from testbed.pods.container_log import LOG_BYTES, LOG_BYTES_WHEN_CROWDED, is_crowded

LOOK_EVERY_S = 5.0


class LogKeeper:
    """Limits the logs of one lab."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def start(self) -> None:
        """Start checking, in a new thread."""
        threading.Thread(target=self._look_for_ever, name="log keeper", daemon=True).start()

    def look(self) -> None:
        """Shorten logs that are too large."""
        for log in (self._directory / "lab.log", *(self._directory / "logs").glob("*.log")):
            with contextlib.suppress(OSError):
                shorten(log, LOG_BYTES)

    def _look_for_ever(self) -> None:
        waiting = threading.Event()
        while not waiting.wait(LOOK_EVERY_S):
            self.look()


def shorten(log: Path, limit_bytes: int) -> None:
    """Empty a log that has reached half of the limit, and save this much of its end as its predecessor.

    Raises OSError.
    """
    file = plain(log, os.O_RDWR)
    try:
        half = (min(limit_bytes, LOG_BYTES_WHEN_CROWDED) if is_crowded(file) else limit_bytes) // 2
        size = os.fstat(file).st_size
        if size < half:
            return
        end = os.pread(file, half, size - half)
        before = log.with_name(f"{log.name}.1")
        # Free space first: the file system may be full.
        before.unlink(missing_ok=True)
        os.ftruncate(file, 0)
        with open(before, "xb", opener=plain) as kept:
            kept.write(end)
    finally:
        os.close(file)
