"""Decides the size of each ReplicaSet of a Deployment, like Kubernetes' deployment controller. Pure.

The ReplicaSet of the current template grows as far as maxSurge allows; those of former templates shrink as far as
maxUnavailable allows, unavailable pods first. Every call does what is possible now, and the next call, when a pod is
available or gone, does the rest.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.pod_template import generated_name
from testbed.cluster.replica_set import replica_set_of
from testbed.workloads.seen import KeptSet, PodsByOwner, living


def roll_out(
    deployment: Deployment,
    own: Sequence[KeptSet],
    pods: PodsByOwner,
    taken: Collection[ObjectKey],
    now: str,
) -> list[KeptSet]:
    """Return the Deployment's new ReplicaSets, oldest revision first.

    `taken` are the names of other ReplicaSets; `now` is the creation time of a new one.
    """
    template_hash = deployment.spec.template.hash
    found = next((one for one in own if one.wanted.template_hash == template_hash), None)
    old = sorted((one for one in own if one is not found), key=lambda one: one.revision)
    if deployment.spec.paused:
        return _scale_paused(deployment, sorted(own, key=lambda one: one.revision))
    last = max((one.revision for one in own), default=0)
    current = found or _made(deployment, template_hash, taken, now)
    if current.revision < last or current.revision == 0:
        current = replace(current, revision=last + 1)
    current = replace(current, wanted=current.wanted.available_after(deployment.spec.min_ready_seconds))
    if deployment.spec.strategy.type == "Recreate":
        old, current = _recreate(deployment, old, current, pods)
    else:
        old, current = _roll(deployment, old, current, pods)
    return [*_remembered(deployment, old, current, pods), current]


def _made(deployment: Deployment, template_hash: str, taken: Collection[ObjectKey], now: str) -> KeptSet:
    name = generated_name(deployment.name, template_hash)
    while (key := ObjectKey(deployment.metadata.namespace, name)) in taken:
        name += "2"
    return KeptSet(replica_set_of(deployment, key, template_hash, 0), now, deployment.key)


def _roll(
    deployment: Deployment, old: Sequence[KeptSet], current: KeptSet, pods: PodsByOwner
) -> tuple[list[KeptSet], KeptSet]:
    wanted = deployment.spec.replicas
    room = wanted + deployment.max_surge - sum(one.replicas for one in (*old, current))
    current = _with(current, min(wanted, current.replicas + max(0, room)))
    fewest = wanted - deployment.max_unavailable
    can_end = sum(one.replicas for one in (*old, current)) - fewest - (current.replicas - _available(current, pods))
    ended, left = 0, list[KeptSet]()
    for one in old:
        idle = max(0, min(one.replicas - _available(one, pods), can_end - ended))
        ended += idle
        left.append(_with(one, one.replicas - idle))
    spare = max(0, min(can_end - ended, sum(_available(one, pods) for one in (*left, current)) - fewest))
    for number, one in enumerate(left):
        fewer = min(one.replicas, spare)
        spare -= fewer
        left[number] = _with(one, one.replicas - fewer)
    return left, current


def _recreate(
    deployment: Deployment, old: Sequence[KeptSet], current: KeptSet, pods: PodsByOwner
) -> tuple[list[KeptSet], KeptSet]:
    """Create no new pod before the last old one is gone."""
    if any(one.replicas or pods.get(one.wanted.owner) for one in old):
        return [_with(one, 0) for one in old], current
    return list(old), _with(current, deployment.spec.replicas)


def _scale_paused(deployment: Deployment, own: Sequence[KeptSet]) -> list[KeptSet]:
    """Give a change in the number of pods to the newest that has any; a changed template waits."""
    if not own:
        return []
    newest = next((one for one in reversed(own) if one.replicas), own[-1])
    others = sum(one.replicas for one in own if one is not newest)
    most = deployment.spec.replicas + (deployment.max_surge if others else 0)
    wanted = min(max(newest.replicas, deployment.spec.replicas - others), max(0, most - others))
    return [_with(one, wanted) if one is newest else one for one in own]


def _remembered(deployment: Deployment, old: Sequence[KeptSet], current: KeptSet, pods: PodsByOwner) -> list[KeptSet]:
    """Return the former revisions to keep: after the rollout, no more than the history's limit."""
    done = current.replicas == _available(current, pods) == deployment.spec.replicas
    empty = [one for one in old if not one.replicas and not pods.get(one.wanted.owner)]
    too_many = max(0, len(empty) - deployment.spec.revision_history_limit) if done else 0
    return [one for one in old if one not in empty[:too_many]]


def _available(one: KeptSet, pods: PodsByOwner) -> int:
    return min(one.replicas, sum(pod.available for pod in living(pods, one.wanted.owner)))


def _with(one: KeptSet, replicas: int) -> KeptSet:
    return one if one.replicas == replicas else replace(one, wanted=one.wanted.scaled(replicas))
