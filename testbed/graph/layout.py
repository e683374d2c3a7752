"""The layout of a lab: nodes in rows, the underlay's switches and routers between or below them. Pure.

few nodes:   node node node        many nodes:  node node node
             ─ s1 ───── s2 ─                    ────── s1 ─────   a switch with nodes is a bar
                 r1   gw etcd1        gw etcd1  node node node    below them, as wide as its nodes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log

from testbed.graph.geometry import Box, DrawnWire, Part
from testbed.graph.model import Graph
from testbed.graph.node_layout import UPLINK_PORT, lay_out_node, shown_pods
from testbed.graph.underlay_layout import CABLE_RISE, Bars, lay_out_underlay, run_of

MARGIN = 24
NARROWEST = 730
"""Has room for the legend."""
TITLE = 58
LEGEND = 44
GUTTER = 34
"""Between columns of nodes."""
ROW_GAP = 40
"""Between rows of nodes; cables of the outer ones turn here."""
ONE_SIDE = 4
"""The most nodes in one row above the underlay; of more, half are below it. With one switch, one node fewer."""
MOST_ROWS = 5
GOOD_SHAPE = 1.6
"""Width to height, like screens and slides."""
SERVICE_WIDTH, SERVICE_HEIGHT, SERVICE_GAP = 200, 38, 12
"""Of a Service, in rows between the underlay and the legend."""
BAND = 200
"""Typical height of the part between or below the nodes, to choose the number of rows."""


@dataclass(frozen=True, slots=True)
class GraphLayout:
    """The whole picture."""

    graph: Graph
    part: Part
    upside_down: frozenset[str]
    """Nodes below the underlay."""


@dataclass(frozen=True, slots=True)
class _Side:
    """The nodes above or below the underlay, in groups by switch."""

    groups: Sequence[tuple[str, Sequence[str]]]
    below: bool


def lay_out(graph: Graph) -> GraphLayout:
    """Place everything."""
    cells = _cells(graph)
    groups = _groups(graph)
    sides = _sides(graph, groups)
    width, height = next(((cell.width, cell.height) for cell in cells.values()), (0.0, 0.0))
    rows = _rows(sides, width, height)
    boxes: dict[tuple[str, str], Box] = {}
    wires: list[DrawnWire] = []
    above = rows * height + (rows - 1) * ROW_GAP if cells else 0
    spans: dict[str, list[tuple[float, float, bool]]] = {}
    stacks: list[tuple[str, float, int, bool]] = []
    beside = GUTTER if rows > 1 else 0  # cables of the outer rows come down right of the last column
    widest = 0.0
    for side in sides:
        left = float(MARGIN)
        for switch, names in side.groups:
            columns = ceil(len(names) / rows)
            filled = ceil(len(names) / columns)
            for number, name in enumerate(names):
                line = number // columns
                # In reading order: above the underlay the first ones are outermost, below it next to it.
                x = left + number % columns * (width + GUTTER)
                stacks.append((name, x, line if side.below else filled - 1 - line, side.below))
            right = left + columns * (width + GUTTER) - GUTTER + beside
            spans.setdefault(switch, []).append((left, right, side.below))
            left = right + GUTTER
        widest = max(widest, left - beside)
    underlay = lay_out_underlay(graph, Bars(spans), MARGIN + TITLE + above + CABLE_RISE, widest - GUTTER / 2)
    boxes.update(underlay.part.boxes)
    for name, x, row, below in stacks:
        left = x + underlay.shift
        if below:
            top = underlay.bottom + CABLE_RISE + row * (height + ROW_GAP)
        else:
            top = MARGIN + TITLE + (rows - 1 - row) * (height + ROW_GAP)
        part = cells[name].placed(left, top, below)
        boxes.update(part.boxes)
        wires += part.wires
    positions = {name: (row, below) for name, _, row, below in stacks}
    wires += underlay.part.wires
    wires += _uplinks(graph, boxes, positions, width)
    bottom = max((box.bottom for box in boxes.values()), default=MARGIN + TITLE)
    right = max((box.right for box in boxes.values()), default=400) + (GUTTER if rows > 1 else 0)
    bottom += _place_services(graph, boxes, max(right, NARROWEST - MARGIN), bottom)
    whole = Part(max(right + MARGIN, NARROWEST), bottom + LEGEND + MARGIN, boxes, tuple(wires))
    return GraphLayout(graph, whole, frozenset(name for name, _, _, below in stacks if below))


def _place_services(graph: Graph, boxes: dict[tuple[str, str], Box], right: float, top: float) -> float:
    """Place every Service below `top`, in rows; return the height used."""
    if not graph.services:
        return 0.0
    per_row = max(1, int((right - MARGIN + SERVICE_GAP) // (SERVICE_WIDTH + SERVICE_GAP)))
    for number, service in enumerate(graph.services):
        row, column = divmod(number, per_row)
        x = MARGIN + column * (SERVICE_WIDTH + SERVICE_GAP)
        y = top + MARGIN + row * (SERVICE_HEIGHT + SERVICE_GAP)
        boxes["service", service.name] = Box(x, y, SERVICE_WIDTH, SERVICE_HEIGHT)
    return MARGIN + ceil(len(graph.services) / per_row) * (SERVICE_HEIGHT + SERVICE_GAP)


def _cells(graph: Graph) -> dict[str, Part]:
    most = max((len(shown_pods(node)) for node in graph.nodes), default=0)
    per_line = max(1, min(most, 3 if len(graph.nodes) <= ONE_SIDE else 2))
    return {node.name: lay_out_node(node, per_line, ceil(most / per_line)) for node in graph.nodes}


def _groups(graph: Graph) -> list[tuple[str, list[str]]]:
    """Return nodes by switch or router, in the order of the cluster's switches."""
    found: dict[str, list[str]] = {}
    order = {switch.name: number for number, switch in enumerate(graph.switches)}
    for node in graph.nodes:
        point = (node.name, node.uplink)
        others = [end for cable in graph.cables if point in cable.ends for end in cable.ends if end != point]
        found.setdefault(others[0][0] if others else "", []).append(node.name)
    return sorted(found.items(), key=lambda group: order.get(group[0], len(order)))


def _sides(graph: Graph, groups: Sequence[tuple[str, list[str]]]) -> list[_Side]:
    if len(graph.nodes) < ONE_SIDE or (len(graph.nodes) == ONE_SIDE and len(graph.switches) > 1):
        return [_Side(groups, below=False)]
    if len(groups) == 1 and len(graph.switches) == 1:
        (switch, names), half = groups[0], ceil(len(groups[0][1]) / 2)
        return [_Side([(switch, names[:half])], below=False), _Side([(switch, names[half:])], below=True)]
    upper: list[tuple[str, list[str]]] = []
    lower = list(groups)
    while lower and sum(len(names) for _, names in upper) + len(lower[0][1]) / 2 <= len(graph.nodes) / 2:
        upper.append(lower.pop(0))
    if not upper or not lower:
        return [_Side(groups, below=False)]
    return [_Side(upper, below=False), _Side(lower, below=True)]


def _rows(sides: Sequence[_Side], width: float, height: float) -> int:
    """Return how many nodes to stack for a picture of a good shape."""

    def unlikeness(rows: int) -> float:
        columns = max(sum(ceil(len(names) / rows) for _, names in side.groups) for side in sides)
        shape = columns * (width + GUTTER) / (len(sides) * rows * (height + ROW_GAP) + BAND)
        return abs(log(shape / GOOD_SHAPE)) if shape else 0.0

    if sum(len(names) for side in sides for _, names in side.groups) <= ONE_SIDE:
        return 1
    most = max(len(names) for side in sides for _, names in side.groups)
    return min(range(1, min(most, MOST_ROWS) + 1), key=unlikeness)


def _uplinks(
    graph: Graph, boxes: dict[tuple[str, str], Box], positions: dict[str, tuple[int, bool]], width: float
) -> list[DrawnWire]:
    """Return cables from nodes to their switches; those of outer rows pass beside the inner ones."""
    wires = []
    for cable in graph.cables:
        if all(end[0] in positions for end in cable.ends):
            ends = [
                (boxes["uplink", end[0]].right - UPLINK_PORT, boxes["uplink", end[0]].center[1]) for end in cable.ends
            ]
            wires.append(DrawnWire("cable", cable.ends, tuple(ends)))
        for near, far in (cable.ends, cable.ends[::-1]):
            bar = boxes.get(("switch", far[0])) or boxes.get(("machine", far[0]))
            if near[0] not in positions or bar is None:
                continue
            row, below = positions[near[0]]
            uplink, cell = boxes["uplink", near[0]], boxes["node", near[0]]
            x, edge = uplink.right - UPLINK_PORT, uplink.y if below else uplink.bottom
            end = bar.bottom if below else bar.y
            spots = [(x, edge)]
            if row:
                toward = -1 if below else 1
                turn = edge + toward * (8 + 6 * row)
                beside = cell.x + width + 6 * row
                spots += [(x, turn), (beside, turn)]
                x = beside
            x = min(max(x, bar.x + 8), bar.right - 8)
            wires += [
                DrawnWire("cable", (near, far), (*spots, (x, end))),
                DrawnWire("inside", (far, (far[0], "")), ((x, end), (x, run_of(bar)))),
            ]
    return wires
