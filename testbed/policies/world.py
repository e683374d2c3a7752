"""The input of policy decisions: pods, namespaces, and a packet's other end. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from agent.kernel.values import Family, IPAddress
from testbed.cluster.dns import DNS_ADDRESS
from testbed.cluster.label_selector import Labels
from testbed.cluster.namespace import NAME_LABEL
from testbed.cluster.network_policy import Direction, NetworkPolicy, Peer
from testbed.cluster.object_key import ObjectKey

Protocol = Literal["tcp", "udp", "sctp", "icmp"]
"""ICMP represents everything without ports: only rules without ports allow it."""
PROTOCOLS: Mapping[str, Protocol] = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
DIRECTIONS: tuple[Direction, ...] = ("Ingress", "Egress")


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port that a container names."""

    name: str
    protocol: Protocol
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPod:
    """A pod with its own network, from the policies' view."""

    key: ObjectKey
    labels: Labels
    node: str
    addresses: tuple[IPAddress, ...]
    """At most one of each family."""
    ports: tuple[NamedPort, ...] = ()
    device: str = ""
    """The node's end of its link."""

    def address_of(self, family: Family) -> IPAddress | None:
        """Return its address of that family."""
        return next((one for one in self.addresses if one.version == family), None)

    def number_of(self, name: str, protocol: Protocol) -> int | None:
        """Return the port with that name."""
        return next((one.number for one in self.ports if (one.name, one.protocol) == (name, protocol)), None)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection."""

    address: IPAddress
    pod: PolicyPod | None = None
    """None: a node, a pod with its node's network, or an outside address."""
    name: str = ""
    """For people; empty: its address."""

    def __str__(self) -> str:
        return self.name or (str(self.pod.key) if self.pod else str(self.address))


Label = tuple[str, str]


@dataclass(frozen=True)
class World:
    """Everything that decides which packets pass. Without slots, so that results are cached."""

    policies: tuple[NetworkPolicy, ...]
    pods: tuple[PolicyPod, ...]
    """Without those that use their node's network: policies do not apply to them."""
    namespaces: Mapping[str, Labels] = field(default_factory=dict)
    node_addresses: Mapping[str, frozenset[IPAddress]] = field(default_factory=dict)
    """By node: source addresses of the node's own packets."""

    def labels_of(self, namespace: str) -> Labels:
        """Return a namespace's labels; every one has its name."""
        return self.namespaces.get(namespace, {NAME_LABEL: namespace})

    def at(self, address: IPAddress) -> End:
        """Return the owner of an address."""
        return End(address, self._pods_by_address.get(address))

    def pod_named(self, name: str) -> PolicyPod | None:
        """Return the pod with that unique name: `client`, `shop/client`."""
        return self._pods_by_name.get(name)

    @cached_property
    def _pods_by_address(self) -> Mapping[IPAddress, PolicyPod]:
        return {address: pod for pod in self.pods for address in pod.addresses}

    @cached_property
    def _pods_by_name(self) -> Mapping[str, PolicyPod]:
        return {str(pod.key): pod for pod in self.pods}

    def isolating(self, pod: PolicyPod, direction: Direction) -> list[NetworkPolicy]:
        """Return the policies that isolate a pod in a direction, in order."""
        key = (pod.key, direction)
        if key not in self._isolating:
            near = self._policies_by_label
            wanted = [(pod.key.namespace, direction, label) for label in (None, *pod.labels.items())]
            found = sorted(number for one in wanted for number in near.get(one, ()))
            self._isolating[key] = [
                self.policies[number] for number in found if self.policies[number].spec.pod_selector.matches(pod.labels)
            ]
        return self._isolating[key]

    @cached_property
    def _isolating(self) -> dict[tuple[ObjectKey, Direction], list[NetworkPolicy]]:
        """Return the policies found so far, by pod and direction."""
        return {}

    @cached_property
    def _policies_by_label(self) -> Mapping[tuple[str, Direction, Label | None], Sequence[int]]:
        """Return the numbers of policies by one label that their pods must have; None: those that require no label."""
        found: dict[tuple[str, Direction, Label | None], list[int]] = {}
        for number, policy in enumerate(self.policies):
            label = next(iter(policy.spec.pod_selector.match_labels.items()), None)
            for direction in policy.spec.directions:
                found.setdefault((policy.metadata.namespace, direction, label), []).append(number)
        return found

    def selected(self, policy: NetworkPolicy, peer: Peer) -> Iterator[PolicyPod]:
        """Yield the pods that a policy's peer selects by labels."""
        label = next(iter(peer.pod_selector.match_labels.items()), None) if peer.pod_selector else None
        near = self.pods if label is None else self._pods_by_label.get(label, ())
        return (pod for pod in near if self.selects(policy, peer, pod))

    @cached_property
    def _pods_by_label(self) -> Mapping[Label, Sequence[PolicyPod]]:
        found: dict[Label, list[PolicyPod]] = {}
        for pod in self.pods:
            for label in pod.labels.items():
                found.setdefault(label, []).append(pod)
        return found

    def selects(self, policy: NetworkPolicy, peer: Peer, pod: PolicyPod) -> bool:
        """Report whether a policy's peer selects a pod by labels."""
        if peer.ip_block is not None:
            return False
        if peer.namespace_selector is None:
            in_namespace = pod.key.namespace == policy.key.namespace
        else:
            in_namespace = peer.namespace_selector.matches(self.labels_of(pod.key.namespace))
        return in_namespace and (peer.pod_selector is None or peer.pod_selector.matches(pod.labels))


def cluster_dns() -> PolicyPod:
    """Return the lab's DNS from the policies' view: in the usual namespace, with the usual label."""
    ports = (NamedPort("dns", "udp", 53), NamedPort("dns-tcp", "tcp", 53))
    labels = {"k8s-app": "kube-dns"}
    return PolicyPod(key=ObjectKey("kube-system", "dns"), labels=labels, node="", addresses=(DNS_ADDRESS,), ports=ports)


def names_of(policies: Iterable[NetworkPolicy]) -> tuple[str, ...]:
    """Return the names of policies, with their namespace: `default/web`."""
    return tuple(f"{policy.key.namespace}/{policy.key.name}" for policy in policies)


def pods_on(world: World, node: str) -> Iterator[PolicyPod]:
    """Yield the pods of one node."""
    return (pod for pod in world.pods if pod.node == node)
