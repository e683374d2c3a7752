"""Sockets in every namespace of a lab, and the sightings of one probe."""

import errno
import select
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from testbed.capture.filters import Instruction
from testbed.capture.headers import Encapsulation, Wrapped, unwrap
from testbed.capture.map import Place
from testbed.capture.packet_socket import OTHERHOST, OUTGOING, PacketSocket, SeenFrame, await_stamps
from testbed.capture.segments import cut
from testbed.processes.namespaces import CLONE_NEWNET, enter, in_new_thread

CLOSERS = 32
MOST_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Sighting:
    """One packet at one interface, as it would have been on a wire."""

    place: str
    number: int
    """In the order of this place's socket."""
    at_ns: int
    interface: str
    outgoing: bool
    for_another: bool
    """The frame is addressed to another machine's MAC."""
    hardware_type: int
    frame: bytes
    link_header: int
    wrapped: Wrapped
    sealed: bytes | None = None
    """The frame as captured, if `frame` is its decrypted form."""


class PacketWatch:
    """Captures at every interface of the given places while it is open. Use as a context manager."""

    def __init__(self, places: Sequence[Place], programs: Sequence[list[Instruction]], overlay: Encapsulation) -> None:
        """Take `programs`, filters in order of preference; each socket gets the first that its kernel has room for."""
        self._places, self._programs, self._overlay = places, programs, overlay
        self._sockets: dict[str, PacketSocket] = {}
        self._counts: dict[str, int] = {}
        self.missed: list[str] = []
        """Places that could not be captured in, with the reason."""
        self.seen: list[tuple[str, int, SeenFrame]] = []
        """Every frame that passed the filter: place, number in it, frame."""

    def __enter__(self) -> "PacketWatch":
        in_new_thread(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        # Each close waits for all processors; together they wait once.
        with ThreadPoolExecutor(CLOSERS, "close") as closers:
            list(closers.map(lambda one: one.close(), self._sockets.values()))

    def _open(self) -> None:
        for place in sorted(self._places, key=lambda place: place.pid is not None):
            try:
                if place.pid is not None:
                    enter(place.pid, CLONE_NEWNET)
                opened = PacketSocket()
                self._sockets[place.name] = opened
                self._listen(opened)
            except OSError as failure:
                self.missed.append(f"{place.name}: {failure.strerror or failure}")
        await_stamps()

    def _listen(self, opened: PacketSocket) -> None:
        for program in self._programs[:-1]:
            try:
                opened.listen(program)
            except OSError as failure:
                if failure.errno != errno.ENOMEM:
                    raise
            else:
                return
        opened.listen(self._programs[-1])

    def collect(self, done: Callable[[], bool], until: float, also: Sequence[int] = ()) -> None:
        """Collect frames until `done` returns true or the monotonic moment `until`; `also`: more descriptors to wake up
        for.
        """
        poll = select.poll()
        by_descriptor = {opened.fileno(): name for name, opened in self._sockets.items()}
        for descriptor in (*by_descriptor, *also):
            poll.register(descriptor, select.POLLIN)
        while not done():
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            for descriptor, _ in poll.poll(min(left_s, 0.02) * 1000):
                if descriptor in by_descriptor:
                    self._drain(by_descriptor[descriptor])
        for name in self._sockets:
            self._drain(name)

    def _drain(self, name: str) -> None:
        for seen in self._sockets[name].waiting(MOST_AT_ONCE):
            self._counts[name] = self._counts.get(name, 0) + 1
            self.seen.append((name, self._counts[name], seen))

    def mtu(self, place: str, interface: str) -> int | None:
        """Return an interface's MTU in bytes, while the watch is open."""
        opened = self._sockets.get(place)
        return opened.mtu(interface) if opened else None

    def sightings(self) -> Iterator[Sighting]:
        """Return every packet of every frame, cut as on a wire, by time of arrival at its interface."""
        for place, number, seen in sorted(self.seen, key=lambda one: one[2].at_ns):
            for frame in cut(seen.frame, seen.link_header, seen.offload, self._overlay):
                for wrapped in unwrap(frame, seen.link_header, self._overlay):
                    yield Sighting(
                        place,
                        number,
                        seen.at_ns,
                        seen.interface,
                        seen.packet_type == OUTGOING,
                        seen.packet_type == OTHERHOST,
                        seen.hardware_type,
                        frame,
                        seen.link_header,
                        wrapped,
                    )
