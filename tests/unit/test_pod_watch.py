"""The pod watch tells of every change that a subscriber may depend on, and of nothing else."""

from dataclasses import replace
from typing import cast

from testbed.cluster.object_key import key_of
from testbed.lab.changes import Changes
from testbed.lab.pod_watch import PodWatch
from testbed.pods.pod import Pod
from testbed.pods.pod_state import ContainerStatus, PodStatus
from tests.waiting import wait_until

CONTAINER = ContainerStatus("c", "echo", "running", "", "", False, 0, None, "", None, 7)
STARTING = PodStatus("a", "node1", "10.0.1.2", "Running", "Running", False, 0, (CONTAINER,), None, "", 5)


class StandIn:
    """A pod that says of itself what a test wants."""

    def __init__(self, status: PodStatus) -> None:
        self.now = status
        self.name = status.name
        self.key = key_of(status.name)

    def status(self) -> PodStatus:
        return self.now


def test_a_pod_that_becomes_ready_by_itself_is_noticed_soon() -> None:
    pod, changes, calls = StandIn(STARTING), Changes(), list[bool]()
    watch = PodWatch(lambda: [cast(Pod, pod)], changes)
    watch.start()
    changes.subscribe("test", lambda: calls.append(pod.now.ready))
    wait_until(lambda: calls, timeout_s=5, what="the subscriber's first call")
    pod.now = replace(STARTING, ready=True)
    wait_until(lambda: calls[-1], timeout_s=5, what="ready is told without anybody saying so")


def test_a_change_that_a_pod_reports_is_handled_at_once_and_unchanged_state_is_not_reported() -> None:
    pod, changes, calls, looks = StandIn(replace(STARTING, ready=True)), Changes(), list[bool](), list[int]()

    def pods() -> list[Pod]:
        looks.append(1)
        return [cast(Pod, pod)]

    watch = PodWatch(pods, changes)
    watch.start()
    wait_until(lambda: looks, timeout_s=5, what="the first look")
    changes.subscribe("test", lambda: calls.append(pod.now.terminating))
    assert changes.notify_and_wait(5) == []
    before = len(calls)
    for _ in range(2):
        looks.clear()
        watch.look(pod.key)
        wait_until(lambda: looks, timeout_s=5, what="another look")
    pod.now = replace(pod.now, terminating=True, ready=False)
    watch.look(pod.key)
    wait_until(lambda: calls[-1], timeout_s=5, what="the end is told")
    assert len(calls) <= before + 2, "looks that found nothing new were told"


def test_a_check_that_fails_does_not_end_the_watch() -> None:
    pod, changes, calls, failures = StandIn(STARTING), Changes(), list[bool](), [RuntimeError("cannot be checked")]

    def pods() -> list[Pod]:
        if failures:
            raise failures.pop()
        return [cast(Pod, pod)]

    watch = PodWatch(pods, changes)
    watch.start()
    wait_until(lambda: not failures, timeout_s=5, what="the check that fails")
    changes.subscribe("test", lambda: calls.append(pod.now.ready))
    wait_until(lambda: calls, timeout_s=5, what="the subscriber's first call")
    pod.now = replace(STARTING, ready=True)
    wait_until(lambda: calls[-1], timeout_s=10, what="ready is told all the same")
