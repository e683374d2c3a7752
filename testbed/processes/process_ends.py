"""Notices the ends of processes: one thread for all of them, so that a lab of many processes has few threads."""

import os
import select
import threading
from collections.abc import Callable

from testbed.processes.threads import in_background, start_when_possible


class ProcessEnds:
    """Calls back once for each process, in a new thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[str, Callable[[], None]]] = {}
        """By the descriptor of the process."""
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    def call(self, pid: int, name: str, callback: Callable[[], None]) -> None:
        """Call back when process `pid`, an unreaped child, has ended. Raises OSError."""
        descriptor = os.pidfd_open(pid)
        with self._turn:
            try:
                self._epoll.register(descriptor, select.EPOLLIN)
            except OSError:
                os.close(descriptor)
                raise
            self._callbacks[descriptor] = (name, callback)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="process ends", daemon=True)
                start_when_possible(self._thread)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                with self._turn:
                    self._epoll.unregister(descriptor)
                    name, callback = self._callbacks.pop(descriptor)
                os.close(descriptor)
                # An unnoticed end is a process that never restarts.
                in_background(name, callback)


PROCESS_ENDS = ProcessEnds()
"""The instance of this program."""
