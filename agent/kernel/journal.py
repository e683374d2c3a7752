"""Every kernel change as the command a person would have typed, in the order in which it was made.

A journal is one file of JSON lines per process: `{"at": seconds since the epoch, "node": name, "command": [argv],
"input": text for the command's standard input or null, "why": one sentence}`. The lab reads the journals of all
its agents and of itself and prints them as one script.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from agent.errors import EnvironmentMissing
from agent.kernel import json_lines

log = logging.getLogger(__name__)


class Journal(Protocol):
    """Where kernel changes are written down."""

    def record(self, command: Sequence[str], why: str, stdin: str | None = None) -> None:
        """Note that the equivalent of `command` was done, and why."""


class SilentJournal:
    """Keeps nothing: for an agent whose changes are not looked at."""

    def record(self, command: Sequence[str], why: str, stdin: str | None = None) -> None:
        """Forget it."""


class FileJournal:
    """Appends JSON lines to `path`, which several processes may share.

    A full disk may cost us the record of a change, never the change.
    """

    def __init__(self, path: Path, node: str, opener: json_lines.Opener = json_lines.open_to_append) -> None:
        """`opener`: how the file is opened, as for the built-in `open`. Raises OSError without its directory."""
        self._path = path
        self._node = node
        self._opener = opener
        self._complained = False
        path.parent.mkdir(parents=True, exist_ok=True)

    def of(self, node: str) -> "FileJournal":
        """The same file for another machine's changes."""
        return FileJournal(self._path, node, self._opener)

    def record(self, command: Sequence[str], why: str, stdin: str | None = None) -> None:
        """Append one line if possible."""
        entry = {"at": time.time(), "node": self._node, "command": list(command), "input": stdin, "why": why}
        try:
            json_lines.append(self._path, entry, self._opener)
        except OSError as error:
            if not self._complained:
                log.warning("journal: changes are not recorded: %s", error)
            self._complained = True
        else:
            self._complained = False


def open_journal(path: Path | None, node_name: str) -> Journal:
    """The journal in `path`, or one that keeps nothing. Raises EnvironmentMissing when there can be no such file."""
    if path is None:
        return SilentJournal()
    try:
        return FileJournal(path, node_name)
    except OSError as error:
        raise EnvironmentMissing(f"--journal: {error.strerror} (got {path}; want a file that we may write)") from error
