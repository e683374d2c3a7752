"""How a message lists names: on one line, the closest to a typo first, at most ten. Pure."""

from collections.abc import Iterable

NAMES_SHOWN = 10
"""A longer list is hard to read."""
SHORTEST_GUESS = 3
"""Letters; below that, every word is one typo from another."""


def listed(names: Iterable[str], wrong: str = "") -> str:
    """Return at most ten of `names`, those similar to `wrong` first if not all fit, and the number of others."""
    known = list(dict.fromkeys(names))
    if len(known) <= NAMES_SHOWN:
        return ", ".join(known) or "none"
    likely = meant(wrong, known)
    shown = [*likely, *(name for name in known if name not in likely)][:NAMES_SHOWN]
    return f"{', '.join(shown)} and {len(known) - len(shown)} more"


def meant(wrong: str, names: Iterable[str]) -> list[str]:
    """Return the names that `wrong` is one typo away from, or begins: never a guess by meaning."""
    if len(wrong) < SHORTEST_GUESS:
        return []
    known = list(dict.fromkeys(names))
    typed = wrong.lower()
    slips = [name for name in known if one_slip_apart(typed, name.lower())]
    return slips or [name for name in known if name.lower().startswith(typed)]


def one_slip_apart(first: str, second: str) -> bool:
    """Report whether one extra, missing or different letter, or a swap of two neighbours, turns one word into the
    other.
    """
    while first and second and first[0] == second[0]:
        first, second = first[1:], second[1:]
    while first and second and first[-1] == second[-1]:
        first, second = first[:-1], second[:-1]
    is_swapped = len(first) == 2 and first == second[::-1]
    return is_swapped or (len(first) <= 1 and len(second) <= 1)


def printable(text: str) -> str:
    """Return `text` on one line: line ends and other control characters, which a name may contain, become `\\n`…"""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
