"""The content of a picture as values, read from the answer of the lab's verb `graph`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from testbed.control.answers.graph import CableFacts, DeviceFacts, DrawnPodFacts, GraphAnswer, InterfaceFacts, NodeFacts
from testbed.control.answers.lab import ServiceLine

Health = Literal["good", "busy", "bad"]
"""Drawn by colour and by shape: a disc, a triangle, a cross."""

Point = tuple[str, str]
"""A place where a packet can be observed: machine, pod or switch, and its interface."""
Links = Mapping[Point, InterfaceFacts]


@dataclass(frozen=True, slots=True)
class Device:
    """A node's bridge or overlay device."""

    name: str
    kind: str
    """The driver's name: `bridge`, `tun`, `vxlan`."""
    address: str | None
    mtu: int
    """In bytes."""
    up: bool


@dataclass(frozen=True, slots=True)
class DrawnPod:
    """A pod and the node's end of its link."""

    name: str
    node: str
    address: str | None
    state: str
    ready: bool
    host_end: str | None
    """The node's end of its link; None for a pod with its node's network."""
    linked: bool
    """Whether that end exists, is up and a port of the bridge, if there is one."""

    @property
    def health(self) -> Health:
        """Return good if it is ready, busy while it starts."""
        if self.ready:
            return "good" if self.linked else "bad"
        return "busy" if self.state in ("Pending", "ContainerCreating", "Running") else "bad"


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """A node of the cluster and its parts."""

    name: str
    address: str
    subnet: str | None
    backend: str
    device: str
    """Name of the overlay device, even while it does not exist; empty for a backend without one."""
    agent: str
    """Its state in a word: ready, not ready, fenced, starting, backoff, by hand."""
    peers_known: int
    peers_expected: int
    uplink: str
    """Name of the interface on the underlay."""
    uplink_up: bool
    mtu: int
    """The uplink's MTU in bytes."""
    bridge_name: str | None
    """Even while it does not exist; None if its pods are attached to none."""
    bridge: Device | None
    overlay: Device | None
    pods: tuple[DrawnPod, ...]
    datapath: str | None = None
    """What moves its packets, as its agent reports it."""

    @property
    def pods_point(self) -> Point:
        """Return the point where its pods' links meet: the bridge, or the node's routes to each pod."""
        return self.name, self.bridge_name or "routes"

    @property
    def health(self) -> Health:
        """Return the health of the agent."""
        if self.agent == "ready":
            return "good" if self.peers_known == self.peers_expected else "busy"
        return "busy" if self.agent in ("starting", "not ready", "by hand") else "bad"

    @property
    def agent_carries(self) -> bool:
        """Return whether packets pass through the agent's own process, and not only through the kernel."""
        return self.backend == "udp" and self.datapath != "kernel"


@dataclass(frozen=True, slots=True)
class DrawnMachine:
    """Another machine of the underlay: gateway, router, etcd member."""

    name: str
    kind: str
    """`gateway`, `router` or `etcd`."""
    healthy: bool
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """A Linux bridge of the underlay."""

    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class DrawnCable:
    """A link of the underlay."""

    ends: tuple[Point, Point]
    up: bool
    spare: bool
    """Held back by the spanning tree at the lab's start."""
    note: str
    """Its difference from a perfect cable, such as `100 Mbit/s 10ms`; else empty."""


@dataclass(frozen=True, slots=True)
class DrawnService:
    """A Service: a name and an address for pods."""

    name: str
    address: str | None
    """Its cluster IP; None for a headless one."""
    ports: tuple[str, ...]
    """As `80/TCP`."""
    endpoints: int
    """Ready pods behind it."""


@dataclass(frozen=True, slots=True)
class DrawnFault:
    """An active fault."""

    number: int
    text: str
    """As typed: `link loss node1 s1 30`."""

    @property
    def words(self) -> frozenset[str]:
        """Return every word that may name an affected object."""
        return frozenset(self.text.replace(",", " ").split())


@dataclass(frozen=True, slots=True)
class Graph:
    """A whole lab."""

    lab: str
    state: str
    network: str
    port: int
    """UDP port of the overlay."""
    nodes: tuple[DrawnNode, ...]
    machines: tuple[DrawnMachine, ...]
    switches: tuple[Switch, ...]
    cables: tuple[DrawnCable, ...]
    services: tuple[DrawnService, ...] = ()
    faults: tuple[DrawnFault, ...] = ()

    def faults_of(self, name: str) -> tuple[DrawnFault, ...]:
        """Return the active faults of a node, pod, machine or switch, without those of its cables."""
        return tuple(one for one in self.faults if name in one.words and not one.text.startswith("link "))

    def faults_of_cable(self, one: str, other: str) -> tuple[DrawnFault, ...]:
        """Return the active faults of the cable between two things."""
        return tuple(fault for fault in self.faults if fault.text.startswith("link ") and {one, other} <= fault.words)


def graph_of(facts: GraphAnswer) -> Graph:
    """Parse the verb's answer."""
    owners = [(one["name"], one["interfaces"]) for one in facts["machines"]]
    owners += [(one["name"], one["interfaces"]) for one in facts["switches"]]
    links: Links = {(owner, link["name"]): link for owner, interfaces in owners for link in interfaces}
    cables = tuple(_cable(one, links) for one in facts["cables"])
    return Graph(
        lab=facts["lab"],
        state=facts["state"],
        network=facts["network"],
        port=facts["port"],
        nodes=tuple(_node(one, facts, cables, links) for one in facts["nodes"]),
        machines=tuple(
            DrawnMachine(
                one["name"],
                one["kind"],
                one["healthy"],
                tuple(link["address"] for link in one["interfaces"] if link["address"]),
            )
            for one in facts["machines"]
            if one["kind"] != "node"
        ),
        switches=tuple(Switch(one["name"], one["up"]) for one in facts["switches"]),
        cables=cables,
        services=tuple(_service(one) for one in facts["services"]),
        faults=tuple(DrawnFault(one["number"], one["fault"]) for one in facts.get("faults", ())),
    )


def _node(
    line: NodeFacts,
    facts: GraphAnswer,
    cables: tuple[DrawnCable, ...],
    links: Links,
) -> DrawnNode:
    name = line["name"]
    uplink = next((end[1] for cable in cables for end in cable.ends if end[0] == name), f"{name}-eth0")
    link = links.get((name, uplink))
    return DrawnNode(
        name=name,
        address=line["address"],
        subnet=line["subnet"],
        backend=line["backend"],
        device=line["device"] or "",
        agent=line["agent"]["state"],
        peers_known=line["peers"]["known"],
        peers_expected=line["peers"]["expected"],
        uplink=uplink,
        uplink_up=bool(link and link["up"]),
        mtu=link["mtu"] if link else 0,
        bridge_name=line["bridge_name"],
        bridge=_device(line["bridge"]),
        overlay=_device(line["overlay"]),
        pods=tuple(_pod(pod, links, line["bridge_name"]) for pod in facts["pods"] if pod["node"] == name),
        datapath=line["datapath"],
    )


def _service(value: ServiceLine) -> DrawnService:
    ports = tuple(f"{port['port']}/{port['protocol']}" for port in value["ports"])
    return DrawnService(value["name"], value["cluster_ip"], ports, value["endpoints"])


def _device(value: DeviceFacts | None) -> Device | None:
    if value is None:
        return None
    return Device(value["name"], value["kind"], value["address"], value["mtu"], value["up"])


def _pod(line: DrawnPodFacts, links: Links, bridge: str | None) -> DrawnPod:
    link = None if line["host_end"] is None else links.get((line["node"], line["host_end"]))
    return DrawnPod(
        name=line["name"],
        node=line["node"],
        address=line["address"],
        state=line["state"],
        ready=line["ready"],
        host_end=line["host_end"],
        linked=line["host_end"] is None or bool(link and link["up"] and (link["master"] or bridge is None)),
    )


def _cable(value: CableFacts, links: Links) -> DrawnCable:
    first, second = ((end["machine"], end["interface"]) for end in value["ends"])
    shaping = [
        f"{value['bandwidth_mbit']:g} Mbit/s" if value["bandwidth_mbit"] else "",
        value["delay"] or "",
        f"{value['loss_percent']:g} % loss" if value["loss_percent"] else "",
    ]
    up = all(bool(links.get(end)) and links[end]["up"] for end in (first, second))
    return DrawnCable((first, second), up, value["spare"], " ".join(word for word in shaping if word))
