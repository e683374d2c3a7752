"""Runs the product as a user does: its command line in a process of its own, on pipes or in a terminal."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, Any

import pytest

TESTBED = (sys.executable, "-m", "testbed")
NOT_THE_PRODUCTS = frozenset({"TESTBED_LAB", "SUDO_UID", "SUDO_GID", "SUDO_USER", "NO_COLOR", "FORCE_COLOR"})
COMMAND_LIMIT_S = 100.0
TERMINAL_LIMIT_S = 40.0
SIZE = (24, 80)
"""Lines and columns of a terminal."""
ELSEWHERE = "/"
"""The product must not depend on where it is called."""

Environment = Mapping[str, str]
NOTHING: Environment = MappingProxyType({})
Stream = int | IO[bytes] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said and how it ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """Return its standard output, parsed."""
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"testbed {' '.join(self.words)}\nexit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"


def environment_with(extra: Environment) -> dict[str, str]:
    """Return our environment without variables that change the product's behaviour, plus `extra`."""
    return {name: value for name, value in os.environ.items() if name not in NOT_THE_PRODUCTS} | dict(extra)


def run_verb(
    *words: str,
    stdin: str = "",
    extra: Environment = NOTHING,
    prefix: Sequence[str] = (),
    limit_s: float = COMMAND_LIMIT_S,
) -> Answer:
    """Run a verb to its end. `prefix` is put before the command, e.g. to become another user."""
    done = subprocess.run(
        [*prefix, *TESTBED, *words],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ELSEWHERE,
        env=environment_with(extra),
        timeout=limit_s,
        check=False,
    )
    return Answer(words, done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def running(
    *words: str, stdout: Stream = subprocess.PIPE, stderr: Stream = subprocess.PIPE, extra: Environment = NOTHING
) -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a verb that runs meanwhile; it is told to end afterwards."""
    process = subprocess.Popen(
        [*TESTBED, *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=ELSEWHERE,
        env=environment_with(extra),
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(TERMINAL_LIMIT_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def read_until(stream: IO[bytes] | None, pattern: str, *, timeout_s: float = TERMINAL_LIMIT_S) -> str:
    """Read a pipe until `pattern` has appeared; returns everything that was read."""
    assert stream is not None
    text, deadline = "", time.monotonic() + timeout_s
    while not re.search(pattern, text):
        if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            pytest.fail(f"not within {timeout_s:g} s: output that matches {pattern!r} (last seen: {text!r})")
        data = os.read(stream.fileno(), 65536)
        if not data:
            pytest.fail(f"ended without output that matches {pattern!r} (last seen: {text!r})")
        text += data.decode(errors="replace")
    return text


class Terminal:
    """A verb in a terminal of its own, driven as by hand."""

    def __init__(self, *words: str, extra: Environment = NOTHING, program: Sequence[str] = TESTBED) -> None:
        self._ours, its = pty.openpty()
        termios.tcsetwinsize(its, SIZE)
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *program, *words],
            stdin=its,
            stdout=its,
            stderr=its,
            cwd=ELSEWHERE,
            env=environment_with(extra) | {"TERM": "xterm"},
        )
        os.close(its)
        self._unread = ""
        self.seen = ""

    def type(self, text: str) -> None:
        """Press keys; "\\r" is Enter, "\\x03" is Ctrl-C."""
        self.press(text.encode())

    def press(self, keys: bytes) -> None:
        """Send bytes, which need not be text."""
        os.write(self._ours, keys)

    def expect(self, pattern: str, *, timeout_s: float = TERMINAL_LIMIT_S) -> "re.Match[str]":
        """Wait until `pattern` appears after what was expected before."""
        deadline = time.monotonic() + timeout_s
        while (found := re.search(pattern, self._unread)) is None:
            if not self._read(deadline - time.monotonic()):
                pytest.fail(f"not within {timeout_s:g} s on the terminal: {pattern!r} (last seen: {self.seen!r})")
        self._unread = self._unread[found.end() :]
        return found

    def end(self, *, timeout_s: float = TERMINAL_LIMIT_S) -> int:
        """Wait for the verb's end; returns its exit code."""
        deadline = time.monotonic() + timeout_s
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                pytest.fail(f"still running after {timeout_s:g} s (last seen: {self.seen!r})")
            self._read(0.05)
        return self._process.returncode

    def close(self) -> None:
        """End the verb as a terminal does that is closed: with SIGHUP."""
        self._process.send_signal(signal.SIGHUP)
        self._process.wait(TERMINAL_LIMIT_S)

    def _read(self, limit_s: float) -> bool:
        """Take what is there; False when nothing came or nothing can come any more."""
        if not select.select([self._ours], [], [], max(0.0, limit_s))[0]:
            return False
        try:
            text = os.read(self._ours, 65536).decode(errors="replace")
        except OSError:  # EIO: nobody has the other side open any more
            time.sleep(0.01)
            return False
        self.seen += text
        self._unread += text
        return True

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)
