"""Which pods hold up the start of a lab: one that was ready for a moment is looked at again."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from testbed.supervisor.start import AGAIN_S, TRIES, UnreadyPods, refused_by_plugins


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


def tried(node: str, reason: str, attempts: int = TRIES, *, refused: bool = True, host_network: bool = False) -> Any:  # noqa: ANN401 - a pod
    spec = SimpleNamespace(node_name=node, host_network=host_network)
    sandbox = SimpleNamespace(failure=reason, attempts=attempts, is_refused=refused)
    return SimpleNamespace(manifest=SimpleNamespace(spec=spec), sandbox=sandbox)


GOOD = tried("node1", "", 1, refused=False)


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ([], None),
        ([GOOD], None),
        ([tried("node1", "CNI ADD x: code 7: no")], "node1: every pod: CNI ADD x: code 7: no (3 times)"),
        ([tried("node1", "no"), tried("node1", "no"), tried("node2", "", 1, refused=False)], "node1: every pod: no"),
        ([tried("node1", "no"), tried("node1", "", 1, refused=False, host_network=True)], "node1: every pod: no"),
        ([tried("node1", "no"), GOOD], None),
        ([tried("node1", "no"), tried("node1", "another")], None),
        ([tried("node1", "no"), tried("node1", "no", TRIES - 1)], None),
        ([tried("node1", "did not end within 10 s", 9, refused=False)], None),
    ],
)
def test_plugins_that_refuse_each_pod_of_a_node_are_not_waited_for(pods: list[Any], said: str | None) -> None:
    found = refused_by_plugins(pods)
    assert found is None if said is None else said in str(found)


def test_pods_that_are_ready_are_not_asked_at_each_look() -> None:
    ready, waits = FakePod([Status("ready", ready=True)]), FakePod([Status("waits", ready=False)])
    pods = UnreadyPods(cast("Any", [ready, waits]), clock=lambda: 0.0)
    for _ in range(5):
        pods.reasons()
    assert (ready.asked, waits.asked) == (1, 5)
