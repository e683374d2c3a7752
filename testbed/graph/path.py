"""The path of a packet over the picture: a line along the wires, with a number at each sighting. Pure."""

import heapq
import itertools
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import dist, hypot

from testbed.graph.drawing import cross, element, label, line
from testbed.graph.geometry import DrawnWire, Spot, packed
from testbed.graph.layout import GraphLayout
from testbed.graph.model import Point

LANE = 9.0
"""Distance from the wire, to the right of the packet's direction, so that request and reply are side by side."""
RADIUS = 8.0
"""Radius of a number's disc. Those of both directions fit side by side."""
SMALL_RADIUS = 6.0
"""The same if a connection's payload takes the path of its request."""
TIP = 13.0
"""From the last number to the line's end with the arrow."""
DETOUR = 50
"""Number of wires that a detour counts as."""
COLOURS = {
    "request": "#b0157a",
    "data": "#7a3fc4",
    "reply": "#12737a",
    "error": "#cf222e",
    "reply error": "#cf222e",
}
"""By leg of a trace, in drawing order."""


def class_of(leg: str) -> str:
    """Return the leg's class in the stylesheet."""
    return leg.replace(" ", "-")


STYLE = "".join(
    f"""
.lab .way-{class_of(leg)} path {{ fill: none; stroke: {colour}; stroke-width: 3.6; stroke-linejoin: round; }}
.lab .way-{class_of(leg)} .step circle {{ fill: {colour}; stroke: #ffffff; stroke-width: 1; }}
.lab .way-{class_of(leg)} .tip {{ fill: {colour}; stroke: none; }}
.lab .way-{class_of(leg)} .lost {{ stroke: {colour}; stroke-width: 4; }}"""
    for leg, colour in COLOURS.items()
)
STYLE += """
.lab .way path.wrapped { stroke: #ffffff; stroke-width: 1.2; }
.lab .step text.middle { fill: #ffffff; font-weight: bold; }
"""


@dataclass(frozen=True, slots=True)
class PathStep:
    """One sighting of a packet."""

    number: int
    place: str
    """Pod, node, machine or switch."""
    interface: str
    leg: str = "request"
    """The packet of the conversation: one of COLOURS."""
    text: str = ""
    """The number's tooltip."""
    wrapped: bool = False
    """Whether an overlay carries it here: the line is double."""

    @property
    def point(self) -> Point:
        """Return its place in the picture."""
        return self.place, self.interface


@dataclass(frozen=True, slots=True)
class Lane:
    """A line through spots, and the distance along it to each of them."""

    spots: tuple[Spot, ...]
    lengths: tuple[float, ...]

    @property
    def length(self) -> float:
        """Return the whole length."""
        return self.lengths[-1]

    def at(self, along: float) -> Spot:
        """Return the place at this distance along it."""
        number = min(max(bisect_right(self.lengths, along), 1), len(self.spots) - 1)
        (x, y), (end_x, end_y) = self.spots[number - 1], self.spots[number]
        whole = self.lengths[number] - self.lengths[number - 1]
        part = (along - self.lengths[number - 1]) / whole if whole else 0.0
        return x + part * (end_x - x), y + part * (end_y - y)

    def between(self, start: float, end: float) -> list[Spot]:
        """Return the piece between two distances."""
        inside = [spot for spot, length in zip(self.spots, self.lengths, strict=True) if start < length < end]
        return [self.at(start), *inside, self.at(end)]


def lane_of(spots: Sequence[Spot]) -> Lane:
    """Return the line through these spots."""
    lengths = itertools.accumulate((dist(one, other) for one, other in itertools.pairwise(spots)), initial=0.0)
    return Lane(tuple(spots), tuple(lengths))


def way(layout: GraphLayout, steps: Sequence[PathStep], lost: str | None = None) -> str:
    """Draw the steps of a packet, for the picture of this layout; `lost` names the leg that did not arrive.

    Steps outside the picture are omitted; the line continues to the next one.
    """
    taken: list[Spot] = []
    legs = [leg for leg in COLOURS if any(step.leg == leg for step in steps)]
    small = "data" in legs
    lines, numbers = [], []
    for leg in legs:
        own = [step for step in steps if step.leg == leg]
        drawn = _leg(layout, own, taken, leg == lost, SMALL_RADIUS if small else RADIUS)
        lines.append(element("g", drawn[0], class_=f"way way-{class_of(leg)}", data_leg=leg))
        numbers.append(element("g", drawn[1], class_=f"steps way-{class_of(leg)}", data_steps=leg))
    # No line over a number: two packets may take the same path.
    return "".join([*lines, *numbers])


def _leg(
    layout: GraphLayout, steps: Sequence[PathStep], taken: list[Spot], lost: bool, radius: float
) -> tuple[str, str]:
    """Draw the line and the numbers of a leg."""
    roads = _roads(layout)
    known = [step for step in steps if step.point in roads]
    if not known:
        return "", ""
    middle, wanted = _walk(roads, known)
    if len(middle.spots) < 2:
        return "", _beside_a_place(known, middle.spots[0], taken, radius)
    # The line beside the wires has one spot per spot of theirs, so places on both correspond.
    lane = lane_of(_beside(middle.spots, LANE))
    places = _spread([_moved(along, middle, lane) for along in wanted], lane, taken, radius)
    content = element("path", d=line(lane.spots), class_="lane")
    for first, last in _wrapped(known):
        content += element("path", d=line(lane.between(places[first], places[last])), class_="wrapped")
    content += cross(lane.spots[-1], "lost", 9) if lost else _tip(lane.spots)
    numbers = "".join(
        _number(step, lane.at(along), along / lane.length, radius) for step, along in zip(known, places, strict=True)
    )
    return content, numbers


def _number(step: PathStep, at: Spot, part: float, radius: float) -> str:
    return element(
        "g",
        element("title", escape(f"{step.number}: {step.place} {step.interface} {step.text}".strip()))
        + element("circle", cx=at[0], cy=at[1], r=radius)
        + label(str(step.number), (at[0], at[1] + 0.4 * radius), "small middle" if radius == RADIUS else "tiny middle"),
        class_="step",
        data_step=step.number,
        data_at=f"{part:.3f}",
    )


def _wrapped(steps: Sequence[PathStep]) -> list[tuple[int, int]]:
    """Return first and last of consecutive steps in which an overlay carries the packet."""
    found = []
    for wrapped, group in itertools.groupby(range(len(steps)), key=lambda number: steps[number].wrapped):
        numbers = list(group)
        if wrapped and len(numbers) > 1:
            found.append((numbers[0], numbers[-1]))
    return found


def _beside_a_place(steps: Sequence[PathStep], spot: Spot, taken: list[Spot], radius: float) -> str:
    """Draw numbers in a row, for a packet that does not leave its place."""
    content = ""
    for number, step in enumerate(steps):
        at = (spot[0] + radius, spot[1])
        while any(dist(at, other) < 2 * radius for other in taken):
            at = (at[0] + 1, at[1])
        taken.append(at)
        content += _number(step, at, number / len(steps), radius)
    return content


Roads = Mapping[Point, Sequence[tuple[Point, DrawnWire]]]


def _roads(layout: GraphLayout) -> Roads:
    """Return, for each point, the wires from there."""
    found: dict[Point, list[tuple[Point, DrawnWire]]] = {}
    for wire in layout.part.wires:
        near, far = wire.ends
        found.setdefault(near, []).append((far, wire))
        found.setdefault(far, []).append((near, replace(wire, ends=(far, near), spots=wire.spots[::-1])))
    return found


def _between(roads: Roads, start: Point, end: Point) -> list[Spot]:
    """Return the spots of the path with the fewest wires; only both ends if no wires connect them."""
    came: dict[Point, DrawnWire] = {}
    waiting: list[tuple[int, int, Point, DrawnWire | None]] = [(0, 0, start, None)]
    pushed = 0
    while waiting:
        cost, _, here, by = heapq.heappop(waiting)
        if here in came or (here == start and by is not None):
            continue
        if by is not None:
            came[here] = by
        if here == end:
            break
        for other, wire in roads.get(here, ()):
            pushed += 1
            heapq.heappush(waiting, (cost + (DETOUR if wire.kind == "around" else 1), pushed, other, wire))
    if end not in came:
        return [] if start == end else [roads[start][0][1].spots[0], roads[end][0][1].spots[0]]
    parts: list[tuple[Spot, ...]] = []
    at = end
    while at != start:
        parts.append(came[at].spots)
        at = came[at].ends[0]
    return [spot for part in reversed(parts) for spot in part]


def _walk(roads: Roads, steps: Sequence[PathStep]) -> tuple[Lane, list[float]]:
    """Return the whole path along the wires, and the distance along it to each step."""
    parts = [_between(roads, one.point, other.point) for one, other in itertools.pairwise(steps)]
    if not any(parts):
        return lane_of([roads[steps[0].point][0][1].spots[0]]), [0.0] * len(steps)
    spots: list[Spot] = []
    length = 0.0
    starts, ends = [], []
    for part in parts:
        begun = None
        for spot in part:
            if spots:
                length += dist(spots[-1], spot)
            begun = length if begun is None else begun
            spots.append(spot)
        starts.append(length if begun is None else begun)
        ends.append(length)
    # Inside a bridge, packets enter and leave at different spots: the number goes between them.
    middles = [(end + start) / 2 for end, start in zip(ends[:-1], starts[1:], strict=True)]
    return lane_of(_without_repeats(spots)), [starts[0], *middles, ends[-1]]


def _moved(along: float, one: Lane, other: Lane) -> float:
    """Return the place on `other` that corresponds to one on `one`, which has as many spots."""
    number = min(max(bisect_right(one.lengths, along), 1), len(one.spots) - 1)
    whole = one.lengths[number] - one.lengths[number - 1]
    part = min(max((along - one.lengths[number - 1]) / whole, 0.0), 1.0) if whole else 0.0
    return other.lengths[number - 1] + part * (other.lengths[number] - other.lengths[number - 1])


def _spread(wanted: Sequence[float], lane: Lane, taken: list[Spot], radius: float) -> list[float]:
    """Return each number's place on the line: near its step, in order, without overlaps."""
    room = min(2 * radius + 2, (lane.length - TIP) / max(1, len(wanted) - 1))
    places = [edge + room / 2 for edge in packed(wanted, [room] * len(wanted), 0.0)]
    floor = 0.0
    for number, place in enumerate(places):
        places[number] = floor = max(place, floor)
        floor += room
    ceiling = lane.length - TIP
    for number in range(len(places) - 1, -1, -1):
        places[number] = ceiling = min(places[number], ceiling)
        ceiling -= room
    for number, place in enumerate(places):
        low = places[number - 1] + 1 if number else 0.0
        high = places[number + 1] if number + 1 < len(places) else lane.length
        places[number] = _free(place, low, high, lane, taken, radius)
        taken.append(lane.at(places[number]))
    return places


def _free(wanted: float, low: float, high: float, lane: Lane, taken: Sequence[Spot], radius: float) -> float:
    """Return the nearest place on the line without another number."""

    def is_free(along: float) -> bool:
        return all(dist(lane.at(along), other) >= 2 * radius for other in taken)

    reach = int(max(wanted - low, high - wanted, 0.0)) + 1
    tried = (wanted + sign * step for step in range(reach) for sign in (1, -1))
    return next((along for along in tried if low <= along <= high and is_free(along)), wanted)


def _right_of(one: Spot, other: Spot) -> Spot | None:
    """Return the direction to the right of a line from one spot to the other (y grows downwards); None
    for no distance.
    """
    x, y = other[0] - one[0], other[1] - one[1]
    length = hypot(x, y)
    return (-y / length, x / length) if length > 0.5 else None


def _without_repeats(spots: Sequence[Spot]) -> list[Spot]:
    kept = [spots[0]]
    for spot in spots[1:]:
        if dist(spot, kept[-1]) > 0.5:
            kept.append(spot)
    return kept


def _beside(spots: Sequence[Spot], distance: float) -> list[Spot]:
    """Return the same path, `distance` pixels to the right of it."""
    normals = [_right_of(one, other) or (0.0, 0.0) for one, other in itertools.pairwise(spots)]
    moved = []
    for number, (x, y) in enumerate(spots):
        one, other = normals[max(0, number - 1)], normals[min(number, len(normals) - 1)]
        turn = 1 + one[0] * other[0] + one[1] * other[1]
        sharp = turn < 0.2  # straight back
        by_x, by_y = one if sharp else ((one[0] + other[0]) / turn, (one[1] + other[1]) / turn)
        moved.append((x + distance * by_x, y + distance * by_y))
    return moved


def _tip(spots: Sequence[Spot]) -> str:
    """Draw the arrow's head."""
    (x, y), normal = spots[-1], _right_of(spots[-2], spots[-1]) or (0.0, 1.0)
    ahead = (normal[1], -normal[0])
    corners = [
        (x + 5 * ahead[0], y + 5 * ahead[1]),
        (x - 6 * ahead[0] + 6 * normal[0], y - 6 * ahead[1] + 6 * normal[1]),
        (x - 6 * ahead[0] - 6 * normal[0], y - 6 * ahead[1] - 6 * normal[1]),
    ]
    return element("path", d=line(corners) + " Z", class_="tip")
