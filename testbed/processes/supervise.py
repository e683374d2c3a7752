"""Long-running processes: started, watched, restarted with back-off, stopped with grace.

Nothing here polls, and a running process has no thread: its end gets one for what follows. The process is created by a
function, because each start may need fresh descriptors and arguments.
"""

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from testbed.plain_files import read_end
from testbed.processes.process_ends import PROCESS_ENDS
from testbed.processes.threads import in_background

LONGEST_LINE = 2000  # characters; a longer line is shown from its middle on
LAST_WORDS_BYTES = 64 * 1024  # a Go program's stacks of all goroutines may be longer, its panic is not found then
PANIC = re.compile(r"^(?:panic|fatal error): .+$", re.MULTILINE)
STACK_LINE = re.compile(r"\t\S+:\d+.*|\w+ +0x[0-9a-f]+")
"""In a Go program's stack: a place in its source, or a register."""
State = Literal["pending", "running", "backoff", "exited", "stopped"]


class Process(Protocol):
    """A child process, with the methods of `subprocess.Popen`."""

    pid: int

    def wait(self) -> int:
        """Wait for its end; return its exit code, or the negated signal that ended it."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal; do nothing once it has ended."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When to restart a process, and how long to wait first."""

    when: Literal["Always", "OnFailure", "Never"] = "Always"
    first_delay_s: float = 0.2
    max_delay_s: float = 10.0
    settled_after_s: float = 10.0
    """A process that ran this long is restarted with the first delay."""

    def wants_restart(self, exit_code: int) -> bool:
        """Return whether a process that ended this way is restarted."""
        return self.when == "Always" or (self.when == "OnFailure" and exit_code != 0)

    def delay_s(self, failures_in_a_row: int) -> float:
        """Return the delay in seconds before start number `failures_in_a_row` + 1; it doubles up to the maximum."""
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** max(0, min(failures_in_a_row, 30) - 1))


class Supervised:
    """One process and its successors.

    `start` creates a new process in its own session. `on_change` is called after every change of state, from the thread
    that made it; it must not call this object's `stop`.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], Process],
        policy: RestartPolicy,
        on_change: Callable[["Supervised"], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.state: State = "pending"
        self.restarts = 0
        self.exit_code: int | None = None
        """Exit code of the last process that ended; negative for a signal."""
        self.started_at: float | None = None
        """Seconds since the epoch at the last start."""
        self._start = start
        self._on_change = on_change
        self._process: Process | None = None
        self._wake = threading.Event()
        self._ended = threading.Event()
        """Set once the process is reaped; another process may reuse its id from then on."""
        self._launching = threading.Lock()
        self._stopping = False
        self._restart_asked = False
        self._held = False
        self._failures = 0
        self._over = threading.Event()
        """Set while no process runs and none will follow."""
        self._over.set()
        self._handler: threading.Thread | None = None
        """Thread that handled the end of the last process."""
        self._started_s = 0.0

    @property
    def pid(self) -> int | None:
        """Return the process id while running, in this process's PID namespace."""
        process = self._process
        return process.pid if process is not None and self.state == "running" else None

    @property
    def running_for_s(self) -> float:
        """Return how long the process has run; 0 while none does."""
        return time.monotonic() - self._started_s if self.state == "running" else 0.0

    def start(self) -> None:
        """Start it and keep it running; return once the first process exists.

        Raises OSError if it cannot be created.
        """
        self._over.clear()
        try:
            self._launch()
        except OSError:
            self._over.set()
            raise
        self._await_end()

    def restart(self, grace_s: float = 5.0) -> None:
        """End the running process (TERM, then KILL after the grace period) and restart it at once."""
        self._restart_asked = True
        self._wake.set()
        self._terminate(grace_s)

    def hold(self, grace_s: float = 5.0) -> None:
        """End the running process (TERM, then KILL after the grace period; KILL at once without one) and start no other
        until `resume`.
        """
        self._held = True
        self._wake.set()
        self._terminate(grace_s)

    def resume(self) -> None:
        """Restart it at once after `hold`; otherwise do nothing."""
        if self._held:
            self._held, self._restart_asked = False, True
            self._wake.set()

    def try_now(self) -> None:
        """Start it at once where it waits for its next try."""
        self._wake.set()

    def stop(self, grace_s: float = 5.0) -> None:
        """End it permanently: TERM, then KILL after the grace period. Safe to call twice."""
        with self._launching:
            self._stopping = True
        self._wake.set()
        self._terminate(grace_s)
        if self._handler is not threading.current_thread():
            self._over.wait(timeout=grace_s + 5.0)

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to the running process; the policy decides what follows."""
        process = self._process
        if process is not None and not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal_number)

    def _launch(self) -> None:
        with self._launching:
            # A start that `stop` does not see would outlive it.
            if self._stopping:
                return
            process = self._start()
            self._ended.clear()
            self._process = process
        self.started_at = time.time()
        self._started_s = time.monotonic()
        self._set_state("running")

    def _set_state(self, state: State) -> None:
        self.state = state
        self._on_change(self)

    def _terminate(self, grace_s: float) -> None:
        if self._process is None or self._ended.is_set():
            return
        if grace_s:
            self.kill(signal.SIGTERM)
        # Not Popen.wait with a timeout, which polls.
        if not self._ended.wait(grace_s):
            self.kill()
            self._ended.wait()

    def _await_end(self) -> None:
        process = self._process
        if process is None:
            self._finish("stopped")
            return
        name = f"after {self.name}"
        try:
            PROCESS_ENDS.call(process.pid, name, self._after_end)
        except OSError:
            # Out of descriptors: use a waiting thread instead.
            in_background(name, self._after_end)

    def _after_end(self) -> None:
        """Handle the end of the process: start the next one if the policy says so. Runs in a thread until then."""
        self._handler = threading.current_thread()
        while self._process is not None:
            self.exit_code = self._process.wait()
            self._ended.set()
            if self._stopping:
                break
            if not self._restart_asked and not self._held and not self.policy.wants_restart(self.exit_code):
                self._finish("exited")
                return
            if not self._restart_asked and not self._held:
                settled = time.monotonic() - self._started_s >= self.policy.settled_after_s
                self._failures = 1 if settled else self._failures + 1
                self._set_state("backoff")
                self._wake.wait(self.policy.delay_s(self._failures))
            self._await_resume()
            if self._stopping:
                break
            self._restart_asked = False
            self._wake.clear()
            self.restarts += 1
            if self._start_again():
                return
        self._finish("stopped")

    def _start_again(self) -> bool:
        """Start it again; return whether it runs.

        If not, some time has passed, as if it had started and failed at once.
        """
        try:
            self._launch()
            if self._held:
                # Requested while the process was being created, so that there was nothing to end.
                self.kill()
            if self._stopping:
                return False
            self._await_end()
        except OSError:
            # Out of memory, processes or descriptors.
            self._failures += 1
            self._started_s = time.monotonic()
            self._wake.wait(self.policy.delay_s(self._failures))
            return False
        return True

    def _finish(self, state: State) -> None:
        self._set_state(state)
        self._over.set()

    def _await_resume(self) -> None:
        if self._held and not self._stopping:
            self._failures = 0
            self._set_state("stopped")
        while self._held and not self._stopping:
            self._wake.wait()
            self._wake.clear()


def last_line(log: Path) -> str:
    """Return the last output of a process, to explain its end: its last line, or a Go program's panic, which precedes a
    stack.

    Empty if there is none.
    """
    try:
        text = read_end(log, LAST_WORDS_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
    return last_words(text)[-LONGEST_LINE:]


def last_words(text: str) -> str:
    """Return the last line, or the line of a Go program's panic if its stack ends the text. Pure."""
    last = text.splitlines()[-1] if text else ""
    panics = PANIC.findall(text)
    # A stack with something after it belongs to an earlier start.
    return panics[-1] if panics and STACK_LINE.fullmatch(last) else last
