"""Long-running processes: started, watched, restarted with back-off, stopped with grace.

One thread per process waits for its end, so nothing here polls. What to start is a function, because each start
may need fresh descriptors and arguments.
"""

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LAST_LINE_LIMIT = 2000  # bytes; a line longer than this is shown from its middle on
State = Literal["pending", "running", "backoff", "exited", "stopped"]


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When to start a process again, and how long to wait first."""

    when: Literal["Always", "OnFailure", "Never"] = "Always"
    first_delay_s: float = 0.2
    max_delay_s: float = 10.0
    settled_after_s: float = 10.0
    """A process that ran this long starts again with the first delay."""

    def wants_restart(self, exit_code: int) -> bool:
        """Whether a process that ended so is started again."""
        return self.when == "Always" or (self.when == "OnFailure" and exit_code != 0)

    def delay_s(self, failures_in_a_row: int) -> float:
        """Seconds to wait before start number `failures_in_a_row` + 1; doubles up to the maximum."""
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** max(0, min(failures_in_a_row, 30) - 1))


class Supervised:
    """One process and its successors.

    `start` makes a new process in a session of its own. `on_change` is called from the watching thread after every
    change of state; it must not call back into this object's `stop`.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], subprocess.Popen[bytes]],
        policy: RestartPolicy,
        on_change: Callable[["Supervised"], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.state: State = "pending"
        self.restarts = 0
        self.exit_code: int | None = None
        """Of the last process that ended; negative for a signal."""
        self.started_at: float | None = None
        """Seconds since the epoch at the last start."""
        self._start = start
        self._on_change = on_change
        self._process: subprocess.Popen[bytes] | None = None
        self._wake = threading.Event()
        self._ended = threading.Event()
        """Set once the process is reaped; its number may belong to another process from then on."""
        self._launching = threading.Lock()
        self._stopping = False
        self._restart_asked = False
        self._held = False
        self._failures = 0
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Process id while running, as this process sees it."""
        process = self._process
        return process.pid if process is not None and self.state == "running" else None

    def start(self) -> None:
        """Start it and keep it going; returns once the first process exists. Raises OSError when it cannot be made."""
        self._launch()
        self._thread = threading.Thread(target=self._watch, name=f"watch {self.name}", daemon=True)
        self._thread.start()

    def restart(self, grace_s: float = 5.0) -> None:
        """End the running process (TERM, then KILL after the grace) and start it again at once."""
        self._restart_asked = True
        self._wake.set()
        self._terminate(grace_s)

    def hold(self, grace_s: float = 5.0) -> None:
        """End the running process (TERM, then KILL after the grace; KILL at once without one) and start no other
        until `resume`."""
        self._held = True
        self._wake.set()
        self._terminate(grace_s)

    def resume(self) -> None:
        """Start it again at once after `hold`; without one nothing happens."""
        if self._held:
            self._held, self._restart_asked = False, True
            self._wake.set()

    def stop(self, grace_s: float = 5.0) -> None:
        """End it for good: TERM, then KILL after the grace. Safe to call twice."""
        with self._launching:
            self._stopping = True
        self._wake.set()
        self._terminate(grace_s)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=grace_s + 5.0)

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to the running process; the policy decides what follows."""
        process = self._process
        if process is not None and not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal_number)

    def _launch(self) -> None:
        with self._launching:
            # A start that `stop` cannot see would outlive it.
            if self._stopping:
                return
            process = self._start()
            self._ended.clear()
            self._process = process
        self.started_at = time.time()
        self._set_state("running")

    def _set_state(self, state: State) -> None:
        self.state = state
        self._on_change(self)

    def _terminate(self, grace_s: float) -> None:
        if self._process is None or self._ended.is_set():
            return
        if grace_s:
            self.kill(signal.SIGTERM)
        # Not Popen.wait with a timeout: while the watching thread waits, that polls.
        if not self._ended.wait(grace_s):
            self.kill()
            self._ended.wait()

    def _watch(self) -> None:
        while self._process is not None:
            started = time.monotonic()
            self.exit_code = self._process.wait()
            self._ended.set()
            if self._stopping:
                break
            if not self._restart_asked and not self._held and not self.policy.wants_restart(self.exit_code):
                self._set_state("exited")
                return
            if not self._restart_asked and not self._held:
                settled = time.monotonic() - started >= self.policy.settled_after_s
                self._failures = 1 if settled else self._failures + 1
                self._set_state("backoff")
                self._wake.wait(self.policy.delay_s(self._failures))
            self._await_resume()
            if self._stopping:
                break
            self._restart_asked = False
            self._wake.clear()
            self.restarts += 1
            try:
                self._launch()
                if self._held:
                    # Asked for while the process was being made, so that there was nothing to end.
                    self.kill()
            except OSError:
                # Out of memory or processes: as if it had started and failed at once.
                self._failures += 1
                self._wake.wait(self.policy.delay_s(self._failures))
        self._set_state("stopped")

    def _await_resume(self) -> None:
        if self._held and not self._stopping:
            self._failures = 0
            self._set_state("stopped")
        while self._held and not self._stopping:
            self._wake.wait()
            self._wake.clear()


def last_line(log: Path) -> str:
    """The last line that a process wrote, for saying why it ended; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_LINE_LIMIT))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
