"""Network policies as manifests: the cases of known suites, random ones, and a second, naive reading of what they let
through.

The naive reading works on plain JSON in the words of Kubernetes' documentation; it shares no code with the testbed.
"""

import ipaddress
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Json = Mapping[str, Any]
NAMESPACES = ("x", "y", "z")
NAMES = ("a", "b", "c")
PORTS = (80, 81)
CASES: Sequence[Json] = yaml.safe_load((Path(__file__).parent / "e2e" / "policies.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class PlainPod:
    """A pod as the naive reading sees it."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    address: str
    ports: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Name → protocol and number."""


def port_names(protocol: str) -> Mapping[int, str]:
    """Return what the pods of the tests call their ports."""
    return {port: f"serve-{port}-{protocol.lower()}" for port in PORTS}


NAMED = {name: (protocol, port) for protocol in ("TCP", "UDP") for port, name in port_names(protocol).items()}


SWAPPED = {name: (protocol, sum(PORTS) - port) for name, (protocol, port) in NAMED.items()}


def nine_pods() -> list[PlainPod]:
    """Return namespaces x, y, z with pods a, b, c each, on addresses of three nodes; c's names mean other numbers."""
    return [
        PlainPod(namespace, name, {"pod": name}, f"10.0.{number + 1}.{at + 2}", SWAPPED if name == "c" else NAMED)
        for at, namespace in enumerate(NAMESPACES)
        for number, name in enumerate(NAMES)
    ]


def namespace_labels() -> dict[str, dict[str, str]]:
    """Return their labels."""
    return {one: {"ns": one, "kubernetes.io/metadata.name": one} for one in NAMESPACES}


def allows(
    policies: Sequence[Json],
    namespaces: Mapping[str, Mapping[str, str]],
    source: PlainPod,
    target: PlainPod,
    protocol: str,
    port: int,
) -> bool:
    """Return whether a connection passes: all that isolate the source for egress, and the target for ingress."""
    if source == target:
        return True
    return _passes(policies, namespaces, source, target, target, protocol, port, "Egress") and _passes(
        policies, namespaces, target, source, target, protocol, port, "Ingress"
    )


def _passes(
    policies: Sequence[Json],
    namespaces: Mapping[str, Mapping[str, str]],
    subject: PlainPod,
    other: PlainPod,
    target: PlainPod,
    protocol: str,
    port: int,
    direction: str,
) -> bool:
    isolated = False
    for policy in policies:
        spec = policy["spec"]
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        mine = policy["metadata"]["namespace"] == subject.namespace
        if not mine or direction not in types or not _selects(spec.get("podSelector", {}), subject.labels):
            continue
        isolated = True
        for rule in spec.get(direction.lower()) or []:
            peers = rule.get("from" if direction == "Ingress" else "to")
            ports = rule.get("ports")
            peer_fits = not peers or any(_is(policy, namespaces, peer, other) for peer in peers)
            port_fits = not ports or any(_fits(one, target, protocol, port) for one in ports)
            if peer_fits and port_fits:
                return True
    return not isolated


def _is(policy: Json, namespaces: Mapping[str, Mapping[str, str]], peer: Json, other: PlainPod) -> bool:
    if "ipBlock" in peer:
        address = ipaddress.ip_address(other.address)
        block = peer["ipBlock"]
        return address in ipaddress.ip_network(block["cidr"]) and all(
            address not in ipaddress.ip_network(one) for one in block.get("except", [])
        )
    if "namespaceSelector" in peer:
        if not _selects(peer["namespaceSelector"], namespaces[other.namespace]):
            return False
    elif other.namespace != policy["metadata"]["namespace"]:
        return False
    return "podSelector" not in peer or _selects(peer["podSelector"], other.labels)


def _fits(wanted: Json, target: PlainPod, protocol: str, port: int) -> bool:
    if wanted.get("protocol", "TCP") != protocol:
        return False
    number = wanted.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        return target.ports.get(number) == (protocol, port)
    return bool(number <= port <= wanted.get("endPort", number))


def _selects(selector: Json, labels: Mapping[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", []):
        has, value = one["key"] in labels, labels.get(one["key"])
        if not {
            "In": has and value in one.get("values", []),
            "NotIn": not has or value not in one.get("values", []),
            "Exists": has,
            "DoesNotExist": not has,
        }[one["operator"]]:
            return False
    return True


class RandomPolicies:
    """Manifests at random, of few words, so that they often meet."""

    def __init__(self, seed: int, pods: Sequence[PlainPod]) -> None:
        self._random = random.Random(seed)
        self._pods = pods

    def some(self, most: int = 8) -> list[Json]:
        """Draw up to this many policies."""
        return [self._policy(number) for number in range(self._random.randint(1, most))]

    def _policy(self, number: int) -> Json:
        spec: dict[str, Any] = {"podSelector": self._selector("pod", NAMES)}
        types = self._random.choice((None, ["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        if types is not None:
            spec["policyTypes"] = types
        if types is None or "Ingress" in types:
            spec["ingress"] = self._rules("from")
        if types is not None and "Egress" in types:
            spec["egress"] = self._rules("to")
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"p{number}", "namespace": self._random.choice(NAMESPACES)},
            "spec": spec,
        }

    def _rules(self, peers: str) -> list[Json]:
        rules: list[Json] = []
        for _ in range(self._random.choice((0, 1, 1, 2))):
            rule: dict[str, Any] = {}
            if self._random.random() < 0.8:
                rule[peers] = [self._peer() for _ in range(self._random.randint(1, 2))]
            if self._random.random() < 0.7:
                rule["ports"] = [self._port() for _ in range(self._random.randint(1, 2))]
            rules.append(rule)
        return rules

    def _peer(self) -> Json:
        kind = self._random.choice(("pods", "namespaces", "both", "block"))
        if kind == "block":
            address = ipaddress.ip_address(self._random.choice(self._pods).address)
            block = ipaddress.ip_network((str(address), self._random.choice((8, 16, 24, 31, 32))), strict=False)
            found: dict[str, Any] = {"cidr": str(block)}
            if block.prefixlen < 31 and self._random.random() < 0.5:
                holes = self._random.sample([pod.address for pod in self._pods], 2)
                found["except"] = [f"{one}/32" for one in holes if ipaddress.ip_address(one) in block]
            return {"ipBlock": found}
        peer: dict[str, Any] = {}
        if kind in ("pods", "both"):
            peer["podSelector"] = self._selector("pod", NAMES)
        if kind in ("namespaces", "both"):
            peer["namespaceSelector"] = self._selector("ns", NAMESPACES)
        return peer

    def _port(self) -> Json:
        protocol = self._random.choice(("TCP", "UDP"))
        port: dict[str, Any] = {"protocol": protocol}
        kind = self._random.choice(("number", "number", "name", "all", "range"))
        if kind == "number":
            port["port"] = self._random.choice(PORTS)
        elif kind == "name":
            port["port"] = port_names(protocol)[self._random.choice(PORTS)]
        elif kind == "range":
            port["port"] = self._random.randint(78, 81)
            port["endPort"] = port["port"] + self._random.randint(0, 3)
        return port

    def _selector(self, key: str, values: Sequence[str]) -> Json:
        kind = self._random.choice(("all", "label", "label", "In", "NotIn", "Exists", "DoesNotExist"))
        if kind == "all":
            return {}
        if kind == "label":
            return {"matchLabels": {key: self._random.choice(values)}}
        one: dict[str, Any] = {"key": key, "operator": kind}
        if kind in ("In", "NotIn"):
            one["values"] = self._random.sample(values, self._random.randint(1, 2))
        return {"matchExpressions": [one]}
