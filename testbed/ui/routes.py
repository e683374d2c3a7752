"""The routes of a pod or machine of the lab, read from its kernel."""

import os
from contextlib import ExitStack

from testbed.control.client import LabRecord, ask
from testbed.control.questions import EXEC
from testbed.errors import TestbedError

ANSWER_LIMIT_S = 10.0


def routes_of(record: LabRecord, name: str) -> list[str]:
    """Return the lines of `ip route`, or the reason if it cannot run."""
    with ExitStack() as open_files:
        streams = (os.open(os.devnull, os.O_RDONLY), os.memfd_create("routes"), os.memfd_create("errors"))
        for stream in streams:
            open_files.callback(os.close, stream)
        words = {"name": name, "container": None, "argv": ["ip", "route"], "tty": False}
        try:
            ask(record, EXEC, streams, ANSWER_LIMIT_S, **words)
        except TestbedError as failure:
            return [str(failure)]
        return [line for stream in streams[1:] for line in _lines(stream)]


def _lines(stream: int) -> list[str]:
    os.lseek(stream, 0, os.SEEK_SET)
    return os.read(stream, 1 << 16).decode(errors="replace").split("\n")[:-1]
