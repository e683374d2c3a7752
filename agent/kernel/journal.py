"""Every kernel change as its equivalent command, in order.

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
    """Records kernel changes."""

    def record(self, command: Sequence[str], why: str, stdin: str | None = None) -> None:
        """Record the equivalent `command` of a change, and why."""


class SilentJournal:
    """Records nothing: for an agent without a journal."""

    def record(self, command: Sequence[str], why: str, stdin: str | None = None) -> None:
        """Do nothing."""


class FileJournal:
    """Appends JSON lines to `path`, which several processes may share.

    A full disk may lose a record, never the change.
    """

    def __init__(self, path: Path, node: str, opener: json_lines.Opener = json_lines.open_to_append) -> None:
        """Take `opener`, which opens the file, as for the built-in `open`.

        Raises OSError if its directory is missing.
        """
        self._path = path
        self._node = node
        self._opener = opener
        self._complained = False
        path.parent.mkdir(parents=True, exist_ok=True)

    def of(self, node: str) -> "FileJournal":
        """Return a journal in the same file for another machine's changes."""
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
    """Open the journal at `path`, or one that records nothing.

    Raises EnvironmentMissing if the file cannot be created.
    """
    if path is None:
        return SilentJournal()
    try:
        return FileJournal(path, node_name)
    except OSError as error:
        raise EnvironmentMissing(f"--journal: {error.strerror} (got {path}; want a file that we may write)") from error
