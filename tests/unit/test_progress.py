"""The conditions of a Deployment and of a pod: Kubernetes' words and reasons, and since when each of them holds."""

from dataclasses import replace

import pytest

from testbed.lab.pod_watch import PodTimes, Since
from testbed.pods.pod_state import Phase, PodStatus
from testbed.workloads.progress import Condition, DeploymentNumbers, Progress, Unplaced, deployment_numbers, progress_of
from testbed.workloads.seen import KeptSet, by_owner
from tests.unit.controllers import Cluster, deployment

WANTED = deployment(4, progressDeadlineSeconds=60)
SETS = list(Cluster(WANTED).sets.values())
NAME = SETS[0].key.name
BEGIN = DeploymentNumbers(replicas=4, updated=4)
HALF = replace(BEGIN, ready=2, available=2)
ALL = replace(BEGIN, ready=4, available=4)


def after(*steps: tuple[float, DeploymentNumbers], sets: list[KeptSet] = SETS) -> Progress:
    """Return what is said after these looks, each at its time."""
    progress = None
    for at, numbers in steps:
        progress = progress_of(WANTED, sets, numbers, {}, progress, at)
    assert progress is not None
    return progress


def condition(progress: Progress, name: str) -> Condition:
    return next(one for one in progress.conditions if one.type == name)


def test_pods_are_counted_over_all_replica_sets_and_those_to_be_replaced_are_outdated() -> None:
    new = deployment(6, image="nginx")
    cluster = Cluster(deployment(6)).want(new)
    cluster.round()
    cluster.pods[0] = replace(cluster.pods[0], available=False)

    def numbers() -> DeploymentNumbers:
        return deployment_numbers(new, list(cluster.sets.values()), by_owner(cluster.pods), cluster.nodes)

    # Six of the first template, one of them ending, and two new ones.
    assert numbers() == DeploymentNumbers(replicas=7, updated=2, ready=5, available=4, outdated=5)
    (node, other) = (pod.node for pod in cluster.pods if pod.template_hash == new.spec.template.hash)
    assert node != other
    cluster.change_node(node, leaving=True)
    assert numbers() == DeploymentNumbers(replicas=7, updated=2, ready=5, available=4, outdated=6)


def test_a_deployment_is_available_from_its_minimum_on_and_since_then() -> None:
    before = condition(after((0, BEGIN)), "Available")
    assert (before.status, before.reason, before.changed_at) == ("False", "MinimumReplicasUnavailable", 0)
    progress = after((0, BEGIN), (5, replace(HALF, available=3)), (9, ALL))
    now = condition(progress, "Available")
    assert (now.status, now.reason, now.changed_at) == ("True", "MinimumReplicasAvailable", 5)


def test_a_rollout_is_new_then_goes_on_then_is_done() -> None:
    steps = ((0, BEGIN), (5, HALF), (9, ALL))
    found = [condition(after(*steps[: number + 1]), "Progressing") for number in range(3)]
    assert [(one.reason, one.updated_at) for one in found] == [
        ("NewReplicaSetCreated", 0),
        ("ReplicaSetUpdated", 5),
        ("NewReplicaSetAvailable", 9),
    ]
    assert {(one.status, one.changed_at) for one in found} == {("True", 0)}
    assert found[2].message == f'ReplicaSet "{NAME}" has successfully progressed.'


def test_one_without_progress_for_its_deadline_reports_that_from_then_on_and_can_still_complete() -> None:
    assert condition(after((0, BEGIN), (5, HALF), (65, HALF)), "Progressing").reason == "ReplicaSetUpdated"
    late = condition(after((0, BEGIN), (5, HALF), (80, HALF)), "Progressing")
    assert (late.status, late.reason, late.changed_at) == ("False", "ProgressDeadlineExceeded", 65)
    done = condition(after((0, BEGIN), (5, HALF), (80, HALF), (90, ALL)), "Progressing")
    assert (done.status, done.reason, done.changed_at) == ("True", "NewReplicaSetAvailable", 90)


def test_a_completed_one_remains_complete_when_a_pod_fails() -> None:
    progress = after((0, BEGIN), (9, ALL), (500, HALF))
    assert condition(progress, "Progressing").reason == "NewReplicaSetAvailable"
    assert condition(progress, "Available").changed_at == 500


def test_another_template_is_a_rollout_of_its_own() -> None:
    done = after((0, BEGIN), (9, ALL))
    new = deployment(4, image="nginx", progressDeadlineSeconds=60)
    sets = list(Cluster(new).sets.values())
    progress = progress_of(new, [*SETS, *sets], replace(ALL, updated=0, outdated=4), {}, done, 700)
    assert condition(progress, "Progressing").message == f'Created new replica set "{sets[0].key.name}"'


def test_a_paused_one_makes_no_promise() -> None:
    paused = deployment(4, paused=True)
    progress = progress_of(paused, SETS, ALL, {}, None, 0)
    now = condition(progress, "Progressing")
    assert (now.status, now.reason) == ("Unknown", "DeploymentPaused")


def test_a_pause_does_not_count_towards_the_deadline() -> None:
    started = after((0, BEGIN), (5, HALF))
    paused = progress_of(deployment(4, paused=True, progressDeadlineSeconds=60), SETS, HALF, {}, started, 10)
    resumed = progress_of(WANTED, SETS, HALF, {}, paused, 500)
    assert condition(resumed, "Progressing").reason == "ReplicaSetUpdated"
    late = condition(progress_of(WANTED, SETS, HALF, {}, resumed, 561), "Progressing")
    assert (late.reason, late.changed_at) == ("ProgressDeadlineExceeded", 560)


def test_pods_that_no_node_takes_are_a_failure_with_the_reason_and_its_time() -> None:
    unplaced = {SETS[0].wanted.owner: Unplaced("node1 is drained", 3)}
    found = condition(progress_of(WANTED, SETS, HALF, unplaced, None, 9), "ReplicaFailure")
    assert (found.status, found.reason, found.changed_at) == ("True", "FailedCreate", 3)
    assert "node1 is drained" in found.message


def status(*, ready: bool, phase: Phase = "Running") -> PodStatus:
    return PodStatus(
        name="p",
        node="n",
        address=None,
        state="",
        phase=phase,
        ready=ready,
        restarts=0,
        containers=(),
        started_at=None,
        why_not_ready="",
        pause_pid=None,
    )


def test_a_pods_condition_has_the_time_of_its_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1.0, 2.0, 3.0, 4.0))
    monkeypatch.setattr("testbed.lab.pod_watch.time.time", lambda: next(clock))
    monkeypatch.setattr("testbed.lab.pod_watch.time.monotonic", lambda: 0.0)
    times = PodTimes().after(status(ready=False, phase="Pending"))
    assert times == PodTimes(None, None)
    times = times.after(status(ready=False))
    assert times == PodTimes(Since(True, 1.0, 0.0), None)
    times = times.after(status(ready=True)).after(status(ready=True))
    assert times.ready == Since(True, 2.0, 0.0)
    assert times.after(status(ready=False)).ready == Since(False, 3.0, 0.0)
