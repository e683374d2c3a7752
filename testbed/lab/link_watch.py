"""Reports changes of links, addresses or routes of nodes: one thread for all nodes."""

import logging
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent.kernel.monitor import Monitor

SETTLE_S = 0.2
"""Changes come in bursts: check once at the end of one."""
AFTER_FAILURE_S = 1.0
"""Pause after a monitor has failed, whose descriptor may stay readable."""
log = logging.getLogger("testbed")


@dataclass(slots=True)
class _Followed:
    monitor: Monitor
    wanted: Callable[[], bool]
    on_change: Callable[[], None]
    look_at_s: float | None = None
    """On the monotonic clock; None: nothing has changed."""


class LinkWatch:
    """Follows monitors, each in the namespace in which it was created."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._followed: dict[int, _Followed] = {}
        self._turn = threading.Lock()

    def start(self) -> None:
        """Watch until the lab ends."""
        threading.Thread(target=self._run, name="links of nodes", daemon=True).start()

    def follow(self, monitor: Monitor, wanted: Callable[[], bool], on_change: Callable[[], None]) -> None:
        """Call `on_change` shortly after changes while it is `wanted`; the monitor now belongs to us."""
        with self._turn:
            self._followed[monitor.fileno()] = _Followed(monitor, wanted, on_change)
            self._epoll.register(monitor.fileno(), select.EPOLLIN)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll(self._pause_s()):
                self._note(descriptor)
            now = time.monotonic()
            with self._turn:
                due = [one for one in self._followed.values() if one.look_at_s is not None and one.look_at_s <= now]
            for one in due:
                one.look_at_s = None
                _has_changed(one.monitor)
                try:
                    one.on_change()
                except Exception:
                    # One node's failure must not end the watch over the others.
                    log.exception("links of nodes")

    def _pause_s(self) -> float | None:
        with self._turn:
            times = [one.look_at_s for one in self._followed.values() if one.look_at_s is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _note(self, descriptor: int) -> None:
        with self._turn:
            one = self._followed[descriptor]
            if not one.wanted():
                self._epoll.unregister(descriptor)
                del self._followed[descriptor]
                one.monitor.close()
                return
        # Not under the lock: it may pause.
        if _has_changed(one.monitor) and one.look_at_s is None:
            one.look_at_s = time.monotonic() + SETTLE_S


def _has_changed(monitor: Monitor) -> bool:
    """Read the monitor's changes; return whether there were any. One that fails may have read some."""
    try:
        return monitor.wait(0)
    except OSError:
        log.exception("links of nodes")
        time.sleep(AFTER_FAILURE_S)
        return True
