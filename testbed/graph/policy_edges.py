"""What NetworkPolicies allow a pod, and others to it, as arrows on the picture. Pure."""

from collections.abc import Iterable, Iterator
from math import hypot

from testbed.control.answers.policy import PolicyPair
from testbed.graph.drawing import cross, element, group
from testbed.graph.geometry import Box, Spot
from testbed.graph.layout import GraphLayout
from testbed.graph.policy_matrix import reach, sentence_of

BEND = 0.12
"""How far an arrow bends to its left, as a share of its length: so the two of a pair lie apart."""
TIP = 8.0
STYLE = """
.lab .policy path { fill: none; stroke-width: 2; }
.lab .policy path.tip { stroke: none; }
.lab .policy.good path { stroke: #1a7f37; }
.lab .policy.good path.tip { fill: #1a7f37; }
.lab .policy.busy path { stroke: #bf8700; stroke-dasharray: 10 4; }
.lab .policy.busy path.tip { fill: #bf8700; }
.lab .policy.bad path { stroke: #cf222e; stroke-dasharray: 3 4; }
.lab .policy.bad path.tip { fill: #cf222e; }
.lab .policy.bad path.no { stroke-dasharray: none; stroke-width: 2.6; }
"""


def draw_edges(layout: GraphLayout, pairs: Iterable[PolicyPair]) -> str:
    """Return an arrow for each pair, from its sender to its receiver; nothing if everything passes between all.

    Pods without a box of their own are left out.
    """
    known = list(pairs)
    if all(reach(pair) == "good" for pair in known):
        return ""
    return element("g", "".join(_edges(layout, known)), class_="policies")


def _edges(layout: GraphLayout, pairs: Iterable[PolicyPair]) -> Iterator[str]:
    for pair in pairs:
        source, target = (layout.part.boxes.get(("pod", pair[end])) for end in ("source", "target"))
        if source is not None and target is not None and source != target:
            passes = reach(pair)
            yield group(_arrow(source, target, denied=passes == "bad"), f"policy {passes}", sentence_of(pair))


def _arrow(source: Box, target: Box, *, denied: bool) -> str:
    """Return a bent line between the boxes' edges with a tip; a denied one has a cross in its middle."""
    (x1, y1), (x2, y2) = source.center, target.center
    bend = ((x1 + x2) / 2 + (y2 - y1) * BEND, (y1 + y2) / 2 - (x2 - x1) * BEND)
    start, end = edge_toward(source, bend), edge_toward(target, bend)
    shape = f"M {start[0]:.1f} {start[1]:.1f} Q {bend[0]:.1f} {bend[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
    middle = ((start[0] + 2 * bend[0] + end[0]) / 4, (start[1] + 2 * bend[1] + end[1]) / 4)
    return element("path", d=shape) + _tip(bend, end) + (cross(middle, "no") if denied else "")


def _tip(before: Spot, end: Spot) -> str:
    length = hypot(end[0] - before[0], end[1] - before[1]) or 1.0
    x, y = (end[0] - before[0]) / length * TIP, (end[1] - before[1]) / length * TIP
    left, right = (end[0] - x - y / 2, end[1] - y + x / 2), (end[0] - x + y / 2, end[1] - y - x / 2)
    corners = " L ".join(f"{corner[0]:.1f} {corner[1]:.1f}" for corner in (end, left, right))
    return element("path", d=f"M {corners} Z", class_="tip")


def edge_toward(box: Box, spot: Spot) -> Spot:
    """Return where the line from the box's centre to a place outside leaves the box; the centre for its own place."""
    (x, y), (to_x, to_y) = box.center, spot
    shares = [half / abs(away) for half, away in ((box.width / 2, to_x - x), (box.height / 2, to_y - y)) if away]
    share = min(shares, default=0.0)
    return x + (to_x - x) * share, y + (to_y - y) * share
