"""The observations and decisions of controllers. Values only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from testbed.cluster.object_key import ObjectKey, Owner
from testbed.cluster.placement import TakenPort
from testbed.cluster.replica_set import ReplicaSet


@dataclass(frozen=True, slots=True)
class SeenPod:
    """The current state of one pod."""

    key: ObjectKey
    owner: Owner | None
    """None: a pod without an owner, which only uses resources here."""
    template_hash: str
    """Of a DaemonSet's pod: its template."""
    node: str
    ready: bool
    terminating: bool
    number: int
    """Increases with every created pod: the newer of two pods has the higher one."""
    host_ports: frozenset[TakenPort] = frozenset()
    available: bool = False
    """Ready for as long as its owner's `minReadySeconds`."""


@dataclass(frozen=True, slots=True)
class KeptSet:
    """One ReplicaSet, applied or created for a Deployment."""

    wanted: ReplicaSet
    created_at: str
    deployment: ObjectKey | None = None
    """None: one that was applied itself."""
    revision: int = 0
    """Of the Deployment; increases with every rollout."""

    @property
    def key(self) -> ObjectKey:
        """Return its namespace and name."""
        return self.wanted.key

    @property
    def owner(self) -> Owner | None:
        """Return the Deployment as its owner; None as above."""
        return Owner("Deployment", self.deployment) if self.deployment else None

    @property
    def replicas(self) -> int:
        """Return the desired number of pods."""
        return self.wanted.spec.replicas


@dataclass(frozen=True, slots=True)
class CreatePod:
    """One more pod of an owner."""

    owner: Owner
    node: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """End a pod, with its grace period."""

    pod: ObjectKey
    why: str


@dataclass(frozen=True, slots=True)
class CannotPlace:
    """A desired pod that no node can accept."""

    owner: Owner
    why: str


Action = CreatePod | DeletePod | CannotPlace


@dataclass(frozen=True, slots=True)
class Scaled:
    """A Deployment changed the size of one of its ReplicaSets."""

    deployment: ObjectKey
    set: ObjectKey
    before: int
    replicas: int

    def __str__(self) -> str:
        """Return the message of the event, in Kubernetes' words."""
        word = "up" if self.replicas > self.before else "down"
        return f"Scaled {word} replica set {self.set.name} from {self.before} to {self.replicas}"


PodsByOwner = Mapping[Owner, Sequence[SeenPod]]
"""Including terminating ones."""


def by_owner(pods: Iterable[SeenPod]) -> PodsByOwner:
    """Return the pods of each owner that has any."""
    found: dict[Owner, list[SeenPod]] = {}
    for pod in pods:
        if pod.owner is not None:
            found.setdefault(pod.owner, []).append(pod)
    return found


def living(pods: PodsByOwner, owner: Owner) -> list[SeenPod]:
    """Return an owner's pods that are not terminating."""
    return [pod for pod in pods.get(owner, ()) if not pod.terminating]
