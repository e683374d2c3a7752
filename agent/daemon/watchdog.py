"""Ends a process of which a loop stands still, so that a supervisor starts it again.

Each watched loop says that it is alive (`beat`); a thread counts ticks, and a loop that missed too many is hung. Time
is counted in ticks of that thread, not by the clock: while the whole process was stopped (SIGSTOP, a suspended machine)
nobody could beat and nobody ticked, so that is no hang.
"""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping

from agent.daemon.pacing import SystemClock
from agent.daemon.service_manager import notify_service_manager

TICK_S = 1.0
EXIT_CODE = 1


class Watchdog:
    """Watches the loops that have beaten at least once; `start` begins to count."""

    def __init__(
        self, limits_s: Mapping[str, float], end: Callable[[int], object] = os._exit, tick_s: float = TICK_S
    ) -> None:
        """`limits_s`: for each loop, by the name of its thread, how long it may stay silent."""
        self._limits = {name: limit_s / tick_s for name, limit_s in limits_s.items()}
        self._end = end
        self._tick_s = tick_s
        self._ticks = 0
        self._beats: dict[str, tuple[int, int | None]] = {}
        """Name → tick of the last beat, and the thread that beat."""
        self._stop = threading.Event()

    def start(self) -> None:
        """Count from now on, in a thread of its own."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Count no more: loops may end."""
        self._stop.set()

    def beat(self) -> None:
        """The calling thread's loop is alive; other threads than the watched ones may call it too."""
        thread = threading.current_thread()
        if thread.name in self._limits:
            self._beats[thread.name] = (self._ticks, thread.ident)

    def tick(self) -> bool:
        """One unit of time has passed; ends the process when a loop hangs. Whether all are alive."""
        self._ticks += 1
        for name, (last, thread) in list(self._beats.items()):
            if self._ticks - last > self._limits[name]:
                silent_s = (self._ticks - last) * self._tick_s
                told = (
                    f"CRITICAL the {name} loop has stood still for {silent_s:g} s, ending for a new start; it is at\n"
                )
                # Not through the log: who hangs may hold its lock.
                os.write(sys.stderr.fileno(), (told + _stack(thread)).encode(errors="replace"))
                self._end(EXIT_CODE)
                return False
        return True

    def _run(self) -> None:
        asked_for_signs = "WATCHDOG_USEC" in os.environ
        while not self._stop.wait(self._tick_s):
            if self.tick() and asked_for_signs:
                notify_service_manager("WATCHDOG=1")


class WatchedClock(SystemClock):
    """A clock whose every use is a sign of life: loops that wait by it need not know of the watchdog."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def now(self) -> float:
        """Seconds of CLOCK_MONOTONIC."""
        self._watchdog.beat()
        return super().now()


def _stack(thread: int | None) -> str:
    frame = sys._current_frames().get(thread or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "(its stack is not known)"
