"""Deployments and ReplicaSets: applied, changed, scaled and removed by name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.problems import Problem
from testbed.cluster.replica_set import ReplicaSet
from testbed.cluster.validation import Source
from testbed.lab.events import Events
from testbed.lab.nodes import Nodes
from testbed.workloads.controller import DELETED
from testbed.workloads.owner_controller import OwnerController
from testbed.workloads.progress import set_numbers
from testbed.workloads.workloads import Workloads

ScaledT = TypeVar("ScaledT", Deployment, ReplicaSet)


class ScaledController(OwnerController[ScaledT], Generic[ScaledT]):
    """The controller of a kind that has `replicas`."""

    def __init__(self, workloads: Workloads, nodes: Nodes, events: Events) -> None:
        super().__init__(workloads, nodes)
        self._events = events

    def scale(self, key: ObjectKey, replicas: int) -> int:
        """Set this number of pods; return the previous number. Raises KeyError."""
        with self._workloads.deciding:
            before = self.scalable()[key]
            self._workloads.want(before.scaled(replicas))
        was = before.spec.replicas
        word = "up" if replicas > was else "down"
        if replicas != was:
            self._events.note("Normal", f"{before.owner}", "Scaled", f"scaled {word} from {was} to {replicas}")
        self._workloads.look()
        return was

    def _kept(self, wanted: ScaledT, before: ScaledT | None) -> ScaledT:
        """Keep the number that it has been scaled to, if `replicas` is missing."""
        if before is None or "replicas" in wanted.spec.model_fields_set:
            return wanted
        return wanted.scaled(before.spec.replicas)

    def scalable(self) -> Mapping[ObjectKey, ScaledT]:
        """Return everything that can be scaled."""
        return self.wanted()


class DeploymentController(ScaledController[Deployment]):
    """The controller of kind Deployment."""

    kind = "Deployment"

    def wanted(self) -> Mapping[ObjectKey, Deployment]:
        """Return them as applied and scaled."""
        return dict(self._workloads.deployments)

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return what is missing until exactly the desired pods are there and ready."""
        deployment = self._workloads.deployments.get(key)
        if deployment is None:
            return DELETED
        wanted, numbers = deployment.spec.replicas, self._workloads.progress(deployment, self._workloads.seen()).numbers
        if numbers.outdated and not deployment.spec.paused:
            return f"{numbers.outdated} pods are not replaced yet"
        if numbers.replicas != wanted or numbers.available != wanted:
            return f"{numbers.available} of {wanted} pods are ready, {numbers.replicas} exist{self._reasons(key)}"
        return ""


class ReplicaSetController(ScaledController[ReplicaSet]):
    """The controller of kind ReplicaSet; those of Deployments are not applied, but can be deleted and scaled."""

    kind = "ReplicaSet"

    def wanted(self) -> Mapping[ObjectKey, ReplicaSet]:
        """Return them as applied and scaled."""
        return {key: one.wanted for key, one in self._workloads.sets.items() if one.deployment is None}

    def check(self, applied: Sequence[tuple[Source, ReplicaSet]]) -> Iterator[Problem]:
        """Check also that no Deployment has made one of this name."""
        for source, one in applied:
            known = self._workloads.sets.get(one.key)
            if known is not None and known.deployment is not None:
                got = f"got {one.key}; want a change of deployment/{known.deployment}, or another name"
                yield source.problem(("metadata", "name"), f"this ReplicaSet belongs to a Deployment ({got})")
        yield from super().check(applied)

    def why_not_ready(self, key: ObjectKey) -> str:
        """Return what is missing until exactly the desired pods are there and ready."""
        one = self._workloads.sets.get(key)
        if one is None:
            return DELETED
        numbers = set_numbers(one, self._workloads.seen().pods)
        if numbers.replicas != one.replicas or numbers.available != one.replicas:
            there = f"{numbers.replicas} exist{self._reasons(key)}"
            return f"{numbers.available} of {one.replicas} pods are ready, {there}"
        return ""

    def scalable(self) -> Mapping[ObjectKey, ReplicaSet]:
        """Return them all; a Deployment gives its own the number back that it wants."""
        return {key: one.wanted for key, one in self._workloads.sets.items()}
