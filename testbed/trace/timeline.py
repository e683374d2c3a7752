"""From ordered sightings to hops: each packet's role, its path, and stray copies. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.capture.headers import Packet, flag_names, quoted
from testbed.capture.map import End
from testbed.trace.recognise import Recogniser, Role
from testbed.trace.watch import Sighting

LEGS = (Role.REQUEST, Role.DATA, Role.REPLY, Role.ERROR, Role.REPLY_ERROR)
"""The reported legs; the rest of a conversation is only counted."""
ECHO_WORDS = {4: {8: "echo request", 0: "echo reply"}, 6: {128: "echo request", 129: "echo reply"}}
UNREACHABLE = {4: 3, 6: 1}
UNREACHABLE_WORDS = {
    4: {
        0: "net unreachable",
        1: "host unreachable",
        2: "protocol unreachable",
        3: "port unreachable",
        4: "fragmentation needed",
        9: "net prohibited",
        10: "host prohibited",
        13: "prohibited by a filter",
    },
    6: {
        0: "no route",
        1: "prohibited by a filter",
        2: "beyond the source address's scope",
        3: "address unreachable",
        4: "port unreachable",
        5: "source address refused",
        6: "route refuses it",
    },
}
"""By IP's version and the message's code (RFC 792, RFC 1812 §5.2.7.1; RFC 4443 §3.1)."""
OTHER_ERRORS = {4: {11: "time exceeded"}, 6: {2: "packet too big", 3: "time exceeded"}}


@dataclass(frozen=True, slots=True)
class Step:
    """One packet at one interface, and its role for the probe."""

    role: Role
    sighting: Sighting

    @property
    def inner(self) -> Packet:
        """Return the packet itself."""
        return self.sighting.wrapped.inner

    @property
    def outer(self) -> Packet | None:
        """Return the overlay's packet around it."""
        return self.sighting.wrapped.outer

    @property
    def end(self) -> End:
        """Return place and interface."""
        return (self.sighting.place, self.sighting.interface)


@dataclass(slots=True)
class Timeline:
    """All sightings of a probe, in order."""

    steps: list[Step] = field(default_factory=list)
    """On its path."""
    strays: list[Step] = field(default_factory=list)
    """Copies that a switch sent to other machines."""
    again: int = 0
    """Sightings of packets that were retransmitted because nothing came back."""
    others: int = 0
    """Sightings of the rest of the conversation."""

    def leg(self, role: Role) -> list[Step]:
        """Return one packet's steps."""
        return [step for step in self.steps if step.role is role]


def build_timeline(
    ordered: Sequence[Sighting], recogniser: Recogniser, cables: Mapping[End, End], ports: frozenset[str]
) -> Timeline:
    """Build the timeline; `ports` are interfaces of the lab's namespace and of nodes that are ports of a bridge."""
    timeline = Timeline()
    found = []
    for sighting in ordered:
        role = recogniser.role(sighting.frame, sighting.wrapped.inner)
        if role in LEGS:
            found.append(Step(role, sighting))
        elif role is not None:
            timeline.others += 1
    first, timeline.again = _first_copies(found)
    astray = set(_astray(first, cables, ports))
    for number, step in enumerate(first):
        (timeline.strays if number in astray else timeline.steps).append(step)
    return timeline


def _first_copies(found: Sequence[Step]) -> tuple[list[Step], int]:
    """Return each role's packet that came farthest, without retransmissions."""
    copies: dict[Role, dict[tuple[int, int], list[int]]] = {}
    times_seen: dict[tuple[object, ...], int] = {}
    for number, step in enumerate(found):
        # A retransmission has another identification, or, where the kernel always writes 0, passes again.
        key = (step.role, step.inner.header.identification, step.end, step.sighting.outgoing, step.outer is None)
        times_seen[key] = times_seen.get(key, 0) + 1
        which = (step.inner.header.identification, times_seen[key])
        copies.setdefault(step.role, {}).setdefault(which, []).append(number)
    kept: set[int] = set()
    for by_copy in copies.values():
        farthest: list[int] = max(by_copy.values(), key=lambda numbers: len(numbers))
        kept.update(farthest)
    return [step for number, step in enumerate(found) if number in kept], len(found) - len(kept)


def _astray(steps: Sequence[Step], cables: Mapping[End, End], ports: frozenset[str]) -> Iterator[int]:
    """Return numbers of frames that reached a machine with another's MAC address, and of their last departure from a
    switch.
    """
    for number, step in enumerate(steps):
        sighting = step.sighting
        if sighting.outgoing or not sighting.for_another or sighting.interface in ports:
            continue
        yield number
        sender = cables.get(step.end)
        for earlier in range(number - 1, -1, -1):
            if steps[earlier].end == sender and steps[earlier].role is step.role:
                yield earlier
                break


def describe(frame: bytes, packet: Packet) -> str:
    """Describe the kind of packet in two words."""
    if packet.flags is not None:
        return flag_names(packet.flags)
    if packet.icmp is not None:
        if quoted(frame, packet) is not None:
            return error_words(packet)
        return ECHO_WORDS[packet.header.version].get(packet.icmp[0], f"icmp {packet.icmp[0]}")
    return f"{packet.end - packet.payload} bytes"


def error_words(packet: Packet) -> str:
    """Describe an ICMP error as ping does."""
    version = packet.header.version
    kind, code = packet.icmp or (0, 0)
    if kind == UNREACHABLE[version]:
        return UNREACHABLE_WORDS[version].get(code, f"unreachable, code {code}")
    return OTHER_ERRORS[version].get(kind, f"icmp error {kind}/{code}")
