"""A capture at points of a lab during a block of a test, as by `testbed capture`."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from testbed.control.client import LabRecord, ask
from testbed.control.questions import CAPTURE
from testbed.errors import TestbedError

BEGUN = b"capturing on "
START_LIMIT_S = 10.0
END_LIMIT_S = 10.0
LOOK_S = 0.02


class PointCapture:
    """The packets at some points: complete after the block."""

    def __init__(self, lab: LabRecord, words: Sequence[str], file: Path | None) -> None:
        self._lab = lab
        self._words = list(words)
        self.file = file
        """pcapng, if requested."""
        self._its, self._ours = os.pipe()
        self._output = os.memfd_create("testbed-capture") if file is None else _opened(file)
        self._said = os.memfd_create("testbed-capture-said")
        self._failure: TestbedError | None = None
        self._ended = threading.Event()
        self.lines: tuple[str, ...] = ()
        """A line for each packet, with its point's name; empty if a file was requested."""

    def __repr__(self) -> str:
        return f"PointCapture({' '.join(self._words)}: {self.file or f'{len(self.lines)} packets'})"

    def start(self) -> None:
        """Start capturing. Raises TestbedError if the points or the filter are invalid."""
        threading.Thread(target=self._run, daemon=True).start()
        deadline = time.monotonic() + START_LIMIT_S
        while BEGUN not in self._said_so_far():
            if self._ended.wait(LOOK_S) or time.monotonic() > deadline:
                self.stop()
                raise self._failure or TestbedError(f"capture: {self._said_so_far().decode(errors='replace').strip()}")

    def stop(self) -> None:
        """Stop the capture and read its result."""
        if self._ours < 0:
            return
        os.close(self._ours)
        self._ours = -1
        self._ended.wait(END_LIMIT_S)
        if self.file is None:
            text = os.pread(self._output, os.fstat(self._output).st_size, 0).decode(errors="replace")
            self.lines = tuple(text.splitlines())

    def close(self) -> None:
        """Close everything open."""
        self.stop()
        for descriptor in (self._its, self._output, self._said):
            os.close(descriptor)

    def _run(self) -> None:
        """Run the recorder with our pipe as its standard input: closing that ends it, with complete output."""
        try:
            arguments = {
                "words": self._words,
                "text": self.file is None,
                "raw": False,
                "count": None,
                "seconds": None,
                "replace": self.file is not None,
            }
            ask(self._lab, CAPTURE, (self._its, self._output, self._said), None, **arguments)
        except TestbedError as failure:
            self._failure = failure
        finally:
            self._ended.set()

    def _said_so_far(self) -> bytes:
        return os.pread(self._said, os.fstat(self._said).st_size, 0)


def _opened(file: Path) -> int:
    # The recorder empties it once it captures.
    return os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
