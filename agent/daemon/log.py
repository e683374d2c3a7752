"""The agent's log: one line per event on standard error, `2026-11-22T18:35:04.123Z WARNING text`, times in UTC."""

import logging
import sys
import time


class OneLine(logging.Formatter):
    """An event as one line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"

    def format(self, record: logging.LogRecord) -> str:
        # An error's text or a lease's bytes may hold line ends; a log that is read line by line must not break.
        return super().format(record).replace("\n", " | ")


def start_logging(verbosity: int) -> None:
    """Log our events to standard error; `verbosity` 1 and more adds details."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbosity > 0 else logging.INFO, force=True)
    for library in ("grpc", "etcd3", "pyroute2", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
