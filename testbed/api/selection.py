"""The parameters of a query: flags, label and field selectors. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from testbed.api.failure import Failure
from testbed.cluster.problems import shorten
from testbed.cluster.selectors import parse_selector

Object = Mapping[str, Any]
Test = Callable[[Object], bool]


TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
"""As Go's strconv.ParseBool reads it."""
LONGEST_NUMBER = 19
"""Digits of a 64-bit number."""


def is_true(text: str | None) -> bool:
    """Return whether a flag of a query is set."""
    return text in TRUE


def number(value: object, name: str) -> int | None:
    """Return a number of a query or of options; None where there is none. Raises Failure (400)."""
    if value is None or value == "":
        return None
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER):
        raise Failure(400, f"{name}: not a number (got {shorten(text)})")
    return int(text)


def selection(labels: str, fields: str) -> Test:
    """Return a function that reports whether an object is selected. Raises Failure (400)."""
    try:
        requirements = parse_selector(labels) if labels else ()
    except ValueError as error:
        raise Failure(400, f"labelSelector: {error}") from error
    wanted = [_field(part) for part in fields.split(",") if part]

    def is_meant(item: Object) -> bool:
        own = item["metadata"].get("labels") or {}
        return all(one.holds(own) for one in requirements) and all(test(item) for test in wanted)

    return is_meant


def _field(part: str) -> Test:
    key, equals, value = part.partition("=")
    negated = key.endswith("!")
    path = key.removesuffix("!").strip().split(".")
    value = value.removeprefix("=").strip()
    if not equals or not path[0]:
        raise Failure(400, f"fieldSelector: invalid (got {part}; want FIELD=VALUE or FIELD!=VALUE)")

    def test(item: Object) -> bool:
        found: Any = item
        for word in path:
            found = found.get(word) if isinstance(found, Mapping) else None
        if found is None and path == ["involvedObject", "uid"]:
            # An event here names its object by kind, namespace and name.
            return True
        text = "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)
        return (text == value) is not negated

    return test
