"""The layout of the underlay's switches, routers, gateway and etcd members, and of their cables. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbed.graph.geometry import Box, DrawnWire, Part, packed
from testbed.graph.model import Graph, Point

BAR_HEIGHT = 60
BAR_RUN = 22
"""From a bar's upper edge to the packets between its ports, above its name."""
CORE_WIDTH, CORE_HEIGHT = 130, 46
ADDRESS_LINE = 13
LEVEL_GAP = 70
CABLE_RISE = 60
"""From a node's uplink to the switch."""
GAP = 28
"""Between boxes in a row."""
PORT_GAP = 26
LEFT_OF_BAR = 56
"""Between gateway and etcd members, and the only switch between the nodes."""
EDGE = 20


@dataclass(frozen=True, slots=True)
class Bars:
    """The switches (or routers) with nodes: positions of the nodes, and whether they are below."""

    spans: Mapping[str, Sequence[tuple[float, float, bool]]]

    @property
    def shared(self) -> str | None:
        """Return the only switch with nodes above and below it."""
        return next((name for name, spans in self.spans.items() if len(spans) > 1), None)

    @property
    def two_sided(self) -> bool:
        """Return whether there are nodes below the underlay too."""
        return any(below for spans in self.spans.values() for _, _, below in spans)


@dataclass(slots=True)
class UnderlayLayout:
    """The underlay's part of the picture."""

    part: Part
    bottom: float
    """The top of the nodes below it."""
    shift: float
    """How far the nodes move to the right, to make room on their left."""


@dataclass(slots=True)
class _Rows:
    """Names by row, from top to bottom, and their boxes."""

    names: list[list[str]] = field(default_factory=list)
    boxes: dict[str, Box] = field(default_factory=dict)


def is_bar(box: Box) -> bool:
    """Return whether the box has nodes; only those are this high."""
    return box.height == BAR_HEIGHT


def run_of(box: Box) -> float:
    """Return the height of packets between ports within a switch or router."""
    return box.y + BAR_RUN if is_bar(box) else box.center[1]


def text_left(graph: Graph, name: str) -> float:
    """Return the left edge of a router's texts, or of a switch without nodes: right of its ports."""
    cables = sum(name in (end[0] for end in cable.ends) for cable in graph.cables)
    return 2 * EDGE + PORT_GAP * max(0, cables - 1) / 2 + PORT_GAP


def lay_out_underlay(graph: Graph, bars: Bars, top: float, right: float) -> UnderlayLayout:
    """Place everything between or below the nodes, from `top` on; `right` is the right edge of the nodes."""
    hangers = [machine.name for machine in graph.machines if machine.kind != "router"]
    if bars.shared is not None:
        return _around_one_bar(graph, bars.shared, bars, hangers, top)
    rows = _place(graph, bars, _row_names(graph, bars, hangers), top, right)
    routers = {machine.name for machine in graph.machines}
    boxes = {("machine" if name in routers else "switch", name): box for name, box in rows.boxes.items()}
    bottom = max((box.bottom for box in rows.boxes.values()), default=top)
    left = min((box.x for box in rows.boxes.values()), default=EDGE)
    return _shifted(Part(right, bottom, boxes, tuple(_cables(graph, rows))), bottom, max(0.0, 2 * EDGE - left))


def _shifted(part: Part, bottom: float, shift: float) -> UnderlayLayout:
    return UnderlayLayout(part.placed(shift, 0, flip=False), bottom, shift)


def _around_one_bar(graph: Graph, switch: str, bars: Bars, hangers: Sequence[str], top: float) -> UnderlayLayout:
    spans = bars.spans[switch]
    height = max(BAR_HEIGHT, len(hangers) * (CORE_HEIGHT + 12) - 12)
    left = min(span[0] for span in spans)
    bar = Box(left, top + (height - BAR_HEIGHT) / 2, max(span[1] for span in spans) - left, BAR_HEIGHT)
    boxes = {("switch", switch): bar}
    wires: list[DrawnWire] = []
    for number, name in enumerate(hangers):
        box = Box(left - LEFT_OF_BAR - CORE_WIDTH, top + number * (CORE_HEIGHT + 12), CORE_WIDTH, CORE_HEIGHT)
        boxes["machine", name] = box
        y = bar.y + 8 + 28 * (number + 1) / (len(hangers) + 1)
        turn = bar.x - LEFT_OF_BAR / 2 - 6 * number
        spots = ((box.right, box.center[1]), (turn, box.center[1]), (turn, y), (bar.x, y))
        for near, far in _ends(graph, name, switch):
            wires.append(DrawnWire("cable", (near, far), spots))
            wires += _joints(near, box, far, bar, spots)
    return _shifted(Part(bar.right, bar.bottom, boxes, tuple(wires)), top + height, CORE_WIDTH + LEFT_OF_BAR)


def _ends(graph: Graph, name: str, other: str) -> list[tuple[Point, Point]]:
    pairs = [pair for cable in graph.cables for pair in (cable.ends, cable.ends[::-1])]
    return [(near, far) for near, far in pairs if near[0] == name and far[0] == other]


def _joints(
    near: Point, box: Box, far: Point, other: Box, spots: Sequence[tuple[float, float]]
) -> tuple[DrawnWire, DrawnWire]:
    """Return the connections from both ends of a cable to the inside of their boxes."""
    (first_x, first_y), (last_x, last_y) = spots[0], spots[-1]
    inside = (min(max(first_x, box.x), box.right), run_of(box))
    outside = (min(max(last_x, other.x), other.right), run_of(other))
    return (
        DrawnWire("inside", (near, (near[0], "")), ((first_x, first_y), inside)),
        DrawnWire("inside", (far, (far[0], "")), ((last_x, last_y), outside)),
    )


def _neighbours(graph: Graph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cable in graph.cables:
        for near, far in (cable.ends, cable.ends[::-1]):
            found.setdefault(near[0], []).append(far[0])
    return found


def _row_names(graph: Graph, bars: Bars, hangers: Sequence[str]) -> list[list[str]]:
    """Assign names to rows: bars, then everything one step away, and so on; with nodes on both sides, the middle row
    has what belongs to both.
    """
    neighbours = _neighbours(graph)
    nodes = {node.name for node in graph.nodes}
    cores = [s.name for s in graph.switches if s.name not in bars.spans]
    cores += [m.name for m in graph.machines if m.kind == "router" and m.name not in bars.spans]
    level = dict.fromkeys(bars.spans, 0)
    sides = {name: {spans[0][2]} for name, spans in bars.spans.items()}
    waiting = deque(bars.spans)
    while waiting:
        name = waiting.popleft()
        for other in neighbours.get(name, ()):
            if other in nodes or other in hangers:
                continue
            if other not in level:
                level[other] = level[name] + 1
                sides[other] = set()
                waiting.append(other)
            if level[other] == level[name] + 1:
                sides[other] |= sides[name]
    below = [name for name, spans in bars.spans.items() if spans[0][2]]
    above = [name for name in bars.spans if name not in below]
    deepest = max(level.values(), default=0)
    if not bars.two_sided:
        rows = [[name for name in cores if level.get(name, 1) == number] for number in range(1, deepest + 2)]
        for name in hangers:
            at = max((level.get(other, 0) for other in neighbours.get(name, ())), default=0)
            rows[at].append(name)
        return [above, *(row for row in rows if row)]
    upper = [[n for n in cores if level.get(n) == d and sides[n] == {False}] for d in range(1, deepest + 1)]
    lower = [[n for n in cores if level.get(n) == d and sides[n] == {True}] for d in range(deepest, 0, -1)]
    middle = [*hangers, *(n for n in cores if len(sides.get(n, {True, False})) > 1)]
    return [above, *(row for row in (*upper, middle, *lower) if row), below]


def _place(graph: Graph, bars: Bars, row_names: Sequence[Sequence[str]], top: float, right: float) -> _Rows:
    neighbours = _neighbours(graph)
    rows = _Rows()
    heights = [
        max((BAR_HEIGHT if name in bars.spans else _height(graph, name) for name in names), default=0)
        for names in row_names
    ]
    tops = [top + sum(heights[:number]) + number * LEVEL_GAP for number in range(len(row_names))]
    for y, names in zip(tops, row_names, strict=True):
        for name in names:
            if name in bars.spans:
                left, end, _ = bars.spans[name][0]
                rows.boxes[name] = Box(left, y, end - left, BAR_HEIGHT)
    waiting = [(y, [n for n in names if n not in bars.spans]) for y, names in zip(tops, row_names, strict=True)]
    for y, names in sorted(waiting, key=lambda row: min(abs(row[0] - tops[0]), abs(row[0] - tops[-1]))):
        wanted = {}
        for name in names:
            known = [rows.boxes[other].center[0] for other in neighbours.get(name, ()) if other in rows.boxes]
            wanted[name] = sum(known) / len(known) if known else (right + EDGE) / 2
        order = sorted(names, key=wanted.__getitem__)
        widths = [_width(graph, name) for name in order]
        lefts = packed([wanted[name] for name in order], widths, GAP)
        for name, left, width in zip(order, lefts, widths, strict=True):
            rows.boxes[name] = Box(left, y, width, _height(graph, name))
    rows.names = [sorted(names, key=lambda name: rows.boxes[name].x) for names in row_names]
    return rows


def is_passed(graph: Graph, name: str) -> bool:
    """Report whether packets pass through it: a router or a switch, not a gateway or an etcd member."""
    return all(one.name != name or one.kind == "router" for one in graph.machines)


def _width(graph: Graph, name: str) -> float:
    """Return the width for its ports, and beside them for its texts."""
    return text_left(graph, name) + CORE_WIDTH if is_passed(graph, name) else CORE_WIDTH


def _height(graph: Graph, name: str) -> float:
    """Return the height for every address on its own line."""
    machine = next((one for one in graph.machines if one.name == name), None)
    lines = len(machine.addresses) if machine is not None else 0
    return max(CORE_HEIGHT, 26 + ADDRESS_LINE * lines)


def _cables(graph: Graph, rows: _Rows) -> list[DrawnWire]:
    """Return every cable between two underlay objects."""
    row_of = {name: number for number, names in enumerate(rows.names) for name in names}
    inner = [cable.ends for cable in graph.cables if all(end[0] in rows.boxes for end in cable.ends)]
    inner = [(near, far) if row_of[near[0]] <= row_of[far[0]] else (far, near) for near, far in inner]
    ports = _ports(graph, inner, row_of, rows)
    wires: list[DrawnWire] = []
    for near, far in inner:
        first, second = rows.boxes[near[0]], rows.boxes[far[0]]
        if row_of[near[0]] != row_of[far[0]]:
            spots = [(ports[near], first.bottom), (ports[far], second.y)]
        else:
            spots = _below_row(near[0], far[0], rows.names[row_of[near[0]]], rows)
        wires.append(DrawnWire("cable", (near, far), tuple(spots)))
        wires += _joints(near, first, far, second, spots)
    return wires


def _ports(
    graph: Graph, inner: Sequence[tuple[Point, Point]], row_of: Mapping[str, int], rows: _Rows
) -> dict[Point, float]:
    """Place each cable along the edge of its box: towards the other end, without overlaps."""
    edges: dict[tuple[str, bool], list[tuple[float, Point]]] = {}
    for near, far in inner:
        if row_of[near[0]] == row_of[far[0]]:
            continue
        for own, other, lower in ((near, far, True), (far, near, False)):
            room = _ports_room(graph, own[0], rows.boxes[own[0]])
            wanted = _towards(room, rows.boxes[own[0]], rows.boxes[other[0]])
            edges.setdefault((own[0], lower), []).append((wanted, own))
    found = {}
    for (name, _), ends in edges.items():
        ends.sort(key=lambda end: end[0])
        lefts = packed([wanted for wanted, _ in ends], [0.0] * len(ends), PORT_GAP)
        low, high = _ports_room(graph, name, rows.boxes[name])
        shift = max(0.0, low - lefts[0]) or min(0.0, high - lefts[-1])
        found.update({own: x + shift for x, (_, own) in zip(lefts, ends, strict=True)})
    return found


def _ports_room(graph: Graph, name: str, box: Box) -> tuple[float, float]:
    """Return the part of the edge where cables may end: not where a packet would cross its texts."""
    if is_bar(box) or not is_passed(graph, name):
        return box.x + EDGE, box.right - EDGE
    return box.x + EDGE, box.x + text_left(graph, name) - EDGE


def _towards(room: tuple[float, float], box: Box, other: Box) -> float:
    """Return the place for a cable to `other`: straight up and down if possible."""
    narrow = box if box.width < other.width else other
    middle = narrow.center[0] if other.x <= narrow.center[0] <= other.right else other.center[0]
    return min(max(middle, room[0]), room[1])


def _below_row(near: str, far: str, names: Sequence[str], rows: _Rows) -> list[tuple[float, float]]:
    """Return the spots: down from the left one, below those in between, and up again."""
    left, right = sorted((rows.boxes[near], rows.boxes[far]), key=lambda box: box.x)
    distance = abs(list(names).index(near) - list(names).index(far))
    y = max(left.bottom, right.bottom) + 12 + 5 * distance
    x, end = left.x + EDGE + PORT_GAP / 2, right.x + EDGE
    spots = [(x, left.bottom), (x, y), (end, y), (end, right.bottom)]
    return spots if rows.boxes[near] is left else spots[::-1]
