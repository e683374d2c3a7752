"""Which pairs of pods would gain or lose a path if objects were applied. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from testbed.cluster.manifest import PodManifest
from testbed.cluster.namespace import Namespace
from testbed.cluster.network_policy import NetworkPolicy
from testbed.control.answers.policy import ReachChange
from testbed.policies.evaluate import evaluate
from testbed.policies.pairs import PortSpan, joined, spans_of, written
from testbed.policies.world import DIRECTIONS, End, PolicyPod, World


def after(world: World, objects: Iterable[object]) -> World:
    """Return the world with these objects: policies, and labels of namespaces and of pods that are there already."""
    policies = {policy.key: policy for policy in world.policies}
    namespaces = dict(world.namespaces)
    labels = {pod.key: pod.labels for pod in world.pods}
    for one in objects:
        if isinstance(one, NetworkPolicy):
            policies[one.key] = one
        elif isinstance(one, Namespace):
            namespaces[one.name] = one.labels
        elif isinstance(one, PodManifest) and one.key in labels:
            labels[one.key] = one.metadata.labels
    return World(
        tuple(policies.values()),
        tuple(replace(pod, labels=labels[pod.key]) for pod in world.pods),
        namespaces,
        world.node_addresses,
    )


def reach_changes(before: World, then: World) -> Iterator[ReachChange]:
    """Yield every two pods between which other ports pass than before."""
    spans = list(spans_of((before, then)))
    same_labels = before.namespaces == then.namespaces and all(
        one.labels == other.labels for one, other in zip(before.pods, then.pods, strict=True)
    )
    later: Mapping[object, PolicyPod] = {pod.key: pod for pod in then.pods}
    touched = {
        pod.key for pod in before.pods if not same_labels or _isolated_otherwise(before, then, pod, later[pod.key])
    }
    for source in before.pods:
        for target in before.pods:
            if source is target or not source.node or not target.node or not {source.key, target.key} & touched:
                continue
            sender, receiver = End(source.addresses[0], source), End(target.addresses[0], target)
            sender_then = replace(sender, pod=later[source.key])
            receiver_then = replace(receiver, pod=later[target.key])
            gains: list[PortSpan] = []
            loses: list[PortSpan] = []
            for span in spans:
                port = None if span.protocol == "icmp" else span.first
                passed = evaluate(before, sender, receiver, span.protocol, port).allowed
                passes = evaluate(then, sender_then, receiver_then, span.protocol, port).allowed
                if passes is not passed:
                    (gains if passes else loses).append(span)
            if gains or loses:
                yield {
                    "source": str(source.key),
                    "target": str(target.key),
                    "gains": written(joined(gains)),
                    "loses": written(joined(loses)),
                }


def _isolated_otherwise(before: World, then: World, pod: PolicyPod, later: PolicyPod) -> bool:
    return any(before.isolating(pod, one) != then.isolating(later, one) for one in DIRECTIONS)
