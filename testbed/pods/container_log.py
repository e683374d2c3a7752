"""A container's log file with a size cap. Standard library only; loaded by a container's first process."""

import contextlib
import os
import struct
import time

LOG_BYTES = 10_000_000
"""Size of a log and its predecessor together."""
LOG_BYTES_WHEN_CROWDED = 256 * 1024
ROOM_FOR_OTHERS = 512 * 1024 * 1024
"""Logs are below /run, which is memory and shared with the whole machine: half of it, or this much, is reserved."""
TIME = struct.Struct("<QQ")
"""A record of NAME.INODE.times: from this byte of the log on, written at this time (nanoseconds since the epoch)."""
SAME_TIME_NS = 10_000_000
"""Output within this time has one record."""
LEAST_TIMES_BYTES = 4096


def times_of(log: str, inode: int) -> str:
    """Return where the times of a log's lines are: a file of its own, since other programs read and write the log."""
    return f"{log.removesuffix('.1').removesuffix('.log')}.{inode}.times"


def is_crowded(descriptor: int) -> bool:
    """Report whether the file system of a file has little space left."""
    found = os.fstatvfs(descriptor)
    return found.f_bavail * found.f_frsize < min(found.f_blocks * found.f_frsize // 2, ROOM_FOR_OTHERS)


class CappedLog:
    """Appends to `path`; at half of the limit the file becomes `path`.1 and a new one begins.

    Together they never exceed the limit, which is lower while the file system is crowded; the times of their lines take
    an eighth of it at most. A full or broken disk loses output, never the container.
    """

    def __init__(self, path: str, limit_bytes: int) -> None:
        """Open for appending; output of earlier runs of the container counts. Raises OSError."""
        self._path = path
        self._limit = limit_bytes
        self._descriptor = self._open(path)
        self._size = os.fstat(self._descriptor).st_size
        self._times = self._open_times()
        self._times_size = os.fstat(self._times).st_size
        self._last_time = 0

    def write(self, data: bytes) -> None:
        """Append `data`, in pieces if it exceeds the size of one file."""
        with contextlib.suppress(OSError):
            while data:
                half = self._half()
                if self._size >= half or self._times_size + TIME.size > max(half // 8, LEAST_TIMES_BYTES):
                    self._rotate()
                self._note_time(time.time_ns())
                piece = data[: half - self._size]
                written = os.write(self._descriptor, piece)
                self._size += written
                data = data[written:]

    def _note_time(self, now: int) -> None:
        # Before the output, so that a reader of that finds its time.
        if not 0 <= now - self._last_time < SAME_TIME_NS:
            self._times_size += os.write(self._times, TIME.pack(self._size, now))
            self._last_time = now

    def _half(self) -> int:
        limit = min(self._limit, LOG_BYTES_WHEN_CROWDED) if is_crowded(self._descriptor) else self._limit
        return limit // 2

    def _open(self, path: str) -> int:
        # As in testbed.plain_files, which a container's first process cannot import.
        planted = os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | planted, 0o600)

    def _open_times(self) -> int:
        return self._open(times_of(self._path, os.fstat(self._descriptor).st_ino))

    def _rotate(self) -> None:
        """Rotate without a moment in which a reader finds no file."""
        draft, before = f"{self._path}.new", f"{self._path}.1"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        # Else one that failed half way has done this.
        if not (os.path.exists(before) and os.path.samefile(before, self._path)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(times_of(self._path, os.stat(before).st_ino))
            os.link(self._path, draft)
            os.replace(draft, before)
        with contextlib.ExitStack() as undo:
            descriptor = self._open(draft)
            undo.callback(os.close, descriptor)
            # Before the rename: a reader of the new file opens its times at once.
            times = self._open(times_of(self._path, os.fstat(descriptor).st_ino))
            undo.callback(os.close, times)
            os.replace(draft, self._path)
            undo.pop_all()
        for old in (self._descriptor, self._times):
            os.close(old)
        self._descriptor, self._times = descriptor, times
        self._size = self._times_size = self._last_time = 0
