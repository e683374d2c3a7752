"""Programs of clients, beside processes that containers give any name."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from testbed.control.client import start_ticks
from testbed.control.programs import run_for_client, wait_with_client
from testbed.control.server import Request
from testbed.faults import resources

NAMED = "import sys\nopen('/proc/self/comm', 'wb').write(b'\\xff) R \\xfe')\nprint(flush=True)\nsys.stdin.read()\n"


@pytest.fixture
def named() -> Iterator[int]:
    """Run a process whose name is not text; yield its id."""
    with subprocess.Popen([sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def test_a_process_whose_name_is_not_text_has_a_start_like_any_other(named: int) -> None:
    own = start_ticks(os.getpid())
    assert own is not None
    assert (start_ticks(named) or 0) >= own


def test_a_process_whose_name_is_not_text_can_be_counted(named: int) -> None:
    assert start_ticks(named) is not None
    assert resources._zombies() >= 0


@pytest.mark.usefixtures("named")
def test_a_program_is_hung_up_although_another_process_has_a_name_that_is_not_text() -> None:
    ours, its = socket.socketpair()
    program = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        with ours:
            its.close()
            program.returncode = wait_with_client(Request(ours, {}, ()), program.pid)
    finally:
        program.kill()
    assert program.returncode == 128 + signal.SIGHUP


def test_a_program_that_cannot_be_watched_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    read, write = os.pipe()
    ours, its = socket.socketpair()
    with ours, its, open(os.devnull, "r+b") as nothing:
        with monkeypatch.context() as patched:
            patched.setattr(os, "pidfd_open", refuse)
            with pytest.raises(OSError, match="Too many open files"):
                run_for_client(Request(ours, {}, (nothing.fileno(), write, nothing.fileno())), ["sleep", "60"])
        os.close(write)
        # The end of the pipe: no process has its other side any more.
        assert os.read(read, 1) == b""
    os.close(read)
