"""What is drawn in an SVG document of ours: where its texts stand and where its lines run."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from testbed.graph.cable_texts import through, upon
from testbed.graph.drawing import text_size, text_width
from testbed.graph.geometry import Box, Spot

ASCENT = 0.76
"""Share of a letter's size above the baseline; little is below it."""
SVG = "{http://www.w3.org/2000/svg}"
HAIR = 0.6
"""Pixels by which a text and a line may come closer: rounding of positions to a tenth."""
GROUNDS = ("step", "fault")
Segment = tuple[Spot, Spot]


@dataclass(frozen=True, slots=True)
class DrawnText:
    """A text and the room that it takes."""

    words: str
    box: Box
    on_ground: bool
    """Whether it stands on a disc or sign of its own, which covers what is below it."""


def texts(picture: str) -> list[DrawnText]:
    """Return every text."""
    root = ElementTree.fromstring(picture)
    grounds = [one for one in root.iter(f"{SVG}g") if one.get("class") in GROUNDS]
    on_ground = {text for ground in grounds for text in ground.iter(f"{SVG}text")}
    found = zip(root.iter(f"{SVG}text"), texts_of(picture), strict=True)
    return [DrawnText(text.text or "", box, text in on_ground) for text, box in found]


def lines(picture: str) -> list[Segment]:
    """Return every straight piece of a path, and the edges of every box."""
    return list(_segments(ElementTree.fromstring(picture)))


def overlapping(picture: str) -> list[tuple[str, str]]:
    """Return each two texts that lie upon each other, or of which one is covered by the disc of a number."""
    known = texts(picture)
    pairs = itertools.combinations(known, 2)
    found = [(one.words, other.words) for one, other in pairs if upon(one.box, other.box, -HAIR)]
    for x, y in discs(picture):
        disc = Box(x - 6, y - 6, 12, 12)
        found += [("a number", one.words) for one in known if not one.on_ground and upon(disc, one.box, -HAIR)]
    return found


def crossed(picture: str) -> list[tuple[str, Segment]]:
    """Return each text that a line runs through, with the line."""
    found = lines(picture)
    plain = [text for text in texts(picture) if not text.on_ground]
    return [(text.words, segment) for text in plain for segment in found if through(segment, _smaller(text.box))]


def discs(picture: str) -> list[Spot]:
    """Return the middles of all numbers of a traced packet."""
    steps = [one for one in ElementTree.fromstring(picture).iter(f"{SVG}g") if one.get("class") == "step"]
    circles = [circle for step in steps for circle in step.iter(f"{SVG}circle")]
    return [(float(circle.get("cx", 0)), float(circle.get("cy", 0))) for circle in circles]


def _smaller(box: Box) -> Box:
    return Box(box.x + HAIR, box.y + HAIR, box.width - 2 * HAIR, box.height - 2 * HAIR)


def _segments(root: ElementTree.Element) -> Iterator[Segment]:
    for found in root.iter():
        kind = found.tag.removeprefix(SVG)
        if kind == "path":
            numbers = [float(word) for word in re.findall(r"-?\d+(?:\.\d+)?", found.get("d", ""))]
            spots = list(zip(numbers[::2], numbers[1::2], strict=True))
            yield from itertools.pairwise(spots)
        elif kind == "rect":
            x, y, width, height = (float(found.get(name, 0)) for name in ("x", "y", "width", "height"))
            corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
            yield from itertools.pairwise(corners)


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
