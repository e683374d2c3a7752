"""Problems in a file, collected so that a person sees all of them at once."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from testbed.errors import InvalidInput
from testbed.spelling import printable


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file; both numbers start at 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem and its place: `where` is FILE:LINE:COLUMN, or FILE alone without a position."""

    where: str
    what: str

    def __str__(self) -> str:
        return printable(f"error: {self.where}: {self.what}")


class SpecError(InvalidInput):
    """A cluster file is unusable; `problems` are all reasons, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def shorten(value: object, limit: int = 60) -> str:
    """Return `value` for a message: one line, without control characters, at most `limit` characters."""
    text = value if isinstance(value, str) and value.isprintable() and value else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def near_match(wrong: str, known: Iterable[str]) -> str:
    """Return ` - did you mean "x"?` for the nearest of `known`, or nothing if none is near."""
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(wrong.lower(), lowered, n=1)
    return f' - did you mean "{lowered[found[0]]}"?' if found else ""
