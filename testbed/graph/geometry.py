"""Boxes, wires and a finished layout, in pixels from the top left corner. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.graph.model import Point

Spot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle that represents an object of the lab."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Return the right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Return the lower edge."""
        return self.y + self.height

    @property
    def center(self) -> Spot:
        """Return the centre."""
        return self.x + self.width / 2, self.y + self.height / 2

    def moved(self, right: float, down: float) -> "Box":
        """Return the same box elsewhere."""
        return replace(self, x=self.x + right, y=self.y + down)

    def flipped(self, height: float) -> "Box":
        """Return the box upside down within this height."""
        return replace(self, y=height - self.bottom)


@dataclass(frozen=True, slots=True)
class DrawnWire:
    """A connection between two places, drawn through `spots`."""

    kind: str
    """`cable`, `veth`, `kernel` (inside a node), `agent` (through its process).

    Not drawn: `inside` an object, and `around`, a path that packets take only if seen on it.
    """
    ends: tuple[Point, Point]
    spots: tuple[Spot, ...]

    def mapped(self, right: float, down: float, flip: float | None) -> "DrawnWire":
        """Return the same wire elsewhere; with `flip`, first upside down within this height."""
        spots = self.spots if flip is None else tuple((x, flip - y) for x, y in self.spots)
        return replace(self, spots=tuple((x + right, y + down) for x, y in spots))


@dataclass(frozen=True, slots=True)
class Part:
    """The inside of one node (or of the whole picture): boxes by kind and name, wires between places."""

    width: float
    height: float
    boxes: Mapping[tuple[str, str], Box]
    """By kind (`node`, `pod`, `bridge`, `overlay`, `agent`, `uplink`, `switch`, `machine`) and name."""
    wires: tuple[DrawnWire, ...]

    def placed(self, right: float, down: float, flip: bool) -> "Part":
        """Return the same part elsewhere in a larger picture, upside down if the node is below the underlay."""
        height = self.height if flip else None
        return replace(
            self,
            boxes={
                key: (box.flipped(self.height) if flip else box).moved(right, down) for key, box in self.boxes.items()
            },
            wires=tuple(wire.mapped(right, down, height) for wire in self.wires),
        )


def packed(wanted: Sequence[float], widths: Sequence[float], gap: float) -> list[float]:
    """Return left edges of boxes in a row: each centred at its wanted position; boxes that would touch form a block
    centred on the average of theirs. `wanted` must be sorted.
    """
    blocks: list[tuple[list[int], float]] = []  # members and the left edge of each block

    def width_of(members: Sequence[int]) -> float:
        return sum(widths[one] for one in members) + gap * (len(members) - 1)

    def left_of(members: Sequence[int]) -> float:
        wishes, before = [], 0.0
        for one in members:
            wishes.append(wanted[one] - widths[one] / 2 - before)
            before += widths[one] + gap
        return sum(wishes) / len(wishes)

    for number in range(len(wanted)):
        members = [number]
        while blocks and blocks[-1][1] + width_of(blocks[-1][0]) + gap > left_of(members):
            members = blocks.pop()[0] + members
        blocks.append((members, left_of(members)))
    lefts = []
    for members, edge in blocks:
        for one in members:
            lefts.append(edge)
            edge += widths[one] + gap
    return lefts
