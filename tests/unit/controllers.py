"""A cluster of values in which decisions of the controllers are carried out, one round at a time."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import ObjectKey, Owner, key_of
from testbed.cluster.placement import SeenNode
from testbed.cluster.replica_set import ReplicaSet
from testbed.workloads.reconcile import ControllerDecision, WantedObjects, reconcile
from testbed.workloads.seen import CreatePod, DeletePod, KeptSet, SeenPod

AT = "2026-01-01T00:00:05Z"
THREE = (SeenNode("node1"), SeenNode("node2"), SeenNode("node3"))
WEB = Owner("ReplicaSet", key_of("web"))


def manifest(kind: str, image: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - fields of a spec
    port, name = more.pop("host_port", None), more.pop("name", "web")
    ports = [{"containerPort": 8080, **({"hostPort": port} if port else {})}]
    pod = {"containers": [{"name": "c", "image": image, "ports": ports}], **more.pop("pod", {})}
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template, **more}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def deployment(replicas: int = 6, image: str = "echo", **more: Any) -> Deployment:  # noqa: ANN401 - fields of a spec
    return Deployment.model_validate(manifest("Deployment", image, replicas=replicas, **more))


def replica_set(replicas: int = 3, image: str = "echo", **more: Any) -> ReplicaSet:  # noqa: ANN401 - fields of a spec
    return ReplicaSet.model_validate(manifest("ReplicaSet", image, replicas=replicas, **more))


def daemon_set(image: str = "echo", **more: Any) -> DaemonSet:  # noqa: ANN401 - fields of a spec
    return DaemonSet.model_validate(manifest("DaemonSet", image, **more))


class Cluster:
    """Does what `reconcile` says, and notes how few available and how many pods there ever were.

    What was created becomes ready and available one round later, what was ending is gone by then.
    """

    def __init__(
        self, *wanted: Deployment | ReplicaSet | DaemonSet, nodes: Sequence[SeenNode] = THREE, settled: bool = True
    ) -> None:
        self.deployments: dict[ObjectKey, Deployment] = {}
        self.sets: dict[ObjectKey, KeptSet] = {}
        self.daemon_sets: dict[ObjectKey, DaemonSet] = {}
        self.nodes = list(nodes)
        self.pods: list[SeenPod] = []
        self.broken = "none"
        """Pods of this template are never ready."""
        self.fewest = 10**6
        self.most = 0
        self._numbers = count(1)
        for one in wanted:
            self.want(one)
        if settled and wanted:
            self.settle()

    def want(self, one: Deployment | ReplicaSet | DaemonSet) -> "Cluster":
        if isinstance(one, Deployment):
            self.deployments[one.key] = one
        elif isinstance(one, ReplicaSet):
            self.sets[one.key] = replace(self.sets.get(one.key, KeptSet(one, AT)), wanted=one)
        else:
            self.daemon_sets[one.key] = one
        return self

    def decide(self) -> ControllerDecision:
        wanted = WantedObjects(self.deployments, self.sets, self.daemon_sets)
        return reconcile(wanted, self.pods, self.nodes, AT)

    def round(self) -> ControllerDecision:
        """Return one decision, carried out."""
        decision = self.decide()
        self.sets = dict(decision.sets)
        grown = [pod for pod in self.pods if not pod.terminating]
        self.pods = [pod if pod.template_hash == self.broken else _ready(pod) for pod in grown]
        for action in decision.actions:
            if isinstance(action, CreatePod):
                number = next(self._numbers)
                self.pods.append(self._new(action.owner, action.node, number))
            elif isinstance(action, DeletePod):
                self.pods = [_ending(pod) if pod.key == action.pod else pod for pod in self.pods]
        living = [pod for pod in self.pods if not pod.terminating]
        self.fewest = min(self.fewest, sum(pod.available for pod in living))
        self.most = max(self.most, len(living))
        return decision

    def settle(self) -> "Cluster":
        """Run rounds until nothing is left to do."""
        self.fewest, self.most = 10**6, 0
        for _ in range(80):
            before = self.pods, self.sets
            if not self.round().actions and (self.pods, self.sets) == before:
                return self
        raise AssertionError(f"never settles: {self.pods}")

    def spread(self) -> dict[str, int]:
        """Return how many pods each node has."""
        return {node.name: sum(pod.node == node.name for pod in self.pods) for node in self.nodes}

    def replicas(self) -> dict[int, int]:
        """Return how many pods the ReplicaSet of each revision wants."""
        return {one.revision: one.replicas for one in self.sets.values()}

    def change_node(self, name: str, **fields: Any) -> "Cluster":  # noqa: ANN401 - fields of a node
        self.nodes = [replace(node, **fields) if node.name == name else node for node in self.nodes]
        return self

    def _new(self, owner: Owner, node: str, number: int) -> SeenPod:
        if owner.kind == "DaemonSet":
            template_hash = self.daemon_sets[owner.key].spec.template.hash
        else:
            template_hash = self.sets[owner.key].wanted.template_hash
        return SeenPod(key_of(f"{owner.key.name}-{number}"), owner, template_hash, node, False, False, number)


def _ready(pod: SeenPod) -> SeenPod:
    return replace(pod, ready=True, available=True)


def _ending(pod: SeenPod) -> SeenPod:
    return replace(pod, terminating=True, ready=False, available=False)
