"""Which part of a container's log its last runs wrote: all runs share one log."""

import os
from pathlib import Path
from typing import NamedTuple


class LogPart(NamedTuple):
    """A part of the concatenation of several files."""

    files: tuple[Path, ...]
    first_byte: int
    bytes: int


class _Place(NamedTuple):
    """Where a file ended, by its inode: rotation changes a log's name."""

    inode: int
    offset: int


class LogRuns:
    """Records where runs begin."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._runs: tuple[list[_Place], bool] = ([], False)
        """Where the last two began, and whether the last one has ended; one value, since several threads read it."""

    def begin(self) -> None:
        """Attribute everything written from now on to a new run."""
        status = self._log.stat() if self._log.exists() else None
        place = _Place(0, 0) if status is None else _Place(status.st_ino, status.st_size)
        self._runs = ([*self._runs[0][-1:], place], False)

    def end(self) -> None:
        """Note that the run is over."""
        self._runs = (self._runs[0], True)

    def before(self) -> LogPart | None:
        """Return the output of the previous run, or of the last one if that is over; None if there is none, or it is no
        longer kept.
        """
        starts, is_over = self._runs
        if len(starts) < (1 if is_over else 2):
            return None
        files = tuple(file for file in (self._log.with_name(f"{self._log.name}.1"), self._log) if file.exists())
        begin = _offset(files, starts[-1 if is_over else -2]) or 0
        end = sum(file.stat().st_size for file in files) if is_over else _offset(files, starts[-1])
        return None if end is None else LogPart(files, begin, end - begin)


def _offset(files: tuple[Path, ...], place: _Place) -> int | None:
    """Return the number of bytes before a place; None if it is no longer kept."""
    before = 0
    for file in files:
        status = os.stat(file)
        if status.st_ino == place.inode:
            return before + place.offset
        before += status.st_size
    return None
