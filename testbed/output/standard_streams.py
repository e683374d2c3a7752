"""Standard streams: failed output is an error in one line, and characters missing in the locale are not."""

import contextlib
import io
import os
import select
import sys
from typing import Any, TextIO

from testbed.errors import TestbedError

STDIN, STDOUT, STDERR = 0, 1, 2
"""Open from the start (testbed/__main__.py)."""
LEAST_WIDTH = 40
"""Columns; a terminal that reports fewer is treated as this wide."""


class OutputFailed(TestbedError):
    """Standard output cannot be written; the message is empty if its reader is gone."""


def take() -> None:
    """Make `sys.stdout` and `sys.stderr` write as described above."""
    if sys.stdin is None:
        sys.stdin = open(STDIN, closefd=False)  # noqa: SIM115 - as long as the program
    sys.stdout = _text(_Output(STDOUT, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Complaints(STDERR, "w", closefd=False), sys.stderr)


def finish() -> None:
    """Write pending output; Python would do so at exit, and complain if it fails."""
    try:
        sys.stdout.flush()
    except OutputFailed:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def write_bytes(data: bytes) -> None:
    """Write bytes of another program at once, besides `sys.stdout`. Raises OutputFailed."""
    output = _Output(STDOUT, "w", closefd=False)
    while data:
        data = data[output.write(data) :]


def screen_width() -> int:
    """Return the columns of standard output; a pipe has room for any line."""
    # Every verb loads this file.
    import shutil

    return max(LEAST_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else sys.maxsize


class _Output(io.FileIO):
    """A descriptor whose failures raise OutputFailed."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - bytes of any kind
        try:
            while (written := super().write(data)) is None:
                # The caller made the descriptor non-blocking, and its reader is slow.
                poll = select.poll()
                poll.register(self, select.POLLOUT)
                poll.poll()
        except BrokenPipeError as gone:
            raise OutputFailed("") from gone
        except OSError as failure:
            raise OutputFailed(f"standard output: cannot be written ({failure.strerror})") from failure
        return written


class _Complaints(io.FileIO):
    """Standard error: if it cannot be written, there is nowhere to report that."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - bytes of any kind
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _text(raw: io.FileIO, former: TextIO | None) -> TextIO:
    encoding = former.encoding if former is not None else "utf-8"
    errors = former.errors if former is not None else None
    # A locale without one of our characters, like the arrow of a trace, must not prevent output.
    errors = "backslashreplace" if errors in (None, "strict") else errors
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=True)
