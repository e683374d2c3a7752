"""Places texts beside cables without overlaps. Pure."""

import itertools
from collections.abc import Iterator, Sequence

from testbed.graph.drawing import text_width
from testbed.graph.geometry import Box, Spot
from testbed.graph.layout import GraphLayout

HEIGHT = 9.0
ASCENT = 7.0
OUTER = ("node", "switch", "machine", "service")
"""Kinds of boxes that contain all others."""
BESIDE = 20.0
"""Distance from a cable to its texts."""
LINES = 11.0
"""On either side of a cable: the lines of a traced packet along it."""
Wanted = tuple[str, Spot, Spot]
"""A text, its cable's end, and the cable's direction from there."""


def place_texts(layout: GraphLayout, wanted: Sequence[Wanted]) -> Iterator[tuple[str, Spot]]:
    """Yield each text with the start of its baseline. A text without room is omitted; the cable's title has it."""
    segments = [pair for wire in layout.part.wires if wire.kind == "cable" for pair in itertools.pairwise(wire.spots)]
    taken = [box for (kind, _), box in layout.part.boxes.items() if kind in OUTER]
    for words, spot, beside in wanted:
        width = text_width(words, "small")
        for x, y in _candidates(spot, beside, width):
            box = Box(x, y - ASCENT, width, HEIGHT)
            around = Box(box.x - LINES, box.y - LINES, box.width + 2 * LINES, box.height + 2 * LINES)
            free = not any(upon(box, other, 2) for other in taken)
            if free and not any(through(segment, around) for segment in segments):
                taken.append(box)
                yield words, (x, y)
                break


def _candidates(spot: Spot, beside: Spot, width: float) -> Iterator[Spot]:
    """Yield places beside the cable's end, best first."""
    (x, y), outward = spot, 1 if beside[1] > spot[1] else -1
    for down in (18, 30, 42, 14):
        baseline = y + outward * down + (0 if outward > 0 else 5)
        yield x + BESIDE, baseline
        yield x - BESIDE - width, baseline


def upon(one: Box, other: Box, margin: float) -> bool:
    """Return whether two boxes overlap, or are closer than the margin."""
    beside = one.right + margin <= other.x or other.right + margin <= one.x
    return not (beside or one.bottom + margin <= other.y or other.bottom + margin <= one.y)


def through(segment: tuple[Spot, Spot], box: Box) -> bool:
    """Return whether a straight line crosses the box (Liang and Barsky's clipping)."""
    (x, y), (end_x, end_y) = segment
    if (x < box.x and end_x < box.x) or (y < box.y and end_y < box.y):
        return False
    right, bottom = box.right, box.bottom
    if (x > right and end_x > right) or (y > bottom and end_y > bottom):
        return False
    first, last = 0.0, 1.0
    for start, step, low, high in ((x, end_x - x, box.x, right), (y, end_y - y, box.y, bottom)):
        if abs(step) < 1e-9:
            if not low < start < high:
                return False
            continue
        near, far = sorted(((low - start) / step, (high - start) / step))
        first, last = max(first, near), min(last, far)
    return first < last
