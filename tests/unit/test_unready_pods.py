"""Which pods hold up the start of a lab: one that was ready for a moment is looked at again."""

from dataclasses import dataclass, field
from typing import Any, cast

from testbed.supervisor.start import AGAIN_S, UnreadyPods


@dataclass
class Status:
    """What is asked of a pod's status."""

    name: str
    ready: bool
    restarts: int = 0
    why_not_ready: str = "CrashLoopBackOff"


@dataclass
class FakePod:
    """Answers with one status after the other, the last one for ever."""

    statuses: list[Status]
    asked: int = field(default=0)

    def status(self) -> Status:
        self.asked += 1
        return self.statuses[min(self.asked, len(self.statuses)) - 1]


def test_a_pod_that_was_ready_for_a_moment_is_named_after_the_next_look_at_all() -> None:
    now = [0.0]
    crashes = FakePod([Status("crashes", ready=True), Status("crashes", ready=False, restarts=3)])
    waits = FakePod([Status("waits", ready=False)])
    pods = UnreadyPods(cast("Any", [crashes, waits]), clock=lambda: now[0])
    assert pods.reasons() == ["waits: CrashLoopBackOff"]
    assert pods.reasons() == ["waits: CrashLoopBackOff"]
    now[0] += AGAIN_S
    assert pods.reasons() == ["crashes: CrashLoopBackOff", "waits: CrashLoopBackOff"]


def test_pods_that_are_ready_are_not_asked_at_each_look() -> None:
    ready, waits = FakePod([Status("ready", ready=True)]), FakePod([Status("waits", ready=False)])
    pods = UnreadyPods(cast("Any", [ready, waits]), clock=lambda: 0.0)
    for _ in range(5):
        pods.reasons()
    assert (ready.asked, waits.asked) == (1, 5)
