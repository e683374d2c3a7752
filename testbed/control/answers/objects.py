"""What `get` adds to Kubernetes' own fields, and the kinds that Kubernetes does not have."""

from typing import NotRequired, TypedDict

from testbed.control.answers.graph import ForwardingLine
from testbed.control.answers.lab import AgentStatus, PeerCount


class PodOwnFacts(TypedDict):
    """`testbed` of a Pod."""

    state: str
    """The word in kubectl's STATUS column: `Running`, `CrashLoopBackOff`, `Terminating`, …"""
    restarts: int
    """Restarts of all its containers."""
    link: str | None
    """The node's end of its link; null if it uses its node's network."""
    pausePid: int | None
    """In the lab, of the process that holds its namespaces."""
    pids: dict[str, int | None]
    """In the lab, of each container's first process; null while it is not running."""


class NodeOwnFacts(TypedDict):
    """`testbed` of a Node; its parts are those of `status -o json`."""

    backend: str
    device: str | None
    datapath: str | None
    agent: AgentStatus
    peers: PeerCount
    warnings: list[str]
    cordoned: NotRequired[bool]


class DeploymentFacts(TypedDict):
    """`testbed` of a Deployment."""

    outdatedReplicas: int
    """Pods of a former template, or on a drained node."""


class ServiceOwnFacts(TypedDict):
    """`testbed` of a Service."""

    readyEndpoints: int
    """Ready pods."""


class OwnMetadata(TypedDict):
    """Metadata of objects that Kubernetes does not have."""

    name: str
    resourceVersion: NotRequired[str]
    """Of a lease: the key's revision in etcd."""


class LeaseSpec(TypedDict):
    """A lease in etcd."""

    subnet: str
    publicIP: str
    backendType: str
    node: str | None
    """Null if no node of the lab has this address."""
    ipv6Subnet: NotRequired[str]
    """On a dual-stack network."""
    publicIPv6: NotRequired[str]
    """On a dual-stack network."""


class LeaseStatus(TypedDict):
    """The lifetime of a lease."""

    reservation: bool
    """A key without an etcd lease."""
    etcdLease: str | None
    """In hexadecimal digits; null for a reservation."""
    secondsLeft: int | float | None
    """From its agent, else from etcd; null for a reservation."""


class LeaseObject(TypedDict):
    """One lease of `get leases -o json`."""

    apiVersion: str
    kind: str
    metadata: OwnMetadata
    """Its name is the key in etcd."""
    spec: LeaseSpec
    status: LeaseStatus


class RouteLine(TypedDict):
    """One route of the kernel."""

    destination: str
    device: str | None
    gateway: str | None
    scope: str
    type: str
    source: str | None
    metric: int


class RouteTableStatus(TypedDict):
    """A node's routes."""

    kernel: list[RouteLine]
    forwarding: list[ForwardingLine] | None
    """The agent's own table; null while it does not answer."""


class RouteTableObject(TypedDict):
    """One node of `get routes -o json`."""

    apiVersion: str
    kind: str
    metadata: OwnMetadata
    status: RouteTableStatus


class NameSpec(TypedDict):
    """The DNS's answer."""

    type: str
    data: str


class NameObject(TypedDict):
    """One record of `get names -o json`."""

    apiVersion: str
    kind: str
    metadata: OwnMetadata
    spec: NameSpec
