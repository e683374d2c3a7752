"""The client's side of a program in the lab: pass it our streams, or a terminal of its own and relay it."""

import contextlib
import fcntl
import os
import pty
import signal
import sys
import termios
import threading
import tty
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from testbed.control.client import LabConnection, LabRecord
from testbed.control.questions import Question
from testbed.errors import InvalidInput
from testbed.output.standard_streams import OutputFailed, write_bytes
from testbed.processes.readable import readable

if TYPE_CHECKING:
    from testbed.control.answers.lab import EndedAnswer

CHUNK = 64 * 1024
DRAIN_LIMIT_S = 2.0
END_OF_TRANSMISSION = b"\x04"


def run(lab: LabRecord, question: "Question[EndedAnswer]", *, terminal: bool, **arguments: object) -> int:
    """Run the program of `question` with standard streams; return its exit code. Raises TestbedError."""
    with LabConnection(lab) as connection:
        if not terminal:
            return _exit_code(connection, question, (0, 1, 2), arguments)
        if not os.isatty(0):
            raise InvalidInput("-t: standard input is not a terminal (leave -t out)")
        return _run_in_terminal(connection, question, arguments)


def _exit_code(
    connection: LabConnection, question: "Question[EndedAnswer]", streams: tuple[int, ...], arguments: Mapping[str, Any]
) -> int:
    for message in connection.ask(question, streams, **arguments):
        if "result" in message:
            return int(message["result"]["exit"])
    return 1


def _run_in_terminal(connection: LabConnection, question: "Question[EndedAnswer]", arguments: Mapping[str, Any]) -> int:
    """Give the program a terminal created here, and relay between it and ours until the program has ended.

    Raises TestbedError; OutputFailed, with the program ended, if standard output cannot be written.
    """
    ours, its = pty.openpty()
    _copy_size(ours)
    former_handler = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(ours))
    former_mode = termios.tcgetattr(0)
    ended_read, ended_write = os.pipe()
    failures: list[OutputFailed] = []
    relay = threading.Thread(target=_relay, args=(ours, ended_read, connection, failures), daemon=True)
    try:
        tty.setraw(0, termios.TCSADRAIN)  # keeps what was typed already
        relay.start()
        return _exit_code(connection, question, (its, its, its), arguments)
    finally:
        os.close(its)
        os.close(ended_write)
        if relay.is_alive():
            # It is not where no thread could be started; the terminal is to be given back all the same.
            relay.join(timeout=DRAIN_LIMIT_S)
        termios.tcsetattr(0, termios.TCSADRAIN, former_mode)
        signal.signal(signal.SIGWINCH, former_handler)
        os.close(ours)
        os.close(ended_read)
        if failures:
            raise failures[0]


def _relay(ours: int, ended: int, connection: LabConnection, failures: list[OutputFailed]) -> None:
    """Copy both ways; once the program has ended, show the terminal's remaining output and stop.

    Output that cannot be written ends the program, since its terminal would not be read, and is added to `failures`.
    """
    with contextlib.suppress(OSError):  # EIO: the program's side is closed
        while True:
            ready = readable([0, ours, ended])
            if ours in ready:
                data = os.read(ours, CHUNK)
                try:
                    write_bytes(data)
                except OutputFailed as failure:
                    failures.append(failure)
                    connection.shutdown()
                    return
            elif ended in ready:
                return
            if 0 in ready:
                os.write(ours, os.read(0, CHUNK) or END_OF_TRANSMISSION)


def _copy_size(target: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8)))
