"""Which pods of ReplicaSets to create and which to end, as Kubernetes' replica set controller decides it. Pure.

Pods on a node that is to be left are replaced new before old, within the limits of the Deployment as a whole.
"""

import math
from collections.abc import Iterator, Sequence

from testbed.cluster.deployment import DEFAULT_SHARE, Deployment
from testbed.cluster.object_key import Owner
from testbed.cluster.placement import Placed, SeenNode, choose_node, host_ports
from testbed.cluster.pod_template import share
from testbed.workloads.seen import Action, CannotPlace, CreatePod, DeletePod, KeptSet, PodsByOwner, SeenPod, living


def fill(
    deployment: Deployment | None,
    sets: Sequence[KeptSet],
    pods: PodsByOwner,
    nodes: Sequence[SeenNode],
    placed: list[Placed],
) -> Iterator[Action]:
    """Bring the pods of a Deployment's ReplicaSets, or of a single one, to what these want.

    `placed` is what there is on the nodes; pods that are created are added to it.
    """
    left: dict[Owner, list[SeenPod]] = {}
    for one in sets:
        own = living(pods, one.wanted.owner)
        staying = [pod for pod in own if not must_leave(pod, one, nodes)]
        surplus = _least_wanted(staying)[: max(0, len(staying) - one.replicas)]
        for pod in surplus:
            yield DeletePod(pod.key, f"{one.replicas} desired")
        left[one.wanted.owner] = [pod for pod in own if pod not in surplus]
    most, fewest = _limits(deployment, sets)
    room = most - sum(map(len, left.values()))
    for one in sets:
        staying = [pod for pod in left[one.wanted.owner] if not must_leave(pod, one, nodes)]
        for action in _create(one, min(one.replicas - len(staying), room), nodes, placed):
            room -= isinstance(action, CreatePod)
            yield action
    spare = sum(pod.available for own in left.values() for pod in own) - fewest
    for one in sets:
        for pod in _least_wanted([pod for pod in left[one.wanted.owner] if must_leave(pod, one, nodes)]):
            if pod.available and spare <= 0:
                continue
            spare -= pod.available
            yield DeletePod(pod.key, f"{pod.node} is drained")


def must_leave(pod: SeenPod, of: KeptSet, nodes: Sequence[SeenNode]) -> bool:
    """Report whether a pod is on a drained node; one whose template names the node has nowhere else to go."""
    if of.wanted.spec.template.spec.node_name is not None:
        return False
    return any(node.name == pod.node and node.leaving for node in nodes)


def _limits(deployment: Deployment | None, sets: Sequence[KeptSet]) -> tuple[int, int]:
    """Return how many pods there may be at most, and how many available ones at least."""
    if deployment is not None:
        replicas = deployment.spec.replicas
        wanted = max(replicas, sum(one.replicas for one in sets))
        return max(wanted, replicas + deployment.max_surge), replicas - deployment.max_unavailable
    replicas = sum(one.replicas for one in sets)
    return replicas + share(DEFAULT_SHARE, replicas, math.ceil), replicas - share(DEFAULT_SHARE, replicas, math.floor)


def _create(
    one: KeptSet, number: int, nodes: Sequence[SeenNode], placed: list[Placed]
) -> Iterator[CreatePod | CannotPlace]:
    owner, spec = one.wanted.owner, one.wanted.spec.template.spec
    for _ in range(number):
        node, why = choose_node(spec, owner, nodes, placed)
        if node is None:
            yield CannotPlace(owner, why)
            return
        placed.append(Placed(node, owner, host_ports(spec)))
        yield CreatePod(owner, node)


def _least_wanted(pods: Sequence[SeenPod]) -> list[SeenPod]:
    """Order them as they can be spared: not available ones first, those on the fullest node, the newest."""
    left, order = list(pods), list[SeenPod]()
    while left:
        on_node = {pod.node: sum(1 for other in left if other.node == pod.node) for pod in left}
        chosen = max(left, key=lambda pod: (not pod.ready, not pod.available, on_node[pod.node], pod.number))
        left.remove(chosen)
        order.append(chosen)
    return order
