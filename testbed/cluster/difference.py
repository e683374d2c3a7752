"""The changes that bring a running lab to a changed cluster file, and those that are impossible. Pure.

    running file ┐
                 ├─> Difference: nodes and objects to add, change and remove; fields that a running lab cannot change
    wanted file  ┘

The file that the lab was created from is the base, as with `kubectl apply`: objects in neither file were made by hand
and stay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from testbed.cluster.cluster_document import AgentSpec, NodeSpec
from testbed.cluster.kinds import MANIFESTS
from testbed.cluster.spec import Cluster
from testbed.cluster.wiring import Wiring

Sign = Literal["+", "~", "-"]
FIXED_UNDERLAY = ("cidr", "ipv6_cidr", "mtu", "switch")


@dataclass(frozen=True, slots=True)
class NewNode:
    """A node to add: where its cable goes, and its settings in the file."""

    name: str
    switch: str
    ip: str | None
    subnet: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between two files."""

    refused: tuple[str, ...]
    """Changes that are impossible while the lab runs, each as `PATH: REASON`; if there are any, nothing is done."""
    new_nodes: tuple[NewNode, ...]
    gone_nodes: tuple[str, ...]
    agents: tuple[str, ...]
    """Nodes that stay and get another agent, or other flags."""
    objects: tuple[tuple[Sign, str, str], ...]
    """Objects to add, change or remove; not unchanged ones."""

    @property
    def gone_objects(self) -> tuple[tuple[str, str], ...]:
        """Return kind and name of the objects to remove."""
        return tuple((kind, name) for sign, kind, name in self.objects if sign == "-")

    def lines(self) -> Iterator[str]:
        """Return the plan for people, in the order of execution."""
        yield from (f"~ agent of {name}" for name in self.agents)
        yield from (f"+ node {node.name}" for node in self.new_nodes)
        order = {"-": 0, "+": 1, "~": 2}
        for sign, kind, name in sorted(self.objects, key=lambda one: order[one[0]]):
            yield f"{sign} {kind.lower()} {name}"
        yield from (f"- node {name}" for name in self.gone_nodes)


def difference(running: Cluster, wanted: Cluster) -> Difference:
    """Compare the file that the lab was created from with the wanted one."""
    new = [name for name in wanted.nodes if name not in running.nodes]
    gone = tuple(name for name in running.nodes if name not in wanted.nodes)
    nodes = [_new_node(wanted, name) for name in new]
    refused = [*_fixed(running, wanted), *(node for node in nodes if isinstance(node, str))]
    return Difference(
        tuple(refused),
        tuple(node for node in nodes if isinstance(node, NewNode)),
        gone,
        tuple(
            name for name in running.nodes if name in wanted.nodes and agent_of(running, name) != agent_of(wanted, name)
        ),
        tuple(_objects(running, wanted)),
    )


def agent_of(cluster: Cluster, name: str) -> AgentSpec:
    """Return the agent of a node: its own, or that of all."""
    return cluster.nodes[name].agent or cluster.agent


def _fixed(running: Cluster, wanted: Cluster) -> Iterator[str]:
    if running.name != wanted.name:
        yield f"metadata.name: got {wanted.name}; want {running.name}"
    if running.network_json != wanted.network_json:
        yield "network: every lease and route follows from it"
    for field in FIXED_UNDERLAY:
        if getattr(running.underlay, field) != getattr(wanted.underlay, field):
            yield f"underlay.{field}: every machine's address and link depends on it"
    if running.addresses.gateway != wanted.addresses.gateway:
        yield "underlay.gateway: every machine's default route depends on it"
    if running.etcd.settled != wanted.etcd.settled:
        yield "etcd: read once, when the lab starts"
    if running.cni != wanted.cni:
        yield "cni: the plugins that made pods' networks remove them too"
    if running.dns != wanted.dns:
        yield "dns: read once, when the lab starts"
    stay = [name for name in wanted.nodes if name in running.nodes]
    for name in stay:
        # An address that one of the files leaves open is the node's own.
        before, now = (
            _with_address(cluster.nodes[name], running.addresses.nodes[name]) for cluster in (running, wanted)
        )
        fields = [field for field in NodeSpec.model_fields if field != "agent"]
        changed = [field for field in fields if getattr(before, field) != getattr(now, field)]
        if changed:
            yield f"nodes.{name}.{', '.join(changed)}: the node is running"
    if _shape(running.wiring, stay) != _shape(wanted.wiring, stay):
        yield "underlay: switches, routers, or links between machines that stay"


def _with_address(node: NodeSpec, address: IPv4Address) -> NodeSpec:
    return node if node.ip is not None else node.model_copy(update={"ip": address})


def _shape(wiring: Wiring, nodes: list[str]) -> object:
    """Return the part of a wiring that does not depend on other nodes."""
    others = {name for name in wiring.nodes if name not in nodes}
    cables = {(frozenset(cable.ends), cable.shaping) for cable in wiring.cables if not others & set(cable.ends)}
    return wiring.switches, wiring.routers, wiring.root, cables


def _new_node(wanted: Cluster, name: str) -> NewNode | str:
    """Return the node, or its settings that a running lab does not support."""
    spec = wanted.nodes[name]
    for field in ("reserved", "ipv6_subnet", "agent", "cni"):
        if getattr(spec, field):
            return f"nodes.{name}.{field}: not for an added node"
    cables = [cable for cable in wanted.wiring.cables if name in cable.ends]
    if len(cables) != 1 or not cables[0].shaping.is_none:
        return f"nodes.{name}: an added node has one link without shaping; got {len(cables)} links, or shaping"
    switch = next(end for end in cables[0].ends if end != name)
    if switch not in wanted.wiring.switches:
        return f"nodes.{name}: an added node is linked to a switch; got {switch}"
    ip, subnet = str(spec.ip) if spec.ip else None, str(spec.subnet) if spec.subnet else None
    return NewNode(name, switch, ip, subnet, spec.labels)


def _objects(running: Cluster, wanted: Cluster) -> Iterator[tuple[Sign, str, str]]:
    for _, kind in MANIFESTS:
        before, now = (
            {str(one.key): one for one in cluster.written if one.kind == kind} for cluster in (running, wanted)
        )
        for name, wish in now.items():
            if name not in before:
                yield "+", kind, name
            elif wish != before[name]:
                yield "~", kind, name
        for name in before:
            if name not in now:
                yield "-", kind, name
