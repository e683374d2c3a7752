"""The agent's journal: a full disk may cost us the record of a change, never the change."""

import logging
from collections.abc import Sequence
from pathlib import Path

from agent.errors import EnvironmentMissing
from agent.kernel.journal import FileJournal, Journal, SilentJournal

log = logging.getLogger(__name__)


class TolerantJournal:
    """Passes records on; complains once when they cannot be written, and goes on."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._complained = False

    def record(self, command: Sequence[str], why: str, stdin: str | None = None) -> None:
        """Write it down if possible."""
        try:
            self._journal.record(command, why, stdin)
        except OSError as error:
            if not self._complained:
                log.warning("--journal: changes are not recorded: %s", error)
            self._complained = True
        else:
            self._complained = False


def open_journal(path: Path | None, node_name: str) -> Journal:
    """The journal in `path`, or one that keeps nothing. Raises EnvironmentMissing when there can be no such file."""
    if path is None:
        return SilentJournal()
    try:
        return TolerantJournal(FileJournal(path, node_name))
    except OSError as error:
        raise EnvironmentMissing(f"--journal: {error.strerror} (got {path}; want a file that we may write)") from error
