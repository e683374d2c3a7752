"""Fits a table into a screen width: no cell is shortened and no column omitted. Pure.

Lists and texts wrap between words. If that is not enough, long cells of the last column are put below their rows, then
whole columns, each with its heading. A word is never broken: the terminal wraps one that is wider than the screen.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

GAP = 2
"""Spaces between two columns."""
INDENT = 4
"""Of a line that belongs to a row."""
MOST_LINES = 3
"""A text that would wrap to more lines gets its own line."""
HEADING_STYLE = "bold"


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The place of each column."""

    widths: Mapping[int, int]
    """Widths of the columns that are side by side, by number."""
    below: tuple[int, ...]
    """Columns with their own line."""
    last: int | None = None
    """The last column, if cells wider than it go below their rows."""


def table_lines(
    headings: Sequence[str], rows: Sequence[Sequence[Text]], width: int, right: frozenset[int] = frozenset()
) -> list[Text]:
    """Return the lines of a table; the columns in `right` are right-aligned."""
    texts = [[heading, *(row[number].plain for row in rows)] for number, heading in enumerate(headings)]
    layout = lay_out(texts, width)
    titles = [Text(heading, HEADING_STYLE) for heading in headings]
    lines = list(_beside(titles, layout, right))
    for row in rows:
        below = layout.below
        if layout.last is not None and _natural(row[layout.last].plain) > layout.widths[layout.last]:
            below = (layout.last,)
        lines += _beside([Text() if number in below else cell for number, cell in enumerate(row)], layout, right)
        lines += _below(titles, row, below, width)
    return lines


def lay_out(columns: Sequence[Sequence[str]], width: int) -> TableLayout:
    """Find each column's place; a column is its heading and its cells."""
    natural = [max(map(_natural, column)) for column in columns]
    # The first column names the row.
    least = [*natural[:1], *(max(map(_least, column)) for column in columns[1:])]
    kept, last = list(range(len(columns))), None
    if _sum(least) > width and _sum([*least[:-1], _natural(columns[-1][0])]) <= width:
        last = kept[-1]
        least[last] = _natural(columns[last][0])
        natural[last] = width - _sum(least[:-1]) - GAP
    while len(kept) > 1 and _sum(least[number] for number in kept) > width:
        kept.remove(_spared(kept, least, width))
    if len(kept) == 1:
        least[0] = min(least[0], width)
    widths = {number: natural[number] for number in kept}
    while _sum(widths.values()) > width and (wide := [number for number in kept if widths[number] > least[number]]):
        widths[max(wide, key=lambda number: (widths[number], number))] -= 1
    tight = {
        number: widths[number]
        if number == last
        else max(cell_len(line) for cell in columns[number] for line in wrap(cell, widths[number]))
        for number in kept
    }
    return TableLayout(tight, tuple(number for number in range(len(columns)) if number not in widths), last)


def _spared(kept: Sequence[int], least: Sequence[int], width: int) -> int:
    """Return the column to put below: the last one without which the others fit, or the widest."""
    whole = _sum(least[number] for number in kept)
    enough = [number for number in kept[1:] if whole - least[number] - GAP <= width]
    return max(enough) if enough else max(kept[1:], key=lambda number: (least[number], number))


def blocks(columns: Sequence[Sequence[str]], keys: int, width: int) -> list[list[int]]:
    """Split similar columns into several tables that fit: the column numbers of each, after the first `keys`."""
    first = list(range(keys))
    natural = [max(map(_natural, column)) for column in columns]
    found: list[list[int]] = []
    for number in range(keys, len(columns)):
        if found and _sum(natural[one] for one in (*first, *found[-1], number)) <= width:
            found[-1].append(number)
        else:
            found.append([number])
    return [[*first, *block] for block in found] or [first]


def wrap(text: str, width: int) -> list[str]:
    """Wrap a text between its words; keep its own line breaks."""
    return [line for part in text.split("\n") for line in _wrapped(part, width)]


def _wrapped(text: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    return textwrap.wrap(text, max(1, width), break_long_words=False, break_on_hyphens=False) or [""]


def _natural(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def _least(text: str) -> int:
    """Return a cell's minimum width: a list's longest entry, and for a text a readable width."""
    words = text.split()
    longest = max(map(cell_len, words), default=0)
    is_list = all(word.endswith(",") for word in words[:-1])
    return longest if is_list else max(longest, -(-_natural(text) // MOST_LINES))


def _sum(widths: Iterable[int]) -> int:
    """Return the total width of columns."""
    known = list(widths)
    return sum(known) + GAP * (len(known) - 1)


def _beside(cells: Sequence[Text], layout: TableLayout, right: frozenset[int]) -> Iterator[Text]:
    """Yield the lines of the columns that are side by side."""
    wrapped = {number: wrap(cells[number].plain, width) for number, width in layout.widths.items()}
    for line in range(max(map(len, wrapped.values()), default=0)):
        shown = Text()
        for number, width in layout.widths.items():
            text = wrapped[number][line] if line < len(wrapped[number]) else ""
            space = " " * (width - cell_len(text))
            shown.append(space if number in right else "")
            shown.append(text, cells[number].style)
            shown.append(("" if number in right else space) + " " * GAP)
        shown.rstrip()
        yield shown


def _below(titles: Sequence[Text], cells: Sequence[Text], below: Sequence[int], width: int) -> Iterator[Text]:
    """Yield the lines of the cells with a line of their own."""
    label = max((cell_len(titles[number].plain) for number in below), default=0)
    for number in below:
        title, cell = titles[number], cells[number]
        start = INDENT + label + GAP
        if start + max(map(cell_len, cell.plain.split()), default=0) > width:
            # A long name fits below its heading if it does not fit after it.
            yield Text.assemble(" " * INDENT, title)
            title, start = Text(), INDENT + GAP
        for text in filter(None, wrap(cell.plain, width - start)):
            yield Text.assemble(" " * INDENT, title, " " * (start - INDENT - cell_len(title.plain)), (text, cell.style))
            title = Text()
