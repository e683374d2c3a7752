"""The capturing program: one process inside the lab, one socket per namespace, all output on standard output.

    python -m testbed.capture.recorder PLAN          PLAN is a `CapturePlan` as JSON

It ends, with complete output, when its standard input ends: the client holds that open, so the recorder always ends
with it. Packets are written in the order of their time stamps, although each socket has its own queue.
"""

import contextlib
import heapq
import itertools
import os
import select
import signal
import socket
import stat
import sys
import time

from testbed.capture.lines import line
from testbed.capture.packet_socket import ETHERNET_HEADER, PacketSocket, SeenFrame, await_stamps
from testbed.capture.packet_socket import OUTGOING as OUT
from testbed.capture.pcapng import LINKTYPE_ETHERNET, LINKTYPE_RAW, interface, packet, section_header, statistics
from testbed.capture.plan import LOOPBACK, CapturePlan, CapturePoint, kernel_filter
from testbed.capture.segments import cut
from testbed.processes.namespaces import CLONE_NEWNET, enter
from testbed.spelling import listed

SETTLE_NS = 50_000_000
"""How long a packet waits for earlier ones from other sockets."""
IDLE_MS = 20
AT_ONCE = 256
"""Frames read from one socket before the next one's turn."""
FLUSH_BYTES = 256 * 1024

Waiting = tuple[int, int, CapturePoint, SeenFrame]
"""Time stamp, order of arrival, where, what."""


class Recorder:
    """See the module."""

    def __init__(self, plan: CapturePlan, output: int) -> None:
        self._plan, self._output = plan, output
        self._sockets: dict[int, tuple[CapturePoint, PacketSocket]] = {}
        self._there: dict[str, list[str]] = {}
        """Wanted interfaces that existed at the start, by place."""
        self._missing: list[str] = []
        self._lost: dict[str, int] = {}
        self._waiting: list[Waiting] = []
        self._arrivals = itertools.count()
        self._numbers: dict[str, int] = {}
        """Numbers of interfaces in the file, by their point's name."""
        self._places: dict[str, str] = {}
        """Their places: a switch's port is a point of its switch, in the lab's namespace."""
        self._received: dict[str, int] = {}
        self._buffer = bytearray()
        self._written = 0
        self._until_s = None if plan.seconds is None else time.monotonic() + plan.seconds

    def open(self) -> list[str]:
        """Open every socket; return a line for each place that cannot be captured in."""
        problems = []
        for listening in self._plan.listening:
            try:
                if listening.pid is not None:
                    enter(listening.pid, CLONE_NEWNET)
                opened = PacketSocket()
                there = socket.if_nameindex()
                self._missing += _missing(listening, [name for _, name in there])
                unwanted = [index for index, name in there if not listening.wants(name)]
                opened.listen(kernel_filter(self._plan, unwanted))
                self._sockets[opened.fileno()] = (listening, opened)
                self._there[listening.place] = [name for _, name in there if listening.wants(name)]
            except OSError as failure:
                problems.append(f"{listening.place}: {failure.strerror or failure}")
        await_stamps()
        return problems

    @property
    def interfaces(self) -> int:
        """Return how many wanted interfaces existed at the start."""
        return sum(map(len, self._there.values()))

    def missing(self) -> list[str]:
        """Return a line for each wanted interface that did not exist at the start: it may appear later,
        or be a typo.
        """
        return self._missing

    def run(self, until_readable: int) -> None:
        """Record until the descriptor `until_readable` is readable, or the plan's limits are reached."""
        if not self._plan.text:
            self._buffer += section_header()
            self._declare_all()
        poll = select.poll()
        for descriptor in (*self._sockets, until_readable):
            poll.register(descriptor, select.POLLIN)
        ended = False
        while not ended and not self._is_over():
            # Before the sockets are read: what one of them received since then may be earlier than another's.
            settled_ns = time.time_ns() - SETTLE_NS
            ready = {descriptor for descriptor, _ in poll.poll(IDLE_MS)}
            ended = until_readable in ready
            for descriptor in ready & self._sockets.keys():
                self._take(*self._sockets[descriptor])
            self._write_settled(settled_ns)
            if len(self._buffer) > FLUSH_BYTES or not ready:
                self._flush()
        for listening, opened in self._sockets.values():
            self._take(listening, opened, most=100_000)
        self._write_settled(time.time_ns() + 3_600_000_000_000)
        self._end()

    def summary(self) -> str:
        """Describe the result for people."""
        # Packets after the last wanted one are not read, so their losses do not count.
        lost = 0 if self._written == self._plan.count else sum(self._lost.values())
        missing = f", {lost} lost because they came faster than they could be written" if lost else ""
        return f"{counted(self._written, 'packet')} on {counted(len(self._received), 'interface')}{missing}"

    def _is_over(self) -> bool:
        enough = self._plan.count is not None and self._written >= self._plan.count
        return enough or (self._until_s is not None and time.monotonic() > self._until_s)

    def _take(self, listening: CapturePoint, opened: PacketSocket, most: int = AT_ONCE) -> None:
        for seen in opened.waiting(most):
            if seen.interface and listening.wants(seen.interface):
                heapq.heappush(self._waiting, (seen.at_ns, next(self._arrivals), listening, seen))

    def _write_settled(self, before_ns: int) -> None:
        while self._waiting and self._waiting[0][0] < before_ns:
            _, _, listening, seen = heapq.heappop(self._waiting)
            for frame in self._frames(seen):
                if self._plan.count is None or self._written < self._plan.count:
                    self._write(listening, seen, frame)

    def _frames(self, seen: SeenFrame) -> list[bytes]:
        return cut(seen.frame, seen.link_header, seen.offload, self._plan.overlay) if self._plan.cut else [seen.frame]

    def _write(self, listening: CapturePoint, seen: SeenFrame, frame: bytes) -> None:
        point = listening.point(seen.interface)
        self._written += 1
        self._received[point] = self._received.get(point, 0) + 1
        outgoing = seen.packet_type == OUT
        if self._plan.text:
            shown = line(point, seen.at_ns, frame, seen.link_header, self._plan.overlay, outgoing=outgoing)
            self._buffer += shown.encode() + b"\n"
        else:
            number = self._number(point, listening.place, seen.link_header == ETHERNET_HEADER)
            self._buffer += packet(number, seen.at_ns, frame, outgoing=outgoing)

    def _declare_all(self) -> None:
        """Declare every existing interface, so that an idle one is in the file too."""
        for listening, opened in self._sockets.values():
            for name in self._there[listening.place]:
                with contextlib.suppress(OSError):
                    self._number(listening.point(name), listening.place, opened.has_link_header(name))

    def _number(self, point: str, place: str, is_ethernet: bool) -> int:
        if point not in self._numbers:
            self._numbers[point] = len(self._numbers)
            self._places[point] = place
            self._buffer += interface(point, LINKTYPE_ETHERNET if is_ethernet else LINKTYPE_RAW)
        return self._numbers[point]

    def _end(self) -> None:
        self._lost = {listening.place: opened.lost() for listening, opened in self._sockets.values()}
        if not self._plan.text:
            for point, number in self._numbers.items():
                lost = self._lost[self._places[point]]
                comment = f"{lost} packets in this network namespace were lost by the capture" if lost else ""
                self._buffer += statistics(number, time.time_ns(), self._received.get(point, 0), comment)
        self._flush()

    def _flush(self) -> None:
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while view:
            view = view[os.write(self._output, view) :]


def counted(number: int, noun: str) -> str:
    """Return the number with the noun in its form."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _missing(listening: CapturePoint, there: list[str]) -> list[str]:
    known = sorted(name for name in there if name != LOOPBACK)
    return [
        f"{listening.place} has no interface {name} (there are: {listed(known, name)}); it is captured when it appears"
        for name in listening.interfaces or ()
        if name not in there
    ]


def main() -> int:
    """Run the recorder; return the exit code."""
    plan = CapturePlan.from_json(sys.argv[1])
    # The lab's supervisor sends SIGHUP when the client is gone; by then, standard input has ended too.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    recorder = Recorder(plan, 1)
    problems = recorder.open()
    nothing = len(problems) == len(plan.listening)
    for problem in problems:
        print(f"{'error' if nothing else 'warning'}: cannot capture in {problem}", file=sys.stderr)
    if nothing:
        return 1
    for warning in recorder.missing():
        print(f"warning: {warning}", file=sys.stderr)
    print(f"capturing on {counted(recorder.interfaces, 'interface')}", file=sys.stderr, flush=True)
    try:
        if plan.replace and stat.S_ISREG(os.fstat(1).st_mode):
            os.ftruncate(1, 0)
        recorder.run(0)
    except BrokenPipeError:
        return 1
    except OSError as failure:
        print(f"error: capture: its output cannot be written ({failure.strerror})", file=sys.stderr)
        return 1
    print(recorder.summary(), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
