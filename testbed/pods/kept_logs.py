"""The end of recently deleted pods' logs, to find out why they ended."""

import contextlib
import shutil
import time
from pathlib import Path

from testbed.plain_files import read_end, replace_plain

LIVING, DELETED = "pods", "deleted"
"""Directories below a lab's logs: one for each existing pod, one for each recently deleted one."""
PAUSE_LOG = "pause.log"
PODS = 50
END_BYTES = 16 * 1024
"""Of each log."""


def keep_end(logs: Path, pod: str) -> None:
    """Keep the end of a deleted pod's logs, and delete the oldest kept ones. Twice is harmless."""
    began = time.time_ns()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(began // 10**9))
    kept = logs / DELETED / f"{stamp}.{began % 10**9:09d}-{pod}"
    with contextlib.suppress(OSError):
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        (logs / LIVING / pod).rename(kept)
        for log in kept.glob("*.log"):
            _shorten(log)
        # They are those of the whole logs.
        for times in kept.glob("*.times"):
            times.unlink()
    for old in sorted(kept.parent.glob("*"))[:-PODS]:
        shutil.rmtree(old, ignore_errors=True)
    # If they cannot be kept they are deleted anyway: the next pod of that name starts its own.
    shutil.rmtree(logs / LIVING / pod, ignore_errors=True)


def log_of_deleted(logs: Path, pod: str, container: str | None) -> Path | None:
    """Return the end of a container's log (None: any) of the last deleted pod of that name."""
    directories = [kept for kept in (logs / DELETED).glob("*") if kept.name.partition("-")[2] == pod]
    if not directories:
        return None
    found = sorted(max(directories).glob(f"{container or '*'}.log"), key=lambda log: (log.name == PAUSE_LOG, log.name))
    return found[0] if found else None


def _shorten(log: Path) -> None:
    """Keep only its last bytes, of which the first may be in its predecessor."""
    before = log.with_name(f"{log.name}.1")
    text = b"".join(_end(file) for file in (before, log))[-END_BYTES:]
    before.unlink(missing_ok=True)
    replace_plain(log, text)


def _end(file: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return read_end(file, END_BYTES)
    return b""
