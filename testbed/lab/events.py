"""The lab's events, oldest first, as `testbed events` shows them."""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from agent.kernel import json_lines
from testbed.control.answers.lab import EventLine
from testbed.lab.clock import now
from testbed.plain_files import plain

EVENTS_KEPT = 2000
SHOWN = 10
"""Limit for one object."""


class Events:
    """The newest events, and a file of all of them. Usable from several threads."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept: deque[EventLine] = deque(maxlen=EVENTS_KEPT)
        self._lock = threading.Lock()

    def note(self, kind: str, subject: str, reason: str, message: str) -> None:
        """Record an event; `kind` is Normal or Warning."""
        with self._lock, contextlib.suppress(OSError):
            # Read under the lock, so that events are kept in the order of their times.
            event = EventLine(at=now(), type=kind, object=subject, reason=reason, message=message)
            self._kept.append(event)
            # A file that cannot be written stops nothing: `events` has the record.
            json_lines.append(self._file, event, plain)

    def __iter__(self) -> Iterator[EventLine]:
        with self._lock:
            return iter(list(self._kept))

    def about(self, subject: str, without: str | None = None) -> list[str]:
        """Return the last events of an object, one line each, `without` those of one reason."""
        found = [one for one in self if one["object"] == subject and one["reason"] != without]
        return [f"{one['at']} {one['type']} {one['reason']}: {one['message']}" for one in found[-SHOWN:]]
