"""The agent's log: one line per event on standard error, `2026-11-22T18:35:04.123Z WARNING text`, times in UTC.

An event that repeats goes through a `LogLimit`.
"""

import logging
import sys
import time

from agent.daemon.pacing import Clock

INTERVAL_S = 10.0
"""Between two messages of one limit."""


class OneLineFormatter(logging.Formatter):
    """Writes each event as one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        # An error's text or a lease's bytes may hold anything: line ends would break a log that is read line by line,
        # and a terminal obeys control characters.
        return _printable(super().format(record).replace("\n", " | "))


def start_logging(verbosity: int) -> None:
    """Log our events to standard error; `verbosity` 1 and more adds details."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter())
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbosity > 0 else logging.INFO, force=True)
    for library in ("grpc", "etcd3", "pyroute2", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class LogLimit:
    """Lets one message through per interval, so that an outage of hours does not fill the disk."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: float | None = None

    def allows(self) -> bool:
        """Return whether a message may be logged now; count it as logged."""
        now = self._clock.now()
        if self._last is not None and now - self._last < INTERVAL_S:
            return False
        self._last = now
        return True

    def reset(self) -> bool:
        """Let the next message through, as the trouble is over. Return whether any was logged."""
        logged, self._last = self._last is not None, None
        return logged
