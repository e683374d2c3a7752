"""A size-limited file of JSON lines that several processes append to.

A full file is rotated to FILE.1, FILE.2, … Of these the first, with the start of everything, and the newest are kept;
so there are at most three files.
"""

import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

PIECE_BYTES = 2_000_000
Opener = Callable[[str, int], int]
"""As for the built-in `open`."""


def open_to_append(path: str, flags: int) -> int:
    """Open a file, creating it if necessary; links are not followed, and a FIFO does not block. Raises OSError."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def append(
    path: Path, entry: Mapping[str, object], opener: Opener = open_to_append, piece_bytes: int = PIECE_BYTES
) -> None:
    """Write one line, in one call. Raises OSError."""
    file = opener(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(file, json.dumps(entry).encode() + b"\n")
        if os.lseek(file, 0, os.SEEK_CUR) >= piece_bytes:
            _begin_another(path, file)
    finally:
        os.close(file)


def pieces(path: Path) -> list[Path]:
    """Return its existing files, the oldest first."""
    return [*(path.with_name(f"{path.name}.{number}") for number in _numbers(path)), *([path] if path.exists() else [])]


def is_complete(path: Path) -> bool:
    """Report whether no line has been discarded."""
    return max(_numbers(path), default=0) <= 2


def _numbers(path: Path) -> list[int]:
    endings = (file.name.removeprefix(f"{path.name}.") for file in path.parent.glob(f"{path.name}.*"))
    return sorted(int(ending) for ending in endings if ending.isdecimal())


def _begin_another(path: Path, file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_EX)
    # Another process may have rotated it first.
    if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file)):
        return
    numbers = _numbers(path)
    last = max(numbers, default=0)
    path.replace(path.with_name(f"{path.name}.{last + 1}"))
    if last > 1:
        path.with_name(f"{path.name}.{last}").unlink(missing_ok=True)
