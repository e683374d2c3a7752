"""A container's log file with a size cap. Standard library only; loaded by a container's first process."""

import contextlib
import os

LOG_BYTES = 10_000_000
"""Size of a log and its predecessor together."""
LOG_BYTES_WHEN_CROWDED = 256 * 1024
ROOM_FOR_OTHERS = 512 * 1024 * 1024
"""Logs are below /run, which is memory and shared with the whole machine: half of it, or this much, is reserved."""


def is_crowded(descriptor: int) -> bool:
    """Report whether the file system of a file has little space left."""
    found = os.fstatvfs(descriptor)
    return found.f_bavail * found.f_frsize < min(found.f_blocks * found.f_frsize // 2, ROOM_FOR_OTHERS)


class CappedLog:
    """Appends to `path`; at half of the limit the file becomes `path`.1 and a new one begins.

    Together they never exceed the limit, which is lower while the file system is crowded. A full or broken disk loses
    output, never the container.
    """

    def __init__(self, path: str, limit_bytes: int) -> None:
        """Open for appending; output of earlier runs of the container counts. Raises OSError."""
        self._path = path
        self._limit = limit_bytes
        self._descriptor = self._open(path)
        self._size = os.fstat(self._descriptor).st_size

    def write(self, data: bytes) -> None:
        """Append `data`, in pieces if it exceeds the size of one file."""
        with contextlib.suppress(OSError):
            while data:
                half = self._half()
                if self._size >= half:
                    self._rotate()
                piece = data[: half - self._size]
                written = os.write(self._descriptor, piece)
                self._size += written
                data = data[written:]

    def _half(self) -> int:
        limit = min(self._limit, LOG_BYTES_WHEN_CROWDED) if is_crowded(self._descriptor) else self._limit
        return limit // 2

    def _open(self, path: str) -> int:
        # As in testbed.plain_files, which a container's first process cannot import.
        planted = os.O_NOFOLLOW | os.O_NONBLOCK
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | planted, 0o600)

    def _rotate(self) -> None:
        """Rotate without a moment in which a reader finds no file."""
        draft = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        os.link(self._path, draft)
        os.replace(draft, f"{self._path}.1")
        descriptor = self._open(draft)
        os.replace(draft, self._path)
        os.close(self._descriptor)
        self._descriptor, self._size = descriptor, 0
