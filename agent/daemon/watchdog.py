"""End a process in which a loop stalls, so that a supervisor restarts it.

Each watched loop reports that it is alive (`beat`); a thread counts ticks, and a loop that missed too many has stalled.
Time is counted in ticks of that thread, not by the clock: while the whole process is stopped (SIGSTOP, a suspended
machine), no loop can beat and no tick passes, so that is no stall.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping

from agent.daemon.pacing import SystemClock
from agent.daemon.service_manager import notify_service_manager

TICK_S = 1.0
EXIT_CODE = 1
LAST_WORDS_S = 1.0
"""How long the reader of standard error may take before a stalled process ends without a word."""


class Watchdog:
    """Watches the loops that have beaten at least once, from `start` on."""

    def __init__(
        self, limits_s: Mapping[str, float], end: Callable[[int], object] = os._exit, tick_s: float = TICK_S
    ) -> None:
        """Take how long each loop may stay silent, by the name of its thread; `end` gets the exit code."""
        self._limits = {name: limit_s / tick_s for name, limit_s in limits_s.items()}
        self._end = end
        self._tick_s = tick_s
        self._ticks = 0
        self._beats: dict[str, tuple[int, int | None]] = {}
        """Name → tick of the last beat, and the thread that beat."""
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to count, in a thread of its own."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop counting: loops may end."""
        self._stop.set()

    def beat(self) -> None:
        """Report that the calling thread's loop is alive; threads that are not watched may call it too."""
        thread = threading.current_thread()
        if thread.name in self._limits:
            self._beats[thread.name] = (self._ticks, thread.ident)

    def tick(self) -> bool:
        """Count one unit of time; end the process if a loop stalled. Return whether all are alive."""
        self._ticks += 1
        for name, (last, thread) in list(self._beats.items()):
            if self._ticks - last > self._limits[name]:
                silent_s = (self._ticks - last) * self._tick_s
                message = f"CRITICAL {name} loop stalled for {silent_s:g} s; exiting. Stack:\n{_stack(thread)}"
                _write_last_words(message)
                self._end(EXIT_CODE)
                return False
        return True

    def _run(self) -> None:
        notifies = "WATCHDOG_USEC" in os.environ
        while not self._stop.wait(self._tick_s):
            if self.tick() and notifies:
                notify_service_manager("WATCHDOG=1")


class WatchedClock(SystemClock):
    """A clock whose every use is a beat: loops that wait by it need not know of the watchdog."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def now(self) -> float:
        """Return seconds of CLOCK_MONOTONIC, and beat."""
        self._watchdog.beat()
        return super().now()


def _write_last_words(message: str) -> None:
    """Write to standard error; a log that nothing reads any more must not keep the process."""

    def write() -> None:
        # Not through the log: the stalled thread may hold its lock.
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), message.encode(errors="replace"))

    # In a thread: the pipe to a reader that hangs is full, and a write to it waits.
    writer = threading.Thread(target=write, name="last words", daemon=True)
    # RuntimeError: no thread can be started.
    with contextlib.suppress(RuntimeError):
        writer.start()
        writer.join(LAST_WORDS_S)


def _stack(thread: int | None) -> str:
    frame = sys._current_frames().get(thread or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else "(unknown)"
