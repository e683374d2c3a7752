"""Datagrams that a program sends all the time from one port, and who answers them."""

import json
import subprocess
import threading
import time
from types import TracebackType
from typing import Self

from tests.e2e.command import ELSEWHERE, TESTBED, environment_with
from tests.e2e.lab import Lab
from tests.waiting import wait_until

EVERY_S = 0.02
WITHIN_S = 1.0
"""How soon a sender is answered once its way is programmed."""

# Standard library only, because it runs in a container. It ends with its standard input. A line per answer: when it
# came and what it says; a line without says that one more datagram was sent.
SENDER = """
import json, select, socket, sys, time

host, port, own, every_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    sender.bind(("", own))
    sender.setblocking(False)
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
        due = max(due + every_s, time.monotonic() - 0.1)
        try:
            sender.sendto(b"hostname", (host, port))
        except OSError:
            pass
        print(json.dumps([time.time(), None]), flush=True)
        try:
            while True:
                print(json.dumps([time.time(), sender.recv(65535).decode().strip()]), flush=True)
        except OSError:
            pass
"""


class SteadySender:
    """Sends from one port of a pod or node from `with` on, until its end."""

    def __init__(self, lab: Lab, source: str, host: str, port: int, own: int, every_s: float = EVERY_S) -> None:
        self.name = f"{source}:{own} to {host}:{port}"
        program = ["python3", "-c", SENDER, host, str(port), str(own), str(every_s)]
        self._command = [*TESTBED, "exec", "-i", source, "--", *program]
        self._environment = environment_with(lab.environment)
        self._lines: list[tuple[float, str | None]] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ELSEWHERE, env=self._environment
        )
        self._reader = threading.Thread(target=self._read, name=self.name)
        self._reader.start()
        wait_until(lambda: self.sent() > 2, timeout_s=10, what=f"{self.name}: it sends")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._reader.join()
            self._process.__exit__(None, None, None)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            at, text = json.loads(line)
            self._lines.append((at, text))

    def sent(self, since: float = 0.0) -> int:
        """Return how many datagrams it sent after a moment (of time.time)."""
        return sum(text is None and at > since for at, text in self._lines)

    def answers(self, since: float = 0.0) -> list[str]:
        """Return who answered after a moment, in order."""
        return [text for at, text in self._lines if text is not None and at > since]

    def is_answered_by(self, *pods: str, since: float, within_s: float = WITHIN_S) -> None:
        """Check that one of these pods answers soon after a moment."""
        left = since + within_s - time.time()
        what = f"{self.name} is answered by {' or '.join(pods)}"
        wait_until(lambda: set(pods) & set(self.answers(since)), timeout_s=max(0.0, left), what=what)

    def is_not_answered(self, datagrams: int = 15) -> None:
        """Check that so many datagrams get no answer."""
        since = time.time()
        wait_until(lambda: self.sent(since) > datagrams, timeout_s=10, what=f"{self.name}: it sends")
        assert self.answers(since) == [], self.name
