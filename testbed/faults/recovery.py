"""What is not yet ready after faults have ended, and which fault caused it. Pure.

A fault ends at once; what it broke takes time to recover: an agent starts and takes its lease, the others learn of it,
pods start. `fault heal` and the end of a fault wait for that (`lab_recovery.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from testbed.faults.catalogue import FaultRequest


@dataclass(frozen=True, slots=True)
class NotReady:
    """One part of the lab that is not in its expected state."""

    subject: str
    """`node1`, `pod shell1`, `etcd`, `names` …"""
    machine: str | None
    """Its machine; None: it concerns the whole lab."""
    why: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.why}"


@dataclass(frozen=True, slots=True)
class Touched:
    """What a fault may have broken."""

    machines: frozenset[str]
    excused: frozenset[str]
    """Subjects that were not ready before the fault."""


class Recovery(Protocol):
    """Checks the effects of faults."""

    def before(self, request: FaultRequest) -> Touched:
        """Return what the new fault may break."""

    def missing(self, ended: Sequence[Touched], *, others: bool) -> list[str]:
        """Return what the end of these faults has not restored yet, one line each; `others`: other faults are still
        active.
        """


def awaited(found: Sequence[NotReady], ended: Sequence[Touched], *, others: bool) -> list[NotReady]:
    """Return the part of `not_ready` that the end of these faults must restore.

    While other faults are active, that is only what is on machines that the ended faults affected.
    """
    return [
        one
        for one in found
        if any(one.subject not in fault.excused and (not others or one.machine in fault.machines) for fault in ended)
    ]
