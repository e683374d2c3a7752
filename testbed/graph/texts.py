"""Where texts stand in a drawn picture, so that numbers of steps keep off them. Pure."""

from collections.abc import Iterator
from math import hypot
from xml.etree import ElementTree

from testbed.graph.drawing import MONO, WIDE
from testbed.graph.geometry import Box, Spot

ASCENT = 0.76
"""Of a letter's size above the baseline; what goes below it is little."""
SIZES = {"title": 17.0, "small": 9.0, "mono": 10.0}
"""Pixels by class, as drawing.STYLE has them; others are 11."""


def texts_of(picture: str) -> list[Box]:
    """A box around each text of an SVG document that drawing.py has made."""
    return list(_boxes(ElementTree.fromstring(picture)))


def _boxes(root: ElementTree.Element) -> Iterator[Box]:
    for found in root.iter():
        if found.tag.rpartition("}")[2] != "text":
            continue
        classes = found.get("class", "").split()
        size = next((size for name, size in SIZES.items() if name in classes), 11.0)
        width = len(found.text or "") * size * (MONO if "mono" in classes else WIDE)
        before = width if "end" in classes else width / 2 if "middle" in classes else 0.0
        x, baseline = float(found.get("x", 0)), float(found.get("y", 0))
        yield Box(x - before, baseline - ASCENT * size, width, size)


def touches(center: Spot, radius: float, box: Box) -> bool:
    """Whether a disc lies over any part of the box."""
    x = min(max(center[0], box.x), box.right)
    y = min(max(center[1], box.y), box.bottom)
    return hypot(center[0] - x, center[1] - y) < radius
