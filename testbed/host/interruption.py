"""Signals that end a command as Ctrl-C does, and can be held while a step could not be undone."""

import signal
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """SIGTERM and SIGHUP end this program as Ctrl-C does; signals that were ignored, as by nohup, stay ignored.

    Cleanup runs once: the next signal does not interrupt it.
    """

    def __init__(self) -> None:
        self._is_held = False
        self._was_asked = False
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        self._was_asked = True
        if not self._is_held:
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Hold signals back until `release`."""
        self._is_held = True

    def release(self) -> None:
        """Let signals interrupt again. Raises KeyboardInterrupt if one arrived meanwhile."""
        self._is_held = False
        if self._was_asked:
            raise KeyboardInterrupt
