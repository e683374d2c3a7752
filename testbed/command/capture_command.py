"""`testbed capture POINT… [FILTER]`: packets of any interfaces of the lab, in one timeline."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from testbed.command.command_line import FiniteRange, bare_name, lab_option, namespace_option, verbs
from testbed.control.client import LabConnection, LabRecord, NoAnswer, find_lab
from testbed.control.questions import CAPTURE
from testbed.errors import InvalidInput, TestbedError

STANDARD_OUTPUT = "-"
END_LIMIT_S = 5.0
"""Time for the recorder to write its remaining packets."""


@verbs.command()
@click.argument("words", nargs=-1, required=True, metavar="POINT… [FILTER]")
@click.option("-w", "--write", metavar="FILE", help="Write pcapng there (-: standard output) instead of lines of text.")
@click.option("-c", "--count", metavar="N", type=click.IntRange(1), help="Stop after N packets.")
@click.option("--seconds", metavar="S", type=FiniteRange(0.1), help="Stop after that time.")
@click.option("--raw", is_flag=True, help="Leave super-packets as they are instead of cutting them as on a wire.")
@namespace_option
@lab_option
def capture(
    words: tuple[str, ...],
    write: str | None,
    count: int | None,
    seconds: float | None,
    raw: bool,
    namespace: str | None,
    lab: str | None,
) -> int:
    """Capture packets at points of the lab, until Ctrl-C; each is listed or written with its point's name.

    \b
    capture nginx                        every interface of the pod
    capture node1:flannel0 node2:uplink  some interfaces
    capture all udp port 8285            everywhere, with a filter as tcpdump takes it
    capture all -w - | wireshark -k -i - -d udp.port==8285,ip
    """
    record = find_lab(lab)
    if write == STANDARD_OUTPUT and sys.stdout.isatty():
        raise InvalidInput("testbed capture -w -: standard output is a terminal (want: … | wireshark -k -i -)")
    with _output(write) as output:
        arguments: dict[str, object] = {
            "words": [bare_name(word) for word in words],
            "namespace": namespace,
            "text": write is None,
            "raw": raw,
            "count": count,
            "seconds": seconds,
            "replace": write not in (None, STANDARD_OUTPUT),
        }
        return _run(record, output, arguments)


@contextmanager
def _output(write: str | None) -> Iterator[int]:
    if write is None or write == STANDARD_OUTPUT:
        yield 1
        return
    try:
        # The recorder empties it once it captures: a typo must not cost an earlier capture.
        opened = os.open(write, os.O_WRONLY | os.O_CREAT, 0o644)
    except OSError as failure:
        raise InvalidInput(f"testbed capture -w {write}: {failure.strerror}") from failure
    try:
        yield opened
    finally:
        os.close(opened)


def _run(record: LabRecord, output: int, arguments: dict[str, object]) -> int:
    """Run the recorder with our pipe as its standard input: closing that ends it, with complete output."""
    its, ours = os.pipe()
    outcome: list[int | TestbedError] = []
    ended = threading.Event()

    def ask() -> None:
        try:
            with LabConnection(record) as connection:
                for message in connection.ask(CAPTURE, (its, output, 2), **arguments):
                    outcome.extend([int(message["result"]["exit"])] if "result" in message else [])
        except TestbedError as failure:
            outcome.append(failure)
        finally:
            ended.set()

    threading.Thread(target=ask, daemon=True).start()
    try:
        ended.wait()
    except KeyboardInterrupt:
        os.close(ours)
        ours = -1
        ended.wait(END_LIMIT_S)
    finally:
        os.close(its)
        if ours >= 0:
            os.close(ours)
    if not ended.is_set():
        raise NoAnswer(f"capture: the lab has not ended it after {END_LIMIT_S:g} s")
    said = outcome[0] if outcome else 1
    if isinstance(said, TestbedError):
        raise said
    return said
