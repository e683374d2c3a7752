"""Progress of slow operations: the phases of `up`, and a bar for known durations."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from testbed.output.tables import console

QUIET_S = 1.0  # between two lines about what is waited for


class Phases:
    """The phases of `up`: a spinner on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = console()
        self._spinner = self._console.status("starting") if self._console.is_terminal else None
        self._told_at = 0.0

    def __enter__(self) -> "Phases":
        if self._spinner:
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._spinner:
            self._spinner.stop()

    def show(self, phase: str, state: str, detail: str, seconds: float) -> None:
        """Show one message of the lab: a phase started, is waiting, or is done."""
        if state == "done":
            self._console.print(f"{phase:<12}{seconds:6.2f} s  {detail}", soft_wrap=True)
        elif self._spinner:
            self._spinner.update(f"{phase}: {detail}" if detail else phase)
        elif state == "waiting" and seconds >= self._told_at + QUIET_S:
            self._told_at = seconds
            self._console.print(f"{phase:<12}{seconds:6.2f} s  waiting for {detail}", soft_wrap=True)


@contextmanager
def waiting(what: str, seconds: float) -> Iterator[None]:
    """Show a bar on a terminal during an operation of known duration; nothing elsewhere."""
    if not sys.stdout.isatty():
        yield
        return
    with Progress(TextColumn(what), BarColumn(), TimeRemainingColumn(), transient=True) as bar:
        task = bar.add_task(what, total=seconds)
        ended = threading.Event()

        def advance() -> None:
            while not ended.wait(0.1):
                bar.advance(task, 0.1)

        thread = threading.Thread(target=advance, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
