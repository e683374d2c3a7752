"""Decides which pods of a DaemonSet to create and which to end: one on each matching node. Pure.

As in Kubernetes, a drained node keeps its pod and gets one, and a new pod is created when the old one is gone; with
maxSurge, before that.
"""

from collections.abc import Iterator, Sequence

from testbed.cluster.daemon_set import DaemonSet
from testbed.cluster.placement import Placed, SeenNode, host_ports, nodes_for, taken_port
from testbed.workloads.seen import Action, CannotPlace, CreatePod, DeletePod, SeenPod


def cover(
    wanted: DaemonSet, own: Sequence[SeenPod], nodes: Sequence[SeenNode], placed: list[Placed]
) -> Iterator[Action]:
    """Bring the pods of a DaemonSet to one on each matching node, of its current template.

    `own` are its pods, `placed` the existing pods on the nodes; created pods are added to it.
    """
    targets = nodes_for(wanted.spec.template.spec, nodes)
    for pod in own:
        if pod.node not in targets and not pod.terminating:
            yield DeletePod(pod.key, f"{pod.node} does not match it")
    there = {name: [pod for pod in own if pod.node == name] for name in targets}
    for name, found in there.items():
        if not found:
            yield _create(wanted, name, placed)
    yield from _update(wanted, there, placed)


def _update(wanted: DaemonSet, there: dict[str, list[SeenPod]], placed: list[Placed]) -> Iterator[Action]:
    template_hash, rolls = wanted.spec.template.hash, wanted.spec.update_strategy.type == "RollingUpdate"
    room = wanted.max_surge(len(there))
    spare = wanted.max_unavailable(len(there)) - sum(not _is_covered(found) for found in there.values())
    for name, found in there.items():
        # The one to keep is the last: available if any is, then the oldest.
        alive = sorted((pod for pod in found if not pod.terminating), key=lambda one: (one.available, -one.number))
        old = [pod for pod in alive if rolls and pod.template_hash != template_hash]
        new = [pod for pod in alive if pod not in old]
        for surplus in (*old[:-1], *new[:-1]):
            yield DeletePod(surplus.key, f"{name} has another")
        if old and new:
            room -= 1
        for pod in old[-1:]:
            if any(one.available for one in new) or not pod.available:
                yield DeletePod(pod.key, "replaced")
            elif spare > 0:
                spare -= 1
                yield DeletePod(pod.key, "replaced")
    for name, found in there.items():
        is_old = all(pod.template_hash != template_hash for pod in found)
        if rolls and room > 0 and is_old and _is_covered(found):
            room -= 1
            yield _create(wanted, name, placed)


def _is_covered(found: Sequence[SeenPod]) -> bool:
    return any(pod.available and not pod.terminating for pod in found)


def _create(wanted: DaemonSet, node: str, placed: list[Placed]) -> CreatePod | CannotPlace:
    spec = wanted.spec.template.spec
    ports = host_ports(spec)
    if taken := taken_port(ports, [one for one in placed if one.node == node]):
        return CannotPlace(wanted.owner, f"{node} {taken}")
    placed.append(Placed(node, wanted.owner, ports))
    return CreatePod(wanted.owner, node)
