"""Deployments: wanted, changed, scaled and removed by name."""

from collections.abc import Iterator, Mapping, Sequence

from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.pod_checks import TEMPLATE, check_node
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source
from testbed.lab.changes import Changes
from testbed.lab.clock import now
from testbed.lab.events import Events
from testbed.lab.nodes import Nodes
from testbed.workloads.keeper import Outcome, outcome_of
from testbed.workloads.reconcile import is_current
from testbed.workloads.workloads import Workloads


class DeploymentKeeper:
    """The keeper of kind Deployment."""

    def __init__(self, workloads: Workloads, nodes: Nodes, pods_changed: Changes, events: Events) -> None:
        self._workloads = workloads
        self._nodes = nodes
        self._pods_changed = pods_changed
        self._events = events

    def wanted(self) -> Mapping[ObjectKey, Deployment]:
        """As applied and scaled."""
        return dict(self._workloads.deployments)

    def check(self, applied: Sequence[tuple[Source, Deployment]]) -> Iterator[Problem]:
        """Whether the node that a template names exists."""
        for source, deployment in applied:
            spec = deployment.spec.template.spec
            yield from check_node(source, (*TEMPLATE, "spec"), spec, list(self._nodes))

    def warnings(self, applied: Sequence[tuple[Source, Deployment]]) -> Iterator[Problem]:
        """None: what cannot be placed now may be placed later, and is told as an event."""
        return iter(())

    def outcome(self, wanted: Deployment) -> Outcome:
        """What `put` would do."""
        return outcome_of(self._workloads.deployments.get(wanted.key), self._as_scaled(wanted))

    def put(self, wanted: Deployment) -> Outcome:
        """Want this Deployment. Without `replicas` it keeps the number that it has been scaled to."""
        with self._workloads.deciding:
            outcome = self.outcome(wanted)
            if outcome == "unchanged":
                return outcome
            self._workloads.deployments[wanted.key] = self._as_scaled(wanted)
            self._workloads.created_at.setdefault(wanted.key, now())
        self._pods_changed.notify()
        return outcome

    def _as_scaled(self, wanted: Deployment) -> Deployment:
        before = self._workloads.deployments.get(wanted.key)
        if before is None or "replicas" in wanted.spec.model_fields_set:
            return wanted
        return wanted.scaled(before.spec.replicas)

    def remove(self, key: ObjectKey, grace_s: float | None = None) -> None:
        """End all its pods and wait until they are gone. Raises KeyError."""
        with self._workloads.deciding:
            del self._workloads.deployments[key]
            self._workloads.created_at.pop(key, None)
            pods = self._workloads.pods_of(key)
            for pod in pods:
                self._workloads.end_soon(pod)
        for pod in pods:
            # Waits for the thread that ends it.
            self._workloads.end(pod, grace_s)

    def scale(self, key: ObjectKey, replicas: int) -> int:
        """Want this number of pods; returns the number before. Raises KeyError."""
        with self._workloads.deciding:
            before = self._workloads.deployments[key]
            self._workloads.deployments[key] = before.scaled(replicas)
        word = "up" if replicas > before.spec.replicas else "down"
        if replicas != before.spec.replicas:
            text = f"scaled {word} from {before.spec.replicas} to {replicas}"
            self._events.note("Normal", f"deployment/{key}", "Scaled", text)
        self._pods_changed.notify()
        return before.spec.replicas

    def numbers(self, key: ObjectKey) -> dict[str, int]:
        """Kubernetes' status fields of a Deployment. Raises KeyError."""
        deployment, nodes = self._workloads.deployments[key], self._workloads.seen_nodes()
        own = [pod for pod in self._workloads.seen_pods() if pod.deployment == key and not pod.terminating]
        updated = [pod for pod in own if pod.template_hash == deployment.template_hash]
        ready = sum(pod.ready for pod in own)
        return {
            "replicas": len(own),
            "updatedReplicas": len(updated),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, deployment.spec.replicas - ready),
            "outdatedReplicas": sum(not is_current(pod, deployment, nodes) for pod in own),
        }

    def all_why_not_ready(self) -> list[str]:
        """A line for each Deployment that lacks something."""
        return [f"{key}: {why}" for key in self.wanted() if (why := self.why_not_ready(key))]

    def why_not_ready(self, key: ObjectKey) -> str:
        """What is missing until exactly the wanted pods are there and ready."""
        wanted, numbers = self._workloads.deployments[key].spec.replicas, self.numbers(key)
        if numbers["outdatedReplicas"]:
            return f"{numbers['outdatedReplicas']} pods are still to be replaced"
        if numbers["replicas"] != wanted or numbers["readyReplicas"] != wanted:
            lacking = {pod.status().why_not_ready for pod in self._workloads.pods_of(key)} - {""}
            why = f" ({'; '.join(sorted(lacking))})" if lacking else ""
            return f"{numbers['readyReplicas']} of {wanted} pods are ready, {numbers['replicas']} are there{why}"
        return ""
