"""What is not ready again after faults have ended, and whose doing that is. Pure.

A fault ends at once; what it broke comes back in its own time: an agent starts and takes its lease, the others learn of
it, pods start. `fault heal` and the end of a fault wait for that (`lab_recovery.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from testbed.faults.catalogue import FaultRequest


@dataclass(frozen=True, slots=True)
class NotReady:
    """One thing of the lab that is not as it has to be."""

    subject: str
    """`node1`, `pod shell1`, `etcd`, `names` …"""
    machine: str | None
    """That it is on; None: it is about the whole lab."""
    why: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.why}"


@dataclass(frozen=True, slots=True)
class Touched:
    """What a fault may have broken."""

    machines: frozenset[str]
    excused: frozenset[str]
    """Subjects that were not ready before it."""


class Recovery(Protocol):
    """Looks at what faults have broken."""

    def before(self, request: FaultRequest) -> Touched:
        """What the fault that is about to be injected may break."""

    def missing(self, ended: Sequence[Touched], *, others: bool) -> list[str]:
        """What the end of these faults has not brought back yet, a line each; `others`: other faults are still on."""


def awaited(found: Sequence[NotReady], ended: Sequence[Touched], *, others: bool) -> list[NotReady]:
    """Of what is not ready, what the end of these faults has to bring back.

    While others are on, that is what is on machines that the ended ones touched.
    """
    return [
        one
        for one in found
        if any(one.subject not in fault.excused and (not others or one.machine in fault.machines) for fault in ended)
    ]
