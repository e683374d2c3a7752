"""Sightings in chronological order. Pure.

The kernel's time stamps come from one clock, but a packet may be seen at two interfaces in the same nanosecond (a
bridge port and its bridge share a stamp), and two processors' clocks may differ slightly. Certain are the socket's own
order within a namespace, and that a packet leaves one end of a cable before it arrives at the other. Time decides the
rest.
"""

import heapq
from collections.abc import Mapping, Sequence

from testbed.capture.map import End
from testbed.trace.watch import Sighting


def in_order(sightings: Sequence[Sighting], cables: Mapping[End, End]) -> list[Sighting]:
    """Sort the sightings; `cables` maps each end to its other end."""
    before = _certain(sightings, cables)
    waiting_for = {number: 0 for number in range(len(sightings))}
    for followers in before.values():
        for follower in followers:
            waiting_for[follower] += 1
    ready = [(sightings[number].at_ns, number) for number, count in waiting_for.items() if count == 0]
    heapq.heapify(ready)
    ordered: list[int] = []
    while ready:
        _, number = heapq.heappop(ready)
        ordered.append(number)
        for follower in before.get(number, ()):
            waiting_for[follower] -= 1
            if waiting_for[follower] == 0:
                heapq.heappush(ready, (sightings[follower].at_ns, follower))
    # One clock and one causality allow no contradictions; if there is one, time alone decides.
    rest = sorted(set(range(len(sightings))) - set(ordered), key=lambda number: sightings[number].at_ns)
    return [sightings[number] for number in (*ordered, *rest)]


def _certain(sightings: Sequence[Sighting], cables: Mapping[End, End]) -> dict[int, list[int]]:
    """Return the direct successors of each sighting, by its index."""
    before: dict[int, list[int]] = {}
    last_in_place: dict[str, int] = {}
    for number in sorted(range(len(sightings)), key=lambda number: sightings[number].number):
        place = sightings[number].place
        if place in last_in_place:
            before.setdefault(last_in_place[place], []).append(number)
        last_in_place[place] = number
    left: dict[tuple[End, tuple[object, ...]], list[int]] = {}
    arrived: dict[tuple[End, tuple[object, ...]], list[int]] = {}
    for number, one in enumerate(sightings):
        end = (one.place, one.interface)
        if one.outgoing and end in cables:
            left.setdefault((cables[end], _identity(one)), []).append(number)
        elif not one.outgoing:
            arrived.setdefault((end, _identity(one)), []).append(number)
    for key, senders in left.items():
        for sender, receiver in zip(senders, arrived.get(key, ()), strict=False):
            before.setdefault(sender, []).append(receiver)
    return before


def _identity(sighting: Sighting) -> tuple[object, ...]:
    """Return the properties that a cable does not change."""
    inner = sighting.wrapped.inner
    header = inner.header
    return (
        header.source,
        header.destination,
        header.protocol,
        header.identification,
        header.ttl,
        inner.sequence or 0,
        inner.acknowledgement or 0,
        inner.flags or 0,
    )
