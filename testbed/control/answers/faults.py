"""Active faults, how they ended, and the checks of a lab."""

from typing import TypedDict


class FaultAnswer(TypedDict):
    """`fault … -o json`; `fault list -o json` is a list of these.

    A fault that has ended stays in the list until everything it broke is ready again.
    """

    number: int
    """For `fault heal NUMBER`."""
    fault: str
    """Its words, as requested."""
    since: str
    """RFC 3339, UTC."""
    did: str
    """What was done, with its means."""
    undone: str
    """How it ends."""
    on: bool
    """False: it ended immediately."""


class HealAnswer(TypedDict):
    """One fault of `fault heal -o json`, which is a list."""

    number: int
    fault: str
    healed: bool
    did: str
    """What ended it, or why it could not be ended."""
    missing: list[str]
    """What is not ready yet, one line each; empty if all is ready."""
    took_s: float
    """From the request until that was known."""


class CheckLine(TypedDict):
    """One check."""

    check: str
    holds: bool
    wrong: list[str]
    """The problems, one line each."""
    trace: str | None
    """The next thing to trace: `nginx tomcat`."""


class ExerciseOn(TypedDict):
    """An exercise in progress."""

    name: str
    """`exercise/1`."""
    level: int
    seed: int
    """Selects the variant; 0: that of the docs."""
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
    """Active faults that can explain failed checks: `fault 1 (partition) is on: node1 / node2`."""


class ExerciseAnswer(ExerciseOn):
    """An exercise started by `up exercise/N`."""

    complaint: str
    """A user's complaint, with the names of this variant."""
    begun: bool
    """False: it was in progress already."""


class HintAnswer(TypedDict):
    """`hint -o json`."""

    exercise: str
    number: int
    of: int
    hint: str
