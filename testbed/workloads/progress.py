"""The progress of Deployments, ReplicaSets and DaemonSets: numbers and conditions in Kubernetes' words. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import Owner
from testbed.cluster.placement import SeenNode, nodes_for
from testbed.workloads.replicas import left_nodes
from testbed.workloads.seen import KeptSet, PodsByOwner, SeenPod, living

AVAILABLE, PROGRESSING, REPLICA_FAILURE = "Available", "Progressing", "ReplicaFailure"
DONE, STARTED, GOES_ON = "NewReplicaSetAvailable", "NewReplicaSetCreated", "ReplicaSetUpdated"
PAUSED = "DeploymentPaused"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; times are seconds since the epoch."""

    type: str
    status: str
    """`True`, `False` or `Unknown`."""
    reason: str
    message: str
    changed_at: float
    """When it got this status."""
    updated_at: float
    """When it was last updated, for example by a newly available pod of the rollout."""


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Why no node accepts another pod, and since when."""

    why: str
    since: float


@dataclass(frozen=True, slots=True)
class PodNumbers:
    """The pods of a ReplicaSet or Deployment that are not terminating."""

    replicas: int = 0
    ready: int = 0
    available: int = 0


@dataclass(frozen=True, slots=True)
class DeploymentNumbers(PodNumbers):
    """The same of a Deployment, with the state of its rollout."""

    updated: int = 0
    """Pods of the current template."""
    outdated: int = 0
    """Pods of a former template, or on a drained node."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The last observed progress of a Deployment."""

    numbers: DeploymentNumbers
    conditions: tuple[Condition, ...]
    current: str
    """The name of its current ReplicaSet; empty while a paused one has none yet."""
    moved_at: float
    """When its rollout started, resumed, or last made progress."""


@dataclass(frozen=True, slots=True)
class DaemonNumbers:
    """The pods of a DaemonSet, by node."""

    desired: int = 0
    current: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    misscheduled: int = 0
    """On nodes that do not match it."""


def set_numbers(one: KeptSet, pods: PodsByOwner) -> PodNumbers:
    """Count the pods of a ReplicaSet."""
    own = living(pods, one.wanted.owner)
    return PodNumbers(len(own), sum(pod.ready for pod in own), sum(pod.available for pod in own))


def deployment_numbers(
    deployment: Deployment, sets: Iterable[KeptSet], pods: PodsByOwner, nodes: Sequence[SeenNode]
) -> DeploymentNumbers:
    """Count the pods of a Deployment's ReplicaSets."""
    template_hash, own, updated, outdated = deployment.spec.template.hash, list[SeenPod](), 0, 0
    for one in sets:
        alive, drained = living(pods, one.wanted.owner), left_nodes(one, nodes)
        is_current = one.wanted.template_hash == template_hash
        own += alive
        updated += len(alive) if is_current else 0
        outdated += sum(not is_current or pod.node in drained for pod in alive)
    return DeploymentNumbers(
        replicas=len(own),
        ready=sum(pod.ready for pod in own),
        available=sum(pod.available for pod in own),
        updated=updated,
        outdated=outdated,
    )


def daemon_numbers(wanted: DaemonSet, own: Sequence[SeenPod], nodes: Sequence[SeenNode]) -> DaemonNumbers:
    """Count the nodes that should have a pod, and those that have one."""
    template_hash, targets = wanted.spec.template.hash, nodes_for(wanted.spec.template.spec, nodes)
    alive = [pod for pod in own if not pod.terminating]
    right = [pod for pod in alive if pod.node in targets]
    return DaemonNumbers(
        desired=len(targets),
        current=len({pod.node for pod in right}),
        updated=len({pod.node for pod in right if pod.template_hash == template_hash}),
        ready=len({pod.node for pod in right if pod.ready}),
        available=len({pod.node for pod in right if pod.available}),
        misscheduled=len({pod.node for pod in alive} - set(targets)),
    )


def progress_of(
    deployment: Deployment,
    sets: Sequence[KeptSet],
    numbers: DeploymentNumbers,
    unplaced: Mapping[Owner, Unplaced],
    before: Progress | None,
    now: float,
) -> Progress:
    """Return the current progress of a Deployment, from its state `before`.

    `unplaced` are ReplicaSets whose next pod no node accepts.
    """
    template_hash = deployment.spec.template.hash
    current = next((one.key.name for one in sets if one.wanted.template_hash == template_hash), "")
    is_new = before is None or before.current != current
    known = {one.type: one for one in before.conditions} if before is not None else {}
    # A pause does not count towards the deadline.
    was_paused = PROGRESSING in known and known[PROGRESSING].reason == PAUSED
    moved = before is None or is_new or was_paused or _comes_nearer(before.numbers, numbers)
    moved_at = now if before is None or moved else before.moved_at
    found = [
        _available(deployment, numbers, now),
        _progressing(deployment, numbers, known.get(PROGRESSING), (current, is_new, moved_at), now),
    ]
    failures = [why for one in sets if (why := unplaced.get(one.wanted.owner))]
    found += map(replica_failure, failures[:1])
    return Progress(numbers, tuple(_followed(known.get(one.type), one) for one in found), current, moved_at)


def replica_failure(unplaced: Unplaced) -> Condition:
    """Return the condition of an object whose next pod no node accepts."""
    why = f"no node accepts another pod: {unplaced.why}"
    return Condition(REPLICA_FAILURE, "True", "FailedCreate", why, unplaced.since, unplaced.since)


def _comes_nearer(before: DeploymentNumbers, now: DeploymentNumbers) -> bool:
    more = now.updated > before.updated or now.ready > before.ready or now.available > before.available
    return more or now.replicas - now.updated < before.replicas - before.updated


def _available(deployment: Deployment, numbers: DeploymentNumbers, now: float) -> Condition:
    if numbers.available >= deployment.spec.replicas - deployment.max_unavailable:
        message = "Deployment has minimum availability."
        return Condition(AVAILABLE, "True", "MinimumReplicasAvailable", message, now, now)
    message = "Deployment does not have minimum availability."
    return Condition(AVAILABLE, "False", "MinimumReplicasUnavailable", message, now, now)


def _progressing(
    deployment: Deployment,
    numbers: DeploymentNumbers,
    known: Condition | None,
    rollout: tuple[str, bool, float],
    now: float,
) -> Condition:
    current, is_new, moved_at = rollout
    wanted = deployment.spec.replicas
    if deployment.spec.paused:
        return Condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", now, now)
    was_done = known is not None and known.reason == DONE and not is_new and numbers.updated == numbers.replicas
    if was_done or numbers.updated == numbers.replicas == numbers.available == wanted:
        return Condition(PROGRESSING, "True", DONE, f'ReplicaSet "{current}" has successfully progressed.', now, now)
    deadline = moved_at + deployment.spec.progress_deadline_seconds
    if now > deadline:
        message = f'ReplicaSet "{current}" has timed out progressing.'
        return Condition(PROGRESSING, "False", "ProgressDeadlineExceeded", message, deadline, deadline)
    if is_new:
        return Condition(PROGRESSING, "True", STARTED, f'Created new replica set "{current}"', now, now)
    return Condition(PROGRESSING, "True", GOES_ON, f'ReplicaSet "{current}" is progressing.', now, moved_at)


def _followed(known: Condition | None, found: Condition) -> Condition:
    """Return the condition with its earlier times, if it is the same."""
    if known is None:
        return found
    changed_at = known.changed_at if known.status == found.status else found.changed_at
    same = (known.status, known.reason, known.message) == (found.status, found.reason, found.message)
    updated_at = known.updated_at if same and found.reason != GOES_ON else found.updated_at
    return replace(found, changed_at=changed_at, updated_at=updated_at)
