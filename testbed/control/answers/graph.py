"""The content of a picture of the lab: `graph -o json`."""

from typing import Literal, NotRequired, TypedDict

from testbed.control.answers.faults import FaultAnswer
from testbed.control.answers.lab import NodeStatus, PodLine, ServiceLine

MachineKind = Literal["node", "etcd", "gateway", "router"]


class InterfaceCounters(TypedDict):
    """Traffic of an interface since its creation."""

    rx_bytes: int
    rx_packets: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_dropped: int


class InterfaceFacts(InterfaceCounters):
    """One interface, with its traffic since its creation."""

    name: str
    kind: str
    """The driver's name."""
    address: str | None
    """On the underlay."""
    up: bool
    carrier: bool
    mtu: int
    master: str | None
    """Its bridge."""


class MachineFacts(TypedDict):
    """One machine of the underlay."""

    name: str
    kind: MachineKind
    healthy: bool
    cluster: NotRequired[list[str]]
    """Endpoints of an existing etcd cluster, to which it is the relay."""
    interfaces: list[InterfaceFacts]


class SwitchFacts(TypedDict):
    """One switch of the underlay."""

    name: str
    up: bool
    interfaces: list[InterfaceFacts]
    """Its ports."""


class CableEnd(TypedDict):
    """One end of a cable."""

    machine: str
    interface: str


class CableFacts(TypedDict):
    """One cable of the underlay."""

    ends: list[CableEnd]
    """Two."""
    spare: bool
    """Blocked by the spanning tree."""
    bandwidth_mbit: float | None
    delay: str | None
    loss_percent: float | None


class DeviceFacts(TypedDict):
    """A node's bridge or overlay device."""

    name: str
    kind: str
    address: str | None
    mtu: int
    up: bool


class ForwardingLine(TypedDict):
    """One entry of an agent's forwarding table."""

    subnet: str
    via: str


class NodeFacts(NodeStatus):
    """A node as in the status, with its parts."""

    bridge_name: str | None
    """The bridge that pods are attached to, even while it does not exist; null where their CNI plugins make none."""
    bridge: DeviceFacts | None
    """Null while there is none."""
    overlay: DeviceFacts | None
    """Null while there is none."""
    why_not_ready: list[str]
    forwarding: list[ForwardingLine] | None
    """The agent's table; null while it does not answer."""
    drops: dict[str, int]
    """Dropped packets by reason."""
    traffic: dict[str, int]
    """Of the agent."""


class DrawnPodFacts(PodLine):
    """A pod as in the status, with its link."""

    host_end: str | None
    """The node's end of its link; null with its node's network."""


class GraphAnswer(TypedDict):
    """`graph -o json`; testbed/graph/ draws it."""

    lab: str
    state: str
    """As in the status."""
    at: str
    """Time of the query: RFC 3339, UTC."""
    network: str
    """The pod network."""
    port: int
    """The overlay's UDP port."""
    machines: list[MachineFacts]
    switches: list[SwitchFacts]
    cables: list[CableFacts]
    nodes: list[NodeFacts]
    pods: list[DrawnPodFacts]
    services: list[ServiceLine]
    faults: NotRequired[list[FaultAnswer]]
    """Active faults; the command line adds them."""
