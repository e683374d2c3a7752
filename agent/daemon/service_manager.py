"""Messages between a process and its service manager: SIGTERM requests a stop, READY=1 reports a start.

systemd's protocol (man 3 sd_notify), which others speak too.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Shutdown:
    """Set by SIGTERM or SIGINT; a second one ends the process at once.

    Make it in the main thread before any other thread exists, as threads inherit blocked signals. A thread of its own
    receives the signals: a handler could interrupt the main thread inside a lock that `set` needs.
    """

    def __init__(self) -> None:
        self.requested = threading.Event()
        self._wake_up: Callable[[], None] = lambda: None
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def call_on_request(self, wake_up: Callable[[], None]) -> None:
        """Call `wake_up` from another thread when a stop is requested; at once if it already was."""
        self._wake_up = wake_up
        if self.requested.is_set():
            wake_up()

    def _listen(self) -> None:
        signal.sigwait(SIGNALS)
        self.requested.set()
        self._wake_up()
        # What a shell shows for a process that the signal killed.
        os._exit(128 + signal.sigwait(SIGNALS))


def notify_service_manager(state: str) -> None:
    """Send `state`, e.g. `READY=1`, to NOTIFY_SOCKET; do nothing if it is not set, has no listener, or no descriptor is
    free.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A leading @ means the abstract namespace.
    listener = "\0" + address[1:] if address[0] == "@" else address
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
    ):
        sender.setblocking(False)
        sender.sendto(state.encode(), listener)
