"""Which part of a container's log its last runs wrote: the log is one, whatever ends in between."""

import os
from pathlib import Path
from typing import NamedTuple


class LogPart(NamedTuple):
    """Some of what several files hold, read one after the other."""

    files: tuple[Path, ...]
    first_byte: int
    bytes: int


class _Place(NamedTuple):
    """Where a file ended, by its inode: the log gets another name when a new one begins."""

    inode: int
    offset: int


class LogRuns:
    """Notes where runs begin."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._starts: list[_Place] = []

    def begin(self) -> None:
        """Take what is written from now on for another run's."""
        status = self._log.stat() if self._log.exists() else None
        place = _Place(0, 0) if status is None else _Place(status.st_ino, status.st_size)
        self._starts = [*self._starts[-1:], place]

    def before(self, *, is_over: bool) -> LogPart | None:
        """Return what the run before wrote, or the last one if that `is_over`; None where there was none, or
        nothing of it is kept.
        """
        if len(self._starts) < (1 if is_over else 2):
            return None
        files = tuple(file for file in (self._log.with_name(f"{self._log.name}.1"), self._log) if file.exists())
        begin = _offset(files, self._starts[-1 if is_over else -2]) or 0
        end = sum(file.stat().st_size for file in files) if is_over else _offset(files, self._starts[-1])
        return None if end is None else LogPart(files, begin, end - begin)


def _offset(files: tuple[Path, ...], place: _Place) -> int | None:
    """Return how many bytes are before a place; None where it is no longer kept."""
    before = 0
    for file in files:
        status = os.stat(file)
        if status.st_ino == place.inode:
            return before + place.offset
        before += status.st_size
    return None
