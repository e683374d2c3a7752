"""Decides which pods of ReplicaSets to create and which to end, like Kubernetes' replica set controller. Pure.

Pods on a draining node are replaced, the new one first, within the limits of the Deployment as a whole.
"""

import math
from collections import Counter
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
    """Bring the pods of a Deployment's ReplicaSets, or of a single one, to the desired numbers.

    `placed` are the existing pods on the nodes; created pods are added to it.
    """
    left: dict[Owner, list[SeenPod]] = {}
    drained = {one.wanted.owner: left_nodes(one, nodes) for one in sets}
    for one in sets:
        own = living(pods, one.wanted.owner)
        staying = [pod for pod in own if pod.node not in drained[one.wanted.owner]]
        surplus = _least_wanted(staying, len(staying) - one.replicas)
        for pod in surplus:
            yield DeletePod(pod.key, f"{one.replicas} desired")
        left[one.wanted.owner] = [pod for pod in own if pod not in surplus]
    most, fewest = _limits(deployment, sets)
    room = most - sum(map(len, left.values()))
    for one in sets:
        staying = [pod for pod in left[one.wanted.owner] if pod.node not in drained[one.wanted.owner]]
        for action in _create(one, min(one.replicas - len(staying), room), nodes, placed):
            room -= isinstance(action, CreatePod)
            yield action
    spare = sum(pod.available for own in left.values() for pod in own) - fewest
    for owner, own in left.items():
        leaving = [pod for pod in own if pod.node in drained[owner]]
        for pod in _least_wanted(leaving, len(leaving)):
            if pod.available and spare <= 0:
                continue
            spare -= pod.available
            yield DeletePod(pod.key, f"{pod.node} is drained")


def left_nodes(one: KeptSet, nodes: Sequence[SeenNode]) -> frozenset[str]:
    """Return the drained nodes, which its pods must leave; none if its template names a node."""
    if one.wanted.spec.template.spec.node_name is not None:
        return frozenset()
    return frozenset(node.name for node in nodes if node.leaving)


def _limits(deployment: Deployment | None, sets: Sequence[KeptSet]) -> tuple[int, int]:
    """Return the most pods allowed, and the fewest available ones."""
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


def _least_wanted(pods: Sequence[SeenPod], number: int) -> list[SeenPod]:
    """Choose the most dispensable pods first: unavailable ones, those on the fullest node, the newest."""
    left, chosen = list(pods), list[SeenPod]()
    for _ in range(number):
        on_node = Counter(pod.node for pod in left)
        worst = max(left, key=lambda pod: (not pod.ready, not pod.available, on_node[pod.node], pod.number))
        left.remove(worst)
        chosen.append(worst)
    return chosen
