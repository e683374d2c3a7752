"""Which node a new pod goes to. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from platform import machine
from typing import NamedTuple

from testbed.cluster.manifest import PodSpec
from testbed.cluster.object_key import Owner

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""As Go and Kubernetes call them."""
ANY_ADDRESS = "0.0.0.0"


class TakenPort(NamedTuple):
    """A port that a pod takes of its node."""

    address: str
    """0.0.0.0: every address of the node."""
    protocol: str
    port: int

    def conflicts(self, other: "TakenPort") -> bool:
        """Whether both cannot be on one node."""
        same = (self.protocol, self.port) == (other.protocol, other.port)
        return same and (self.address == other.address or ANY_ADDRESS in (self.address, other.address))


@dataclass(frozen=True, slots=True)
class SeenNode:
    """One node as it is now."""

    name: str
    open: bool = True
    """Whether new pods may go there."""
    leaving: bool = False
    """Whether the pods that can be elsewhere shall go: it is drained or about to be deleted."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those of the cluster file; every node has some of its own."""

    @property
    def all_labels(self) -> Mapping[str, str]:
        """Those of the file, and those that every node has."""
        return {**node_labels(self.name), **self.labels}


def node_labels(name: str) -> dict[str, str]:
    """The labels that a node has of itself."""
    architecture = ARCHITECTURES.get(machine(), machine())
    return {
        "kubernetes.io/hostname": name,
        **{f"{prefix}kubernetes.io/os": "linux" for prefix in ("", "beta.")},
        **{f"{prefix}kubernetes.io/arch": architecture for prefix in ("", "beta.")},
    }


@dataclass(frozen=True, slots=True)
class Placed:
    """What a pod that is there takes of its node."""

    node: str
    group: Owner | None
    """The ReplicaSet or DaemonSet that it belongs to."""
    host_ports: frozenset[TakenPort] = frozenset()


def host_ports(spec: PodSpec) -> frozenset[TakenPort]:
    """The ports that a pod takes of its node; with hostNetwork these are all it declares."""
    return frozenset(
        TakenPort(port.host_ip or ANY_ADDRESS, port.protocol, port.host_port or port.container_port)
        for container in spec.containers
        for port in container.ports
        if port.host_port is not None or spec.host_network
    )


def choose_node(
    spec: PodSpec, group: Owner | None, nodes: Sequence[SeenNode], placed: Collection[Placed]
) -> tuple[str | None, str]:
    """The node for one more pod, or None and why there is none.

    Without `nodeName`: an open node whose host ports are free, with the fewest pods of the same group, then with the
    fewest pods at all, then the first. With `nodeName` that one, drained or not.
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
    """A node for each pod that belongs to nothing, or None and why there is none.

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
    """The nodes that a DaemonSet with this template has a pod on: drained ones too, whatever else is there."""
    named = [node for node in nodes if spec.node_name in (None, node.name)]
    return [node.name for node in named if node.open and not _missing_label(spec, node)]


def _missing_label(spec: PodSpec, node: SeenNode) -> str:
    missing = [f"{key}: {value}" for key, value in spec.node_selector.items() if node.all_labels.get(key) != value]
    return f"has no label {missing[0]}" if missing else ""


def _why_closed(node: SeenNode) -> str:
    if node.leaving:
        return "is drained"
    return "" if node.open else "takes no pods (its agent is run by hand)"


def taken_port(wanted: Iterable[TakenPort], there: Iterable[Placed]) -> str:
    """Which of these host ports is taken by what is on a node; empty where none is."""
    taken = [port for one in there for port in one.host_ports]
    for port in sorted(wanted):
        if any(port.conflicts(other) for other in taken):
            return f"has host port {port.port}/{port.protocol} taken"
    return ""
