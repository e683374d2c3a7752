"""The input of policy decisions: pods, namespaces, and a packet's other end. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class World:
    """Everything that decides which packets pass."""

    policies: tuple[NetworkPolicy, ...]
    pods: tuple[PolicyPod, ...]
    """Without those that use their node's network: policies do not apply to them."""
    namespaces: Mapping[str, Labels] = field(default_factory=dict)
    node_addresses: Mapping[str, frozenset[IPAddress]] = field(default_factory=dict)
    """By node: source addresses of the node's own packets."""
    _isolating: dict[tuple[ObjectKey, Direction], list[NetworkPolicy]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Cache."""

    def labels_of(self, namespace: str) -> Labels:
        """Return a namespace's labels; every one has its name."""
        return self.namespaces.get(namespace, {NAME_LABEL: namespace})

    def at(self, address: IPAddress) -> End:
        """Return the owner of an address."""
        return End(address, next((pod for pod in self.pods if address in pod.addresses), None))

    def isolating(self, pod: PolicyPod, direction: Direction) -> list[NetworkPolicy]:
        """Return the policies that isolate a pod in a direction, in order."""
        key = (pod.key, direction)
        if key not in self._isolating:
            self._isolating[key] = [
                policy
                for policy in self.policies
                if policy.key.namespace == pod.key.namespace
                and direction in policy.spec.directions
                and policy.spec.pod_selector.matches(pod.labels)
            ]
        return self._isolating[key]

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
