"""Shows logs of containers from a time on, or each line with its time: `python -m testbed.pods.timed_log JSON`.

The lab runs it on a client's output. JSON is a TimedLogs.
"""

import contextlib
import json
import os
import re
import sys
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from testbed.pods.container_log import TIME, times_of

LINE = re.compile(rb"[^\n]*\n|[^\n]+")
LOOK_EVERY_S = 0.1
Segment = tuple[int, bytes]
"""When it was written, and output."""
TimedSource = tuple[str, list[str], int, int | None]
"""Label or nothing; the files, oldest first; the first byte of them together, and how many (None: all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedLogs:
    """What to show."""

    sources: list[TimedSource]
    lines: int | None
    since_ns: int
    """Only lines from this time on."""
    timestamps: bool
    follow: bool

    def command(self) -> list[str]:
        """Return the program that shows them."""
        return [sys.executable, "-m", "testbed.pods.timed_log", json.dumps(asdict(self))]


class TimedFile:
    """A log file that may grow."""

    def __init__(self, path: str) -> None:
        """Open it. Raises OSError."""
        with contextlib.ExitStack() as files:
            self._log = files.enter_context(open(path, "rb", buffering=0))
            self.inode = os.fstat(self._log.fileno()).st_ino
            self._times = files.enter_context(open(times_of(path, self.inode), "rb", buffering=0))
            self.close = files.pop_all().close
        self._records: list[tuple[int, int]] = []
        self._offset = 0

    def read(self) -> Iterator[Segment]:
        """Yield its output since the last call."""
        # The output first: its times are written before it.
        data = self._log.read()
        self._records += TIME.iter_unpack(self._times.read())
        end = self._offset + len(data)
        while self._offset < end:
            place = bisect_right(self._records, (self._offset, sys.maxsize))
            following = min(end, self._records[place][0]) if place < len(self._records) else end
            piece, data = data[: following - self._offset], data[following - self._offset :]
            self._offset = following
            yield self._records[place - 1][1] if place else 0, piece


def part(segments: Iterable[Segment], first_byte: int, size: int | None) -> Iterator[Segment]:
    """Yield a part of the output."""
    for written_at, data in segments:
        piece = data[first_byte : None if size is None else first_byte + size]
        first_byte = max(0, first_byte - len(data))
        size = None if size is None else size - len(piece)
        if piece:
            yield written_at, piece


class Lines:
    """Joins output to lines, each with the time of its first byte."""

    def __init__(self) -> None:
        self._begun: Segment = (0, b"")

    def add(self, segments: Iterable[Segment], *, is_end: bool) -> Iterator[Segment]:
        """Yield the lines that end in this output, or with it."""
        for written_at, data in segments:
            for piece in LINE.findall(data):
                began, text = self._begun if self._begun[1] else (written_at, b"")
                self._begun = (began, text + piece)
                if piece.endswith(b"\n"):
                    yield self._begun
                    self._begun = (0, b"")
        if is_end and self._begun[1]:
            yield self._begun


def show(asked: TimedLogs) -> Iterator[bytes]:
    """Yield the lines; without end if they are followed. Raises OSError."""
    followed: list[tuple[str, str, TimedFile, Lines]] = []
    for label, paths, first_byte, size in asked.sources:
        files, lines = [TimedFile(path) for path in paths], Lines()
        output = part((segment for file in files for segment in file.read()), first_byte, size)
        chosen = (one for one in lines.add(output, is_end=not asked.follow) if one[0] >= asked.since_ns)
        for line in deque(chosen, asked.lines):
            yield _line(label, line, asked)
        followed.append((label, paths[-1], files[-1], lines))
    while asked.follow:
        time.sleep(LOOK_EVERY_S)
        for number, (label, path, file, lines) in enumerate(followed):
            for line in lines.add(file.read(), is_end=False):
                yield _line(label, line, asked)
            if os.stat(path).st_ino != file.inode:
                for line in lines.add(file.read(), is_end=False):
                    yield _line(label, line, asked)
                file.close()
                followed[number] = (label, path, TimedFile(path), lines)


def _line(label: str, line: Segment, asked: TimedLogs) -> bytes:
    written_at, text = line
    before = f"[{label}] " if label else ""
    return f"{before}{_rfc3339(written_at)} ".encode() + text if asked.timestamps else before.encode() + text


def _rfc3339(nanoseconds: int) -> str:
    """Return a time as kubectl shows it: to the nanosecond."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def main() -> None:
    """Show what the argument asks for, until the reader leaves."""
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt, FileNotFoundError):
        for line in show(TimedLogs(**json.loads(sys.argv[1]))):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        return
    # The interpreter would flush once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
