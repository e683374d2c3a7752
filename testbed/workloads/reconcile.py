"""What to do so that Deployments get the pods that they want. Pure: wanted and observed in, actions out.

Three kinds of pods belong to a Deployment: *current* ones of its present template on a node that stays; *outdated* ones
of an older template, or on a node that is to be left; and those that are ending, which count for nothing. Outdated ones
are replaced new before old as far as maxSurge goes, and old before new as far as maxUnavailable allows; every call does
what can be done now, and the next call, when something is ready or gone, does the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testbed.cluster.deployment import Deployment
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.placement import Placed, SeenNode, TakenPort, choose_node, host_ports


@dataclass(frozen=True, slots=True)
class SeenPod:
    """One pod as it is now."""

    key: ObjectKey
    deployment: ObjectKey | None
    """None: a pod of its own, which only takes room here."""
    template_hash: str
    node: str
    ready: bool
    terminating: bool
    number: int
    """Grows with every pod made; tells the newer of two."""
    host_ports: frozenset[TakenPort] = frozenset()


@dataclass(frozen=True, slots=True)
class CreatePod:
    """One more pod of a Deployment."""

    deployment: ObjectKey
    node: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """End a pod, with its grace."""

    pod: ObjectKey
    why: str


@dataclass(frozen=True, slots=True)
class CannotPlace:
    """A pod is wanted that no node can take."""

    deployment: ObjectKey
    why: str


Action = CreatePod | DeletePod | CannotPlace


def reconcile(deployments: Sequence[Deployment], pods: Sequence[SeenPod], nodes: Sequence[SeenNode]) -> list[Action]:
    """What to do now, in this order."""
    wanted = {deployment.key for deployment in deployments}
    actions: list[Action] = [
        DeletePod(pod.key, "its Deployment is gone")
        for pod in pods
        if pod.deployment is not None and pod.deployment not in wanted and not pod.terminating
    ]
    placed = [Placed(pod.node, pod.deployment, pod.host_ports) for pod in pods]
    for deployment in deployments:
        own = [pod for pod in pods if pod.deployment == deployment.key]
        actions += _of_one(deployment, own, nodes, placed)
    return actions


def is_current(pod: SeenPod, deployment: Deployment, nodes: Sequence[SeenNode]) -> bool:
    """Whether a pod is what its Deployment wants now, where it may stay."""
    leaving = any(node.name == pod.node and node.leaving for node in nodes)
    # A template that names its node has nowhere else to go.
    fixed = deployment.spec.template.spec.node_name is not None
    return pod.template_hash == deployment.template_hash and (fixed or not leaving)


def _of_one(
    deployment: Deployment, own: Sequence[SeenPod], nodes: Sequence[SeenNode], placed: list[Placed]
) -> Iterator[Action]:
    living = [pod for pod in own if not pod.terminating]
    current = [pod for pod in living if is_current(pod, deployment, nodes)]
    outdated = [pod for pod in living if pod not in current]
    replicas = deployment.spec.replicas
    yield from _create(deployment, _missing(deployment, own, current, outdated), nodes, placed)
    surplus = _least_wanted(current)[: max(0, len(current) - replicas)]
    for pod in surplus:
        yield DeletePod(pod.key, f"{replicas} of {deployment.key} are wanted")
    ready = sum(1 for pod in living if pod.ready and pod not in surplus)
    spare = ready - max(0, replicas - deployment.max_unavailable)
    for pod in _least_wanted(outdated):
        if pod.ready and spare <= 0:
            continue
        spare -= pod.ready
        yield DeletePod(pod.key, "replaced")


def _missing(
    deployment: Deployment, own: Sequence[SeenPod], current: Sequence[SeenPod], outdated: Sequence[SeenPod]
) -> int:
    """How many pods to create now."""
    lacking = deployment.spec.replicas - len(current)
    if deployment.spec.strategy.type == "Recreate":
        old = any(pod.terminating and pod.template_hash != deployment.template_hash for pod in own)
        return 0 if outdated or old else lacking
    room = deployment.spec.replicas + deployment.max_surge - len(current) - len(outdated)
    return min(lacking, room)


def _create(
    deployment: Deployment, number: int, nodes: Sequence[SeenNode], placed: list[Placed]
) -> Iterator[CreatePod | CannotPlace]:
    spec = deployment.spec.template.spec
    for _ in range(number):
        node, why = choose_node(spec, deployment.key, nodes, placed)
        if node is None:
            yield CannotPlace(deployment.key, why)
            return
        placed.append(Placed(node, deployment.key, host_ports(spec)))
        yield CreatePod(deployment.key, node)


def _least_wanted(pods: Sequence[SeenPod]) -> list[SeenPod]:
    """In the order in which they can be spared: not ready ones, those on the fullest node, the newest."""
    left, order = list(pods), list[SeenPod]()
    while left:
        on_node = {pod.node: sum(1 for other in left if other.node == pod.node) for pod in left}
        chosen = max(left, key=lambda pod: (not pod.ready, on_node[pod.node], pod.number))
        left.remove(chosen)
        order.append(chosen)
    return order
