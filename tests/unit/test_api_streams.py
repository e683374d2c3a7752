"""Streams of programs that the API server runs in the lab."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from testbed.api import streams
from testbed.api.streams import start_exec
from testbed.cluster.object_key import ObjectKey
from testbed.control.client import LabRecord
from testbed.errors import TestbedError


class _Connection:
    """A connection to a lab, and whether it is closed."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("lacking", ["descriptors", "threads"])
def test_a_program_that_cannot_be_started_leaves_nothing_open(
    lacking: str, terminal: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe, made = os.pipe, list[tuple[int, int]]()

    def last_pipe() -> tuple[int, int]:
        if len(made) == 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(pipe())
        return made[-1]

    def refuse(*_: object) -> Any:  # noqa: ANN401 - never returns
        if lacking == "threads":
            raise RuntimeError("can't start new thread")
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def start() -> int:
        before = _open_descriptors()
        with monkeypatch.context() as patch:
            if lacking == "threads":
                patch.setattr("threading.Thread.start", refuse)
            else:
                patch.setattr("os.pipe", last_pipe)
                patch.setattr("pty.openpty", refuse)
            with pytest.raises((OSError, TestbedError)):
                start_exec(
                    LabRecord("one", 0, 0, tmp_path, 0), ObjectKey("default", "web"), None, ["id"], terminal=terminal
                )
        return _open_descriptors() - before

    connection = _Connection()
    monkeypatch.setattr(streams, "LabConnection", lambda _record: connection)
    assert asyncio.run(start()) == 0
    assert connection.closed
