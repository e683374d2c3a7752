"""A program of a lab in a terminal, with a real one on our side."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.control.client import start_ticks
from testbed.control.programs import run_for_client
from testbed.control.questions import EXEC
from testbed.control.server import ControlServer, Verb
from testbed.control.wire import CONTROL_SOCKET

LIMIT_S = 100
LINES = 200_000
FAILED = 42
CLIENT = f"""
import os, sys
from pathlib import Path
from testbed.control.client import LabRecord
from testbed.control.questions import EXEC
from testbed.output import standard_streams, terminal
record = LabRecord("one", int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), os.getuid())
try:
    sys.exit(terminal.run(record, EXEC, terminal=True))
except standard_streams.OutputFailed as failure:
    sys.stderr.write(str(failure))
    sys.exit({FAILED})
"""
"""A verb whose standard input is a terminal."""
WITHOUT_THREADS = """
import threading

def refuse(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """Serve EXEC with a program that writes many lines; return the directory of the socket."""
    program = Verb(EXEC, lambda request: run_for_client(request, ["seq", str(LINES)], take_terminal=True))
    ControlServer(tmp_path / CONTROL_SOCKET, [program], os.getuid()).start()
    return tmp_path


@pytest.fixture
def screen() -> Iterator[int]:
    """Yield the user's terminal; what it echoes is not read."""
    ours, its = pty.openpty()
    yield its
    os.close(ours)
    os.close(its)


def _client(
    lab: Path,
    screen: int,
    program: str = CLIENT,
    **streams: Any,  # noqa: ANN401 - of Popen
) -> "subprocess.Popen[bytes]":
    numbers = (str(os.getpid()), str(start_ticks(os.getpid())))
    limit = ["timeout", "--foreground", str(LIMIT_S)]
    command = [*limit, sys.executable, "-c", program, *numbers, str(lab)]
    return subprocess.Popen(command, stdin=screen, stderr=subprocess.PIPE, **streams)


def _wait(client: "subprocess.Popen[bytes]") -> tuple[int, bytes]:
    _, said = client.communicate()
    return client.returncode, said


def test_a_reader_that_leaves_ends_the_program_and_gives_the_terminal_back(lab: Path, screen: int) -> None:
    before = termios.tcgetattr(screen)
    client = _client(lab, screen, stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert os.read(client.stdout.fileno(), 1) == b"1"
    client.stdout.close()
    client.stdout = None
    assert _wait(client) == (FAILED, b"")
    assert termios.tcgetattr(screen) == before


def test_output_that_cannot_be_written_is_an_error_with_its_reason(lab: Path, screen: int) -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = _wait(_client(lab, screen, stdout=full))
    assert (code, said) == (FAILED, b"standard output: cannot be written (No space left on device)")


def test_a_slow_reader_gets_every_line_also_through_a_descriptor_that_does_not_block(lab: Path, screen: int) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    client = _client(lab, screen, stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        got = lines.read().split()
    assert _wait(client) == (0, b"")
    assert got == [str(number).encode() for number in range(1, LINES + 1)]


def test_a_client_that_can_start_no_thread_gives_the_terminal_back(lab: Path, screen: int) -> None:
    before = termios.tcgetattr(screen)
    code, said = _wait(_client(lab, screen, WITHOUT_THREADS + CLIENT, stdout=subprocess.DEVNULL))
    assert (code, b"can't start new thread" in said) == (1, True)
    assert termios.tcgetattr(screen) == before
