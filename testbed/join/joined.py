"""A machine's agent in the foreground: start it, watch until it is ready, and wait for its end."""

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any

from agent.options.options import Options
from testbed.join.flags import health_host, with_defaults

POLL_S = 0.1
ANSWER_LIMIT_S = 2.0
END_LIMIT_S = 15.0
"""An agent exits sooner by itself; it has its own limits for etcd."""


class JoinedMachine:
    """One agent as our child: whatever stops us stops it. Use as a context manager."""

    def __init__(self, flags: Sequence[str], options: Options, environ: Mapping[str, str]) -> None:
        self._options = options
        # -P: a file in the current directory must not stand in for a module.
        self._process = subprocess.Popen([sys.executable, "-P", "-m", "agent", *with_defaults(flags, environ)])
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._pass_on)

    def __enter__(self) -> "JoinedMachine":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def await_ready(self, waiting: Callable[[str], None]) -> Mapping[str, Any] | None:
        """Return the agent's /state once it is ready; None if it ended first.

        `waiting` gets what is still missing, each time that changes.
        """
        reported = ""
        while self._process.poll() is None:
            state = self._state()
            if state is not None and state["ready"]:
                return state
            missing = "; ".join(state["why_not_ready"]) if state is not None else ""
            if missing and missing != reported:
                waiting(missing)
                reported = missing
            time.sleep(POLL_S)
        return None

    def wait(self) -> int:
        """Wait until it ends by a signal to it or to us; return its exit code."""
        while True:
            try:
                return self._process.wait()
            except KeyboardInterrupt:
                # The terminal has signalled the agent too.
                continue

    def _state(self) -> Mapping[str, Any] | None:
        options = self._options
        connection = http.client.HTTPConnection(health_host(options), options.healthz_port or 0, timeout=ANSWER_LIMIT_S)
        try:
            connection.request("GET", "/state")
            state: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return state

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._process.send_signal(number)
