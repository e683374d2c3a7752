"""The way of a packet over the picture: a line along the wires, and a number where it was seen. Pure."""

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import dist, hypot

from testbed.graph.drawing import cross, element, label, line
from testbed.graph.geometry import Box, DrawnWire, Spot
from testbed.graph.layout import GraphLayout, lay_out
from testbed.graph.model import Graph, Point
from testbed.graph.svg import document
from testbed.graph.texts import texts_of, touches

LANE = 3.5
"""From the wire, to the right of where the packet goes, so that there and back are beside each other."""
BESIDE = 14.0
"""From the wire to a number."""
RADIUS = 8.5
DETOUR = 50
"""Wires that a way around counts as."""
FARTHEST = 60.0
"""From its usual place, that a number may move to keep off others and off texts."""
STEP = 3.0
"""Pixels between the places that are tried."""
SHIFTS = sorted(
    (
        (x * STEP, y * STEP)
        for x in range(-round(FARTHEST / STEP), round(FARTHEST / STEP) + 1)
        for y in range(-round(FARTHEST / STEP), round(FARTHEST / STEP) + 1)
        if hypot(x, y) * STEP <= FARTHEST
    ),
    key=lambda shift: hypot(*shift),
)
"""The nearest first."""
COLOURS = {
    "request": "#b0157a",
    "data": "#7a3fc4",
    "answer": "#12737a",
    "error": "#cf222e",
    "answer error": "#cf222e",
}
"""By leg of a trace, in the order in which they are drawn."""


def class_of(leg: str) -> str:
    """What stands for a leg in the stylesheet."""
    return leg.replace(" ", "-")


STYLE = "".join(
    f"""
.lab .way-{class_of(leg)} path {{ fill: none; stroke: {colour}; stroke-width: 3.2; stroke-linejoin: round; }}
.lab .way-{class_of(leg)} .step circle {{ fill: {colour}; stroke: #ffffff; stroke-width: 1; }}
.lab .way-{class_of(leg)} .tip {{ fill: {colour}; stroke: none; }}
.lab .way-{class_of(leg)} .lost {{ stroke: {colour}; stroke-width: 4; }}"""
    for leg, colour in COLOURS.items()
)
STYLE += "\n.lab .step text { fill: #ffffff; font-size: 9px; font-weight: bold; text-anchor: middle; }\n"


@dataclass(frozen=True, slots=True)
class PathStep:
    """One sighting of a packet."""

    number: int
    place: str
    """Pod, node, machine or switch."""
    interface: str
    leg: str = "request"
    """Which packet of the conversation: one of COLOURS."""
    text: str = ""
    """What to show on pointing at the number."""

    @property
    def point(self) -> Point:
        """Where it is in the picture."""
        return self.place, self.interface


def draw_path(graph: Graph, steps: Sequence[PathStep], lost: str | None = None) -> str:
    """The picture with the steps of a packet on it; `lost` names the leg that did not arrive.

    Steps at places that are not in the picture are left out; the line goes on to the next one.
    """
    layout = lay_out(graph)
    return document(layout, way(layout, steps, lost), STYLE)


def way(layout: GraphLayout, steps: Sequence[PathStep], lost: str | None = None) -> str:
    """The same without the picture below it, for a page that has that already."""
    taken: list[Spot] = []
    texts = texts_of(document(layout, styled=False))
    legs = [leg for leg in COLOURS if any(step.leg == leg for step in steps)]
    pieces = []
    for leg in legs:
        own = [step for step in steps if step.leg == leg]
        content = _leg(layout, own, taken, texts, leg == lost)
        pieces.append(element("g", content, class_=f"way way-{class_of(leg)}", data_leg=leg))
    return "".join(pieces)


def _leg(layout: GraphLayout, steps: Sequence[PathStep], taken: list[Spot], texts: Sequence[Box], lost: bool) -> str:
    roads = _roads(layout)
    known = [step for step in steps if step.point in roads]
    spots, places, fractions = _walk(roads, known)
    if not spots:
        return ""
    lane = _beside(spots, LANE)
    content = element("path", d=line(lane), class_="lane")
    content += cross(lane[-1], "lost", 9) if lost else _tip(lane)
    for step, (spot, normal), fraction in zip(known, places, fractions, strict=True):
        at = _free(spot, normal, taken, texts)
        taken.append(at)
        content += element(
            "g",
            element("title", escape(f"{step.number}: {step.place} {step.interface} {step.text}".strip()))
            + element("circle", cx=at[0], cy=at[1], r=RADIUS)
            + label(str(step.number), (at[0], at[1] + 3.2)),
            class_="step",
            data_step=step.number,
            data_at=f"{fraction:.3f}",
        )
    return content


Roads = Mapping[Point, Sequence[tuple[Point, DrawnWire]]]


def _roads(layout: GraphLayout) -> Roads:
    """From each point: where a wire leads."""
    found: dict[Point, list[tuple[Point, DrawnWire]]] = {}
    for wire in layout.part.wires:
        near, far = wire.ends
        found.setdefault(near, []).append((far, wire))
        found.setdefault(far, []).append((near, replace(wire, ends=(far, near), spots=wire.spots[::-1])))
    return found


def _between(roads: Roads, start: Point, end: Point) -> list[Spot]:
    """The spots of the way with the fewest wires; only both ends where no wires lead there."""
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


def _walk(roads: Roads, steps: Sequence[PathStep]) -> tuple[list[Spot], list[tuple[Spot, Spot]], list[float]]:
    """The whole way; for each step its spot and the direction to the right of the way there; how far along it is."""
    if not steps:
        return [], [], []
    parts = [_between(roads, one.point, other.point) for one, other in itertools.pairwise(steps)]
    if not any(parts):
        only = roads[steps[0].point][0][1].spots[0]
        return [only], [(only, (1.0, 0.0))] * len(steps), [number / len(steps) for number in range(len(steps))]
    spots = [spot for part in parts for spot in part]
    places: list[tuple[Spot, Spot]] = []
    for number in range(len(steps)):
        arriving = parts[number - 1] if number else []
        leaving = parts[number] if number < len(parts) else []
        # Inside a bridge the way in and the way out are at different spots: the number goes between them.
        last, first = (arriving or leaving[:1])[-1], (leaving or arriving[-1:])[0]
        middle = ((last[0] + first[0]) / 2, (last[1] + first[1]) / 2)
        around = [*arriving[-2:], *leaving[:2]]
        places.append((middle, _right_of(last, first) or _side(around)))
    return _without_repeats(spots), places, _fractions(parts)


def _fractions(parts: Sequence[Sequence[Spot]]) -> list[float]:
    """How far along the whole way each part begins, from 0 to 1, and at last 1."""
    lengths, before = [0.0], parts[0][0] if parts[0] else None
    for part in parts:
        length = lengths[-1]
        for spot in part:
            length += dist(before, spot) if before else 0.0
            before = spot
        lengths.append(length)
    return [length / (lengths[-1] or 1.0) for length in lengths]


def _side(spots: Sequence[Spot]) -> Spot:
    for one, other in itertools.pairwise(spots):
        found = _right_of(one, other)
        if found:
            return found
    return (1.0, 0.0)


def _right_of(one: Spot, other: Spot) -> Spot | None:
    """The direction to the right of going from one spot to the other (y grows downwards); None for no distance."""
    x, y = other[0] - one[0], other[1] - one[1]
    length = hypot(x, y)
    return (-y / length, x / length) if length > 0.5 else None


def _without_repeats(spots: Sequence[Spot]) -> list[Spot]:
    kept = [spots[0]]
    for spot in spots[1:]:
        if hypot(spot[0] - kept[-1][0], spot[1] - kept[-1][1]) > 0.5:
            kept.append(spot)
    return kept


def _beside(spots: Sequence[Spot], distance: float) -> list[Spot]:
    """The same way, `distance` pixels to the right of it."""
    if len(spots) < 2:
        return list(spots)
    normals = [_right_of(one, other) or (0.0, 0.0) for one, other in itertools.pairwise(spots)]
    moved = []
    for number, (x, y) in enumerate(spots):
        one, other = normals[max(0, number - 1)], normals[min(number, len(normals) - 1)]
        turn = 1 + one[0] * other[0] + one[1] * other[1]
        sharp = turn < 0.2  # straight back
        by_x, by_y = one if sharp else ((one[0] + other[0]) / turn, (one[1] + other[1]) / turn)
        moved.append((x + distance * by_x, y + distance * by_y))
    return moved


def _free(spot: Spot, normal: Spot, taken: Sequence[Spot], texts: Sequence[Box]) -> Spot:
    """The nearest place beside the way where no other number is, and if there is one, no text."""

    def apart(at: Spot) -> bool:
        return all(hypot(at[0] - x, at[1] - y) > 2 * RADIUS for x, y in taken)

    usual = spot[0] + BESIDE * normal[0], spot[1] + BESIDE * normal[1]
    places = [(usual[0] + x, usual[1] + y) for x, y in SHIFTS]
    # Not on the way itself, nor on the other side of it, where the answer goes.
    places = [at for at in places if (at[0] - spot[0]) * normal[0] + (at[1] - spot[1]) * normal[1] >= RADIUS + LANE]
    places = [at for at in places if apart(at)] or [usual]
    return next((at for at in places if not any(touches(at, RADIUS, text) for text in texts)), places[0])


def _tip(spots: Sequence[Spot]) -> str:
    """The arrow's head."""
    if len(spots) < 2:
        return ""
    (x, y), normal = spots[-1], _right_of(spots[-2], spots[-1]) or (0.0, 1.0)
    ahead = (normal[1], -normal[0])
    corners = [
        (x + 5 * ahead[0], y + 5 * ahead[1]),
        (x - 6 * ahead[0] + 6 * normal[0], y - 6 * ahead[1] + 6 * normal[1]),
        (x - 6 * ahead[0] - 6 * normal[0], y - 6 * ahead[1] - 6 * normal[1]),
    ]
    return element("path", d=line(corners) + " Z", class_="tip")
