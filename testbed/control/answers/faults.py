"""What is broken, how it ended, and whether all is well."""

from typing import TypedDict


class FaultAnswer(TypedDict):
    """`fault … -o json`; `fault list -o json` is a list of these. A fault that has ended stays in the list until what
    it broke is ready again."""

    number: int
    """For `fault heal NUMBER`."""
    fault: str
    """The words that it was asked for by."""
    since: str
    """RFC 3339, UTC."""
    did: str
    """What was done, with the means."""
    undone: str
    """How it ends."""
    on: bool
    """False: it was over as soon as it was done."""


class HealAnswer(TypedDict):
    """One fault of `fault heal -o json`, which is a list."""

    number: int
    fault: str
    healed: bool
    did: str
    """What ended it, or why it could not be ended."""
    missing: list[str]
    """What is not ready again, a line each; empty when all is."""
    took_s: float
    """From the beginning until that was known."""


class CheckLine(TypedDict):
    """One check."""

    check: str
    holds: bool
    wrong: list[str]
    """What is wrong, a line each."""
    trace: str | None
    """What to trace next: `nginx tomcat`."""


class CheckAnswer(TypedDict):
    """`check -o json`."""

    well: bool
    checks: list[CheckLine]


class ExerciseAnswer(TypedDict):
    """An exercise that is on."""

    name: str
    since: str
    """RFC 3339, UTC."""
    begun: bool
    """False: it was on already."""
