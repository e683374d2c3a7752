"""NetworkPolicies in `describe`."""

from collections.abc import Iterator

from testbed.cluster.label_selector import Selector
from testbed.cluster.network_policy import EgressRule, IngressRule, NetworkPolicy, Peer, PolicyPort
from testbed.cluster.object_key import ObjectKey, key_of
from testbed.control.answers.lab import Description
from testbed.policies.policies import Policies
from testbed.policies.tables import chain_of
from testbed.policies.world import DIRECTIONS, PolicyPod, names_of

EVERYTHING = Selector()


def describe_policy(known: Policies, name: str) -> Description:
    """Return everything about one NetworkPolicy, as headings and values. Raises KeyError."""
    policy = known.applied[key_of(name)]
    spec, world = policy.spec, known.world()
    isolated = [
        pod
        for pod in world.pods
        if pod.node and any(policy in world.isolating(pod, direction) for direction in spec.directions)
    ]
    return {
        "Name": name,
        "Labels": policy.metadata.labels or None,
        "Pod selector": str(spec.pod_selector),
        "Isolates": ", ".join(spec.directions),
        "Ingress": list(_rules(policy, spec.ingress, "from")) if "Ingress" in spec.directions else None,
        "Egress": list(_rules(policy, spec.egress, "to")) if "Egress" in spec.directions else None,
        "Pods": {str(pod.key): f"{pod.node}, {', '.join(map(str, pod.addresses))}" for pod in isolated} or "none",
        "Look inside": list(_look(policy, isolated)),
    }


def isolated_by(known: Policies, key: ObjectKey) -> str:
    """Return the policies that isolate a pod, each with its directions: `default/web (ingress)`; empty: none."""
    if not known.applied:
        return ""
    world = known.world()
    pod = next((one for one in world.pods if one.key == key), None)
    found: dict[str, list[str]] = {}
    for direction in DIRECTIONS:
        for name in names_of(world.isolating(pod, direction)) if pod else ():
            found.setdefault(name, []).append(direction.lower())
    return ", ".join(f"{name} ({' and '.join(directions)})" for name, directions in found.items())


def _rules(policy: NetworkPolicy, rules: tuple[IngressRule | EgressRule, ...], word: str) -> Iterator[str]:
    if not rules:
        yield "nothing is allowed"
    for rule in rules:
        peers = " or ".join(_peer(policy, peer) for peer in rule.peers) or "anywhere"
        ports = ", ".join(map(_port, rule.ports)) or "every port and protocol"
        yield f"{word} {peers}: {ports}"


def _peer(policy: NetworkPolicy, peer: Peer) -> str:
    if peer.ip_block is not None:
        holes = f" except {', '.join(peer.ip_block.exceptions)}" if peer.ip_block.exceptions else ""
        return f"{peer.ip_block.cidr}{holes}"
    pods = "all pods" if peer.pod_selector in (None, EVERYTHING) else f"pods {peer.pod_selector}"
    if peer.namespace_selector is None:
        return f"{pods} of {policy.key.namespace}"
    everywhere = peer.namespace_selector == EVERYTHING
    return f"{pods} of {'every namespace' if everywhere else f'namespaces {peer.namespace_selector}'}"


def _port(port: PolicyPort) -> str:
    numbers = "every port" if port.port is None else str(port.port)
    return f"{numbers}{f'-{port.end_port}' if port.end_port else ''}/{port.protocol}"


def _look(policy: NetworkPolicy, isolated: list[PolicyPod]) -> Iterator[str]:
    for pod in isolated[:1]:
        direction = policy.spec.directions[0]
        yield f"exec {pod.node} -- nft list chain inet testbed-policies {chain_of(direction, pod)}"
