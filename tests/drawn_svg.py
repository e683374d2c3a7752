"""What is drawn in an SVG document of ours: where its texts stand and where its lines run."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from testbed.graph.geometry import Box, Spot
from testbed.graph.texts import texts_of

SVG = "{http://www.w3.org/2000/svg}"
HAIR = 0.6
"""Pixels by which a text and a line may come closer: rounding of positions to a tenth."""
Segment = tuple[Spot, Spot]


@dataclass(frozen=True, slots=True)
class Text:
    """A text and the room that it takes."""

    words: str
    box: Box


def texts(picture: str) -> list[Text]:
    """Every text."""
    words = [found.text or "" for found in ElementTree.fromstring(picture).iter(f"{SVG}text")]
    return [Text(word, box) for word, box in zip(words, texts_of(picture), strict=True)]


def lines(picture: str) -> list[Segment]:
    """Every straight piece of a path, and the edges of every box."""
    return list(_segments(ElementTree.fromstring(picture)))


def overlapping(picture: str) -> list[tuple[str, str]]:
    """Each two texts that lie upon each other."""
    return [
        (one.words, other.words)
        for one, other in itertools.combinations(texts(picture), 2)
        if _upon(one.box, other.box)
    ]


def crossed(picture: str) -> list[tuple[str, Segment]]:
    """Each text that a line runs through, with the line."""
    found = lines(picture)
    return [(text.words, segment) for text in texts(picture) for segment in found if _through(segment, text.box)]


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


def _upon(one: Box, other: Box) -> bool:
    beside = one.right <= other.x + HAIR or other.right <= one.x + HAIR
    return not (beside or one.bottom <= other.y + HAIR or other.bottom <= one.y + HAIR)


def _through(segment: Segment, box: Box) -> bool:
    """Whether the segment has a point within the box (Liang and Barsky's clipping)."""
    (x, y), (end_x, end_y) = segment
    first, last = 0.0, 1.0
    for start, step, low, high in (
        (x, end_x - x, box.x + HAIR, box.right - HAIR),
        (y, end_y - y, box.y + HAIR, box.bottom - HAIR),
    ):
        if abs(step) < 1e-9:
            if not low < start < high:
                return False
            continue
        near, far = sorted(((low - start) / step, (high - start) / step))
        first, last = max(first, near), min(last, far)
    return first < last
