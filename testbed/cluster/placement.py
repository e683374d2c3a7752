"""The scheduler: chooses the node for a new pod. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from platform import machine
from typing import NamedTuple

from testbed.cluster.manifest import PodSpec
from testbed.cluster.object_key import Owner

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""In the names of Go and Kubernetes."""
ANY_ADDRESS = "0.0.0.0"


class TakenPort(NamedTuple):
    """A host port that a pod uses."""

    address: str
    """0.0.0.0: every address of the node."""
    protocol: str
    port: int

    def conflicts(self, other: "TakenPort") -> bool:
        """Report whether the two cannot be on one node."""
        same = (self.protocol, self.port) == (other.protocol, other.port)
        return same and (self.address == other.address or ANY_ADDRESS in (self.address, other.address))


@dataclass(frozen=True, slots=True)
class SeenNode:
    """The current state of one node."""

    name: str
    open: bool = True
    """Whether new pods may go there."""
    leaving: bool = False
    """Whether pods that can run elsewhere should move: it is drained or about to be deleted."""
    cordoned: bool = False
    """Whether it accepts no new pods, and keeps its existing ones."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those of the cluster file; every node also has labels of its own."""

    @property
    def all_labels(self) -> Mapping[str, str]:
        """Return the file's labels, and those that every node has."""
        return {**node_labels(self.name), **self.labels}


def node_labels(name: str) -> dict[str, str]:
    """Return the labels that a node has by itself."""
    architecture = ARCHITECTURES.get(machine(), machine())
    return {
        "kubernetes.io/hostname": name,
        **{f"{prefix}kubernetes.io/os": "linux" for prefix in ("", "beta.")},
        **{f"{prefix}kubernetes.io/arch": architecture for prefix in ("", "beta.")},
    }


@dataclass(frozen=True, slots=True)
class Placed:
    """The resources of its node that an existing pod uses."""

    node: str
    group: Owner | None
    """The ReplicaSet or DaemonSet that it belongs to."""
    host_ports: frozenset[TakenPort] = frozenset()


def host_ports(spec: PodSpec) -> frozenset[TakenPort]:
    """Return the host ports of a pod; with hostNetwork these are all that it declares."""
    return frozenset(
        TakenPort(port.host_ip or ANY_ADDRESS, port.protocol, port.host_port or port.container_port)
        for container in spec.containers
        for port in container.ports
        if port.host_port is not None or spec.host_network
    )


def choose_node(
    spec: PodSpec, group: Owner | None, nodes: Sequence[SeenNode], placed: Collection[Placed]
) -> tuple[str | None, str]:
    """Return the node for one more pod, or None and the reason.

    Without `nodeName`: an open node whose host ports are free, with the fewest pods of the same group, then with the
    fewest pods, then the first. With `nodeName` that one, drained or not.
    """
    wanted = host_ports(spec)
    there: dict[str, list[Placed]] = {node.name: [] for node in nodes}
    for one in placed:
        there.setdefault(one.node, []).append(one)
    if spec.node_name is not None:
        if all(node.name != spec.node_name for node in nodes):
            return None, f"there is no {spec.node_name}"
        named = next(node for node in nodes if node.name == spec.node_name)
        taken = _missing_label(spec, named) or taken_port(wanted, there[spec.node_name])
        return (None, f"{spec.node_name} {taken}") if taken else (spec.node_name, "")
    why = {
        node.name: _why_closed(node) or _missing_label(spec, node) or taken_port(wanted, there[node.name])
        for node in nodes
    }
    possible = [name for name, reason in why.items() if not reason]
    if not possible:
        return None, "; ".join(f"{name} {reason}" for name, reason in why.items()) or "there is no node"

    def load(name: str) -> tuple[int, int]:
        alike = sum(1 for one in there[name] if one.group == group) if group is not None else 0
        return alike, len(there[name])

    return min(possible, key=load), ""


def place_all(
    pods: Sequence[PodSpec], nodes: Sequence[SeenNode], placed: Collection[Placed] = ()
) -> list[tuple[str | None, str]]:
    """Return a node for each pod without an owner, or None and the reason.

    Pods that name their node come first, so that their order does not matter.
    """
    now = list(placed)
    found: dict[int, tuple[str | None, str]] = {}
    for number in sorted(range(len(pods)), key=lambda number: pods[number].node_name is None):
        found[number] = node, _ = choose_node(pods[number], None, nodes, now)
        if node is not None:
            now.append(Placed(node, None, host_ports(pods[number])))
    return [found[number] for number in range(len(pods))]


def nodes_for(spec: PodSpec, nodes: Iterable[SeenNode]) -> list[str]:
    """Return the nodes on which a DaemonSet with this template has a pod: also drained ones, whatever
    else runs there.
    """
    named = [node for node in nodes if spec.node_name in (None, node.name)]
    return [node.name for node in named if node.open and not _missing_label(spec, node)]


def _missing_label(spec: PodSpec, node: SeenNode) -> str:
    missing = [f"{key}: {value}" for key, value in spec.node_selector.items() if node.all_labels.get(key) != value]
    return f"has no label {missing[0]}" if missing else ""


def _why_closed(node: SeenNode) -> str:
    if node.leaving:
        return "is drained"
    if node.cordoned:
        return "is cordoned"
    return "" if node.open else "takes no pods (its agent is run by hand)"


def taken_port(wanted: Iterable[TakenPort], there: Iterable[Placed]) -> str:
    """Return which of these host ports is taken on a node; empty if none is."""
    taken = [port for one in there for port in one.host_ports]
    for port in sorted(wanted):
        if any(port.conflicts(other) for other in taken):
            return f"has host port {port.port}/{port.protocol} taken"
    return ""
