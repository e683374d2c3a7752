"""Where texts are in a drawn picture, so that numbers of steps avoid them. Pure."""

from collections.abc import Iterator
from xml.etree import ElementTree

from testbed.graph.drawing import text_size, text_width
from testbed.graph.geometry import Box

ASCENT = 0.76
"""Share of a letter's size above the baseline; little is below it."""


def texts_of(picture: str) -> list[Box]:
    """Return a box around each text of an SVG document from drawing.py."""
    return list(_boxes(ElementTree.fromstring(picture)))


def _boxes(root: ElementTree.Element) -> Iterator[Box]:
    for found in root.iter():
        if found.tag.rpartition("}")[2] != "text":
            continue
        classes = found.get("class", "")
        size, width = text_size(classes), text_width(found.text or "", classes)
        before = width if "end" in classes.split() else width / 2 if "middle" in classes.split() else 0.0
        x, baseline = float(found.get("x", 0)), float(found.get("y", 0))
        yield Box(x - before, baseline - ASCENT * size, width, size)
