"""Label selectors as kubectl takes them: `app=web`, `app!=web`, `app`, `!app`, `app in (a, b)`, joined by commas."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

# Compiled where a selector is read: every verb loads this.
_SET = r"(?P<key>\S+)\s+(?P<how>in|notin)\s+\((?P<values>[^()]*)\)"
_EQUAL = r"(?P<key>[^=!\s]+)\s*(?P<how>!=|==?)\s*(?P<value>[^=!\s]*)"
_EXISTS = r"(?P<not>!?)\s*(?P<key>[^=!\s()]+)"
ObjectT = TypeVar("ObjectT", bound=Mapping[str, Any])
_COMMA = r",(?![^(]*\))"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One part of a selector."""

    key: str
    values: frozenset[str] | None
    """One of these; None: any."""
    negated: bool = False
    """Negated; a missing label has none of the values."""

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels matches."""
        here = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return here is not self.negated


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """Parse a selector; all of its parts must match. Raises ValueError."""
    return tuple(_requirement(part.strip()) for part in re.split(_COMMA, text))


def _requirement(text: str) -> Requirement:
    if found := re.fullmatch(_SET, text):
        values = frozenset(value.strip() for value in found["values"].split(","))
        return Requirement(found["key"], values, found["how"] == "notin")
    if found := re.fullmatch(_EQUAL, text):
        return Requirement(found["key"], frozenset({found["value"]}), found["how"] == "!=")
    if found := re.fullmatch(_EXISTS, text):
        return Requirement(found["key"], None, bool(found["not"]))
    raise ValueError(f"not a selector (got {text!r}; want KEY=VALUE, KEY!=VALUE, KEY, !KEY or KEY in (A, B))")


def selected(found: Sequence[ObjectT], requirements: Sequence[Requirement]) -> list[ObjectT]:
    """Return the objects that match all requirements."""
    return [
        item
        for item in found
        if all(requirement.holds(item["metadata"].get("labels") or {}) for requirement in requirements)
    ]
