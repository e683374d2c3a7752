"""What many nodes or pods lack, said so that somebody reads it. Pure."""

from collections.abc import Iterable

NAMED = 3
"""Names of those that lack the same."""


def in_few_words(lacking: Iterable[str]) -> str:
    """Lines such as `node1: no answer yet`, those of one reason together: `node1, node2, node3 and 9 more: …`."""
    by_reason: dict[str, list[str]] = {}
    for line in lacking:
        name, colon, reason = line.partition(": ")
        by_reason.setdefault(reason if colon else line, []).append(name if colon else "")
    return "; ".join(_together(names, reason) for reason, names in by_reason.items())


def _together(names: list[str], reason: str) -> str:
    shown = ", ".join(filter(None, names[:NAMED]))
    if not shown:
        return reason
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{shown}{more}: {reason}"
