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


class ExerciseOn(TypedDict):
    """An exercise that is on."""

    name: str
    """`exercise/1`."""
    level: int
    seed: int
    """Which variant; 0: that of the docs."""
    since: str
    """RFC 3339, UTC."""
    hints: int
    """How many were given."""


class CheckAnswer(TypedDict):
    """`check -o json`; `check --all -o json` is a list of these."""

    lab: str
    exercise: ExerciseOn | None
    """Null in a lab without one."""
    well: bool
    checks: list[CheckLine]
    faults: list[str]
    """Active faults that can explain what does not hold: `fault 1 (partition) is on: node1 / node2`."""


class ExerciseAnswer(ExerciseOn):
    """An exercise that `up exercise/N` has begun."""

    complaint: str
    """A user's, with the names of this variant."""
    begun: bool
    """False: it was on already."""


class HintAnswer(TypedDict):
    """`hint -o json`."""

    exercise: str
    number: int
    of: int
    hint: str
