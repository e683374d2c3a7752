"""SIGTERM and SIGINT: the first asks the agent to stop, a second ends it at once."""

import os
import signal
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Set by a signal; made in the main thread before any other thread exists, as threads inherit what they block.

    A thread of its own takes the signals: a handler could interrupt the main thread inside a lock that `set` needs.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._wake_up: Callable[[], None] = lambda: None
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def call_on_request(self, wake_up: Callable[[], None]) -> None:
        """Call `wake_up` (from another thread) when a stop is asked for; at once if it was already."""
        self._wake_up = wake_up
        if self.requested.is_set():
            wake_up()

    def _listen(self) -> None:
        signal.sigwait(SIGNALS)
        self.requested.set()
        self._wake_up()
        # What a shell shows for a process that the signal killed.
        os._exit(128 + signal.sigwait(SIGNALS))
