"""The pods behind each port of each Service, and behind each host port. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from agent.kernel.values import Family, IPAddress
from testbed.cluster.manifest import ContainerPort, PodManifest
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.service import Service, ServicePort

Protocol = Literal["tcp", "udp"]


@dataclass(frozen=True, slots=True)
class PodFacts:
    """The relevant facts about a pod."""

    manifest: PodManifest
    """With its node."""
    address: IPv4Address | None
    ready: bool
    terminating: bool = False
    """Or completed: nothing is sent to it, even by a Service that takes pods that are not ready."""
    ipv6: IPv6Address | None = None

    def address_of(self, family: Family) -> IPAddress | None:
        """Return its address of that family."""
        return self.address if family == 4 else self.ipv6

    @property
    def node(self) -> str:
        """Return the name of its node."""
        return self.manifest.spec.node_name or ""

    @property
    def ports(self) -> Iterable[ContainerPort]:
        """Return the ports of all its containers."""
        return (port for container in self.manifest.spec.containers for port in container.ports)


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One pod's port behind a Service."""

    address: IPAddress
    port: int
    pod: ObjectKey
    node: str


@dataclass(frozen=True, slots=True)
class BoundPort:
    """One port of a Service with everything that a node needs."""

    service: ObjectKey
    name: str
    """Name of the port; may be empty."""
    protocol: Protocol
    cluster_ip: IPAddress
    port: int
    node_port: int | None
    affinity_s: int | None
    local_only: bool
    """externalTrafficPolicy: Local."""
    endpoints: tuple[Endpoint, ...]
    """Only ready ones, in order."""
    external: IPv4Address | None = None
    """Of a LoadBalancer: additional addresses."""

    @property
    def key(self) -> str:
        """Return the suffix of its chains' and sets' names: unique, stable, and short enough for nftables."""
        return f"{self.service.file_name}-{self.protocol}-{self.port}"


@dataclass(frozen=True, slots=True)
class HostPort:
    """A node's port that leads to a pod on it."""

    protocol: Protocol
    address: IPv4Address | None
    """None: every address of the node except loopback."""
    port: int
    to: Endpoint


def endpoints_of(
    service: Service, pods: Iterable[PodFacts], family: Family = 4
) -> tuple[list[list[Endpoint]], list[list[Endpoint]]]:
    """Return, for each port of a Service, its ready endpoints, and those of pods that are not ready."""
    selector = service.spec.selector.items()
    chosen = [
        pod
        for pod in pods
        if pod.manifest.metadata.namespace == service.metadata.namespace
        and selector <= pod.manifest.metadata.labels.items()
        and pod.address_of(family) is not None
    ]
    ready, other = [], []
    for port in service.spec.ports:
        found = [(pod, endpoint) for pod in chosen if (endpoint := _endpoint(pod, port, family)) is not None]
        takes_all = service.spec.publish_not_ready_addresses
        serving = {endpoint for pod, endpoint in found if (pod.ready or takes_all) and not pod.terminating}
        ready.append(sorted(serving))
        other.append(sorted(endpoint for _, endpoint in found if endpoint not in serving))
    return ready, other


def _endpoint(pod: PodFacts, port: ServicePort, family: Family) -> Endpoint | None:
    target = port.target_port or port.port
    if isinstance(target, str):
        named = [one for one in pod.ports if one.name == target and one.protocol == port.protocol]
        if not named:
            return None
        target = named[0].container_port
    address = pod.address_of(family)
    assert address is not None
    return Endpoint(address, target, pod.manifest.key, pod.node)


def bind(services: Iterable[Service], pods: Sequence[PodFacts], family: Family = 4) -> tuple[BoundPort, ...]:
    """Return every port of every Service with a cluster IP of that family. Services have their numbers."""
    bound = []
    for service in services:
        cluster_ip = service.address_of(family)
        if cluster_ip is None:
            continue
        ready, _ = endpoints_of(service, pods, family)
        for port, endpoints in zip(service.spec.ports, ready, strict=True):
            bound.append(
                BoundPort(
                    service=service.key,
                    name=port.name or "",
                    protocol=_protocol(port.protocol),
                    cluster_ip=cluster_ip,
                    port=port.port,
                    node_port=port.node_port,
                    affinity_s=service.affinity_s,
                    local_only=service.spec.external_traffic_policy == "Local",
                    endpoints=tuple(endpoints),
                    external=service.external_address if family == 4 else None,
                )
            )
    return tuple(bound)


def host_ports(node: str, pods: Iterable[PodFacts], family: Family = 4) -> tuple[HostPort, ...]:
    """Return the host ports of the pods on one node. A pod with the node's own network has its ports there anyway."""
    found = []
    for pod in pods:
        own = pod.address_of(family)
        if pod.node != node or own is None or pod.terminating or pod.manifest.spec.host_network:
            continue
        for port in pod.ports:
            # A hostIP is an IPv4 address.
            if port.host_port is None or (family == 6 and port.host_ip is not None):
                continue
            anywhere = port.host_ip in (None, "0.0.0.0")
            address = None if anywhere else IPv4Address(str(port.host_ip))
            to = Endpoint(own, port.container_port, pod.manifest.key, node)
            found.append(HostPort(_protocol(port.protocol), address, port.host_port, to))
    return tuple(found)


def _protocol(name: str) -> Protocol:
    protocols: Mapping[str, Protocol] = {"TCP": "tcp", "UDP": "udp"}
    return protocols[name]
