"""The picture of encapsulation: the stack of headers at every hop, growing and shrinking along the path. Pure."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.graph.drawing import MONO, WIDE, Figure, element, label, line, rectangle, svg_document
from testbed.graph.geometry import Box
from testbed.graph.headers import LEG_WORDS, HeaderCell, HeaderChange, Hop, StackRow, row_of, rows_of
from testbed.graph.path import COLOURS, class_of

LEFT = 24.0
PLACES = 196.0
"""Room for the hops' numbers and names, left of the headers."""
GAP = 12.0
"""Between headers, for the double line around an encapsulated packet."""
INSET = 7.0
NAME_LINE, TEXT_LINE = 16.0, 13.0
ROW = NAME_LINE + 3 * TEXT_LINE + 8
CHANGE, AGENT = 26.0, 46.0
"""Height of the text between two rows."""
LEG = 30.0
LEGEND = 30.0
SIZE = 64.0
"""Room for the frame's size, right of the headers."""
DOUBLE = (3.0, 5.5)
"""Distance in pixels of the double line around an encapsulated packet."""

STYLE = "".join(
    f"""
.lab .leg-{class_of(leg)} .leg-bar {{ fill: {colour}; }}
.lab text.leg-{class_of(leg)} {{ fill: {colour}; font-weight: bold; }}"""
    for leg, colour in COLOURS.items()
)
STYLE += """
.lab .header rect { fill: #eaeef2; stroke: #57606a; stroke-width: 1.1; }
.lab .header.Ethernet rect { fill: #eaeef2; }
.lab .header.IPv4 rect, .lab .header.IPv6 rect { fill: #ddf4ff; stroke: #0969da; }
.lab .header.UDP rect, .lab .header.TCP rect, .lab .header.ICMP rect, .lab .header.ICMPv6 rect {
  fill: #dafbe1; stroke: #1a7f37; }
.lab .header.VXLAN rect, .lab .header.WireGuard rect, .lab .header.tag rect { fill: #fbefff; stroke: #8250df; }
.lab .header.encrypted rect { fill: #d0d7de; stroke: #1f2328; stroke-dasharray: 6 2; }
.lab .header.payload rect { fill: #ffffff; }
.lab .header text.changed { font-weight: bold; fill: #a40e26; }
.lab .double { fill: none; stroke: #8250df; stroke-width: 1.2; }
.lab .border { fill: none; stroke: #9a6700; stroke-width: 1.6; stroke-dasharray: 8 4; }
.lab .process { fill: #fff8c5; stroke: none; }
"""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Start and width of each column of headers."""

    left: Mapping[int, float]
    width: Mapping[int, float]

    @property
    def right(self) -> float:
        return max(self.left[column] + self.width[column] for column in self.left)

    def box(self, cell: HeaderCell, y: float) -> Box:
        last = 2 if cell.name == "encrypted" else cell.column
        return Box(self.left[cell.column], y, self.left[last] + self.width[last] - self.left[cell.column], ROW)


def draw_stacks(trace: Mapping[str, Any], top: float = 0.0) -> Figure:
    """Draw the rows of a whole trace, from `top` on, with their legend. The hops must have their frames."""
    rows = rows_of(trace["hops"])
    if not rows:
        return Figure("", 0, 0)
    columns = _columns(rows)
    pieces = [_legend(rows, top)]
    y = top + LEGEND
    for leg, own in itertools.groupby(rows, key=lambda row: row.leg):
        inner = next(hop["inner"] for hop in trace["hops"] if hop["leg"] == leg)
        words = f"{LEG_WORDS[leg]}: {inner['proto']} {inner['info']}"
        start = y
        drawn = [label(words, (LEFT + 12, y + 18), f"leg-{class_of(leg)}")]
        y += LEG
        for row in own:
            if row.change is not None:
                drawn.append(_change(row.change, columns, y))
                y += AGENT if row.change.by_agent else CHANGE
            drawn.append(_row(row, columns, y))
            y += ROW
        drawn.append(element("rect", x=LEFT, y=start + 4, width=4, height=y - start - 4, class_="leg-bar"))
        pieces.append(element("g", "".join(drawn), class_=f"leg-{class_of(leg)}", data_stacks=leg))
        y += 18
    ends = [_change_right(row.change, columns) for row in rows if row.change is not None]
    return Figure("".join(pieces), max(columns.right + SIZE, _legend_width(rows), *ends) + LEFT, y - top)


def draw_stack(hop: Hop, before: Hop | None) -> str:
    """Draw one hop's headers as a document; `before` is the hop before it in the same leg."""
    row = row_of(hop, before)
    columns = _columns([row], places=0.0)
    # The text above describes the encapsulation in this step.
    content, y = "", 8.0
    if row.change is not None and row.change.by_agent:
        content, y = _change(row.change, columns, 0), AGENT + 2
    content += "".join(_cell(cell, columns.box(cell, y)) for cell in row.cells) + _double(row, columns, y)
    content += _size(row, columns, y)
    width = (
        columns.right + SIZE if row.change is None else max(columns.right + SIZE, _change_right(row.change, columns))
    )
    return svg_document(content, width + LEFT, y + ROW + 8)


def draw_each_stack(hops: Sequence[Hop]) -> list[str]:
    """Draw the headers at every hop, each as a document."""
    return [draw_stack(hop, _before(hops, at)) for at, hop in enumerate(hops)]


def _before(hops: Sequence[Hop], at: int) -> Hop | None:
    """Return the hop before one in the same leg."""
    return hops[at - 1] if at and hops[at - 1]["leg"] == hops[at]["leg"] else None


def _columns(rows: Sequence[StackRow], places: float = PLACES) -> _Columns:
    widths: dict[int, float] = {}
    wide: list[float] = []
    for cell in (cell for row in rows for cell in row.cells):
        if cell.name == "encrypted":
            wide.append(_wanted(cell))
        else:
            widths[cell.column] = max(widths.get(cell.column, 0.0), _wanted(cell))
    if wide:
        for column in (0, 1, 2):
            widths.setdefault(column, 0.0)
        missing = max(wide) - sum(widths[column] for column in (0, 1, 2)) - 2 * GAP
        widths[2] += max(0.0, missing)
    left, x = {}, LEFT + places
    for column in range(min(widths), max(widths) + 1):
        left[column] = x
        x += widths.setdefault(column, 0.0) + GAP
    return _Columns(left, widths)


def _wanted(cell: HeaderCell) -> float:
    first = len(cell.name) * 11.5 * WIDE + 12 + len(_bytes(cell)) * 9 * WIDE
    return 2 * INSET + max([first, *(len(text) * 10 * MONO for text in cell.lines)])


def _bytes(cell: HeaderCell) -> str:
    return f"{cell.size} B"


def _row(row: StackRow, columns: _Columns, y: float) -> str:
    pieces = [label(row.numbers, (LEFT + 12, y + NAME_LINE), "name")]
    for number, place in enumerate(row.places):
        pieces.append(label(place, (LEFT + 12, y + NAME_LINE + (number + 1) * TEXT_LINE), "mono", PLACES - 20))
    pieces += [_cell(cell, columns.box(cell, y)) for cell in row.cells]
    pieces += [_double(row, columns, y), _size(row, columns, y)]
    return element("g", "".join(pieces), class_="stack", data_hops=row.numbers)


def _cell(cell: HeaderCell, box: Box) -> str:
    pieces = [
        rectangle(box, "", 3),
        label(cell.name, (box.x + INSET, box.y + NAME_LINE - 1), "name"),
        label(_bytes(cell), (box.right - INSET, box.y + NAME_LINE - 1), "small end"),
    ]
    for number, text in enumerate(cell.lines):
        classes = "mono changed" if number in cell.changed else "mono"
        pieces.append(label(text, (box.x + INSET, box.y + NAME_LINE + (number + 1) * TEXT_LINE), classes))
    return element("g", "".join(pieces), class_=f"header {cell.name}")


def _double(row: StackRow, columns: _Columns, y: float) -> str:
    """Return the double line around an overlay's payload."""
    inside = [columns.box(cell, y) for cell in row.cells if cell.wrapped]
    if not inside:
        return ""
    left, right = min(box.x for box in inside), max(box.right for box in inside)
    return "".join(
        rectangle(Box(left - by, y - by, right - left + 2 * by, ROW + 2 * by), "double", 3 + by) for by in DOUBLE
    )


def _size(row: StackRow, columns: _Columns, y: float) -> str:
    right = max(columns.box(cell, y).right for cell in row.cells)
    return label(f"{row.size} bytes", (right + GAP, y + ROW / 2 + 4), "small")


def _change_right(change: HeaderChange, columns: _Columns) -> float:
    """Return the right end of the text between two rows."""
    return max(columns.right, min(columns.left.values()) + 2 * INSET + len(change.text) * 9 * WIDE)


def _change(change: HeaderChange, columns: _Columns, y: float) -> str:
    left = min(columns.left.values())
    if not change.by_agent:
        return label(change.text, (left, y + CHANGE / 2 + 3), "small")
    middle, right = y + AGENT / 2, _change_right(change, columns)
    edges = (middle - 12, middle + 12)
    pieces = [element("rect", x=left, y=edges[0], width=right - left, height=24, class_="process")]
    pieces += [element("path", d=line([(left, edge), (right, edge)]), class_="border") for edge in edges]
    pieces.append(label(change.text, (left + INSET, middle + 3), "small"))
    return "".join(pieces)


def _entries(rows: Sequence[StackRow]) -> list[tuple[str, str]]:
    found = [(f"leg {leg}", LEG_WORDS[leg]) for leg in dict.fromkeys(row.leg for row in rows)]
    if any(cell.wrapped for row in rows for cell in row.cells):
        found.append(("double", "encapsulated packet"))
    if any(row.change is not None and row.change.by_agent for row in rows):
        found.append(("border", "border between kernel and agent"))
    return [*found, ("changed", "changed since the row above")]


def _legend_width(rows: Sequence[StackRow]) -> float:
    return LEFT + sum(40 + len(words) * 9 * WIDE for _, words in _entries(rows))


def _legend(rows: Sequence[StackRow], top: float) -> str:
    pieces, x, y = [], LEFT, top + 14
    for kind, words in _entries(rows):
        if kind == "double":
            pieces += [
                rectangle(Box(x - by + 3, y - 8 - by + 3, 16 + 2 * by, 6 + 2 * by), "double", 2) for by in (0, 2.5)
            ]
        elif kind == "border":
            pieces.append(element("path", d=line([(x, y - 3), (x + 24, y - 3)]), class_="border"))
        elif kind == "changed":
            pieces.append(element("g", label("1", (x + 14, y), "mono changed"), class_="header"))
        else:
            leg = class_of(kind.removeprefix("leg "))
            bar = element("rect", x=x, y=y - 6, width=22, height=5, class_="leg-bar")
            pieces.append(element("g", bar, class_=f"leg-{leg}"))
        pieces.append(label(words, (x + 30, y), "small"))
        x += 40 + len(words) * 9 * WIDE
    return element("g", "".join(pieces), class_="legend")
