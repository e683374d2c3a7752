"""Decides how Deployments, ReplicaSets and DaemonSets get their desired pods. Pure.

    Deployments ── rollout ──> ReplicaSets ── replicas ──┐
    DaemonSets ── daemons ───────────────────────────────┴──> pods to create and to end

Desired and observed state in, decision out; it is called again after every change, and keeps no other state.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.placement import Placed, SeenNode
from testbed.workloads.daemons import cover
from testbed.workloads.replicas import fill
from testbed.workloads.rollout import roll_out
from testbed.workloads.seen import Action, DeletePod, KeptSet, Scaled, SeenPod, by_owner


@dataclass(frozen=True, slots=True)
class WantedObjects:
    """The applied and scaled objects, and the ReplicaSets that Deployments have created so far."""

    deployments: Mapping[ObjectKey, Deployment]
    sets: Mapping[ObjectKey, KeptSet]
    daemon_sets: Mapping[ObjectKey, DaemonSet]


@dataclass(frozen=True, slots=True)
class ControllerDecision:
    """The next actions."""

    sets: Mapping[ObjectKey, KeptSet]
    """All ReplicaSets from now on."""
    scaled: tuple[Scaled, ...]
    actions: tuple[Action, ...]
    """In this order."""


def reconcile(
    wanted: WantedObjects, pods: Sequence[SeenPod], nodes: Sequence[SeenNode], now: str
) -> ControllerDecision:
    """Decide for all kinds that create pods; `now` is the creation time of new ReplicaSets."""
    of_owner = by_owner(pods)
    sets = {
        key: one for key, one in wanted.sets.items() if one.deployment is None or one.deployment in wanted.deployments
    }
    of_deployments: dict[ObjectKey, list[KeptSet]] = {key: [] for key in wanted.deployments}
    for one in sets.values():
        if one.deployment is not None:
            of_deployments[one.deployment].append(one)
    for key, own in of_deployments.items():
        for one in own:
            del sets[one.key]
        rolled = roll_out(wanted.deployments[key], own, of_owner, sets.keys(), now)
        sets |= {one.key: one for one in rolled}
        of_deployments[key] = rolled
    placed = [Placed(pod.node, pod.owner, pod.host_ports) for pod in pods]
    actions: list[Action] = [*_orphans(wanted, sets, pods)]
    for key, own in of_deployments.items():
        actions += fill(wanted.deployments[key], own, of_owner, nodes, placed)
    for one in sets.values():
        if one.deployment is None:
            actions += fill(None, [one], of_owner, nodes, placed)
    for daemon_set in wanted.daemon_sets.values():
        actions += cover(daemon_set, of_owner.get(daemon_set.owner, ()), nodes, placed)
    return ControllerDecision(sets, tuple(_scaled(wanted.sets, sets)), tuple(actions))


def _orphans(wanted: WantedObjects, sets: Mapping[ObjectKey, KeptSet], pods: Sequence[SeenPod]) -> Iterator[DeletePod]:
    """End pods whose owner is gone."""
    owners = {one.wanted.owner for one in sets.values()} | {one.owner for one in wanted.daemon_sets.values()}
    for pod in pods:
        if pod.owner is not None and pod.owner not in owners and not pod.terminating:
            yield DeletePod(pod.key, f"its {pod.owner.kind} is gone")


def _scaled(before: Mapping[ObjectKey, KeptSet], after: Mapping[ObjectKey, KeptSet]) -> Iterator[Scaled]:
    for key, one in after.items():
        was = before[key].replicas if key in before else 0
        if one.deployment is not None and one.replicas != was:
            yield Scaled(one.deployment, key, was, one.replicas)
