"""Clusters without a file: any topology, its nodes filled with light pods, as YAML text that can be read again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from testbed.cluster import topology
from testbed.cluster.foreign_topology import warnings_of, with_fitting_names
from testbed.cluster.problems import Problem, SpecError
from testbed.cluster.spec import Cluster, read_cluster
from testbed.cluster.wiring import Cable, Wiring
from testbed.cluster.yaml_source import dump_documents

MAX_GENERATED_PODS = 2000  # on all nodes together; keeps the YAML below its size limit
MAX_GENERATED_NODES = 400
FULL_SEGMENT = 200
"""Nodes that fit into the default underlay, a /24, and the default pod network, 255 subnets of /24."""
WIDE_SEGMENT, NARROW_SUBNET = IPv4Network("192.168.8.0/22"), 25
"""The ranges for more nodes: addresses for a thousand machines, and 511 subnets with 125 pods each."""
GENERATED_PORT = 8080
SUBNET_BITS = 24
UNDERLAY = IPv4Network("192.168.8.0/24")
LARGEST_UNDERLAY = IPv4Network("192.168.0.0/16")


@dataclass(frozen=True, slots=True)
class Choice:
    """The meaning of `--topo` and `--nodes`, with the graph built."""

    said: str
    """As typed by the user."""
    wiring: Wiring
    name: str
    """Name for the cluster."""
    underlay: Mapping[str, Any]
    """The topology or the links, in the form of a cluster file."""
    warnings: tuple[Problem, ...] = ()


def choose(topo: str | None, nodes: int | None) -> Choice:
    """Read `--topo NAME[,PARAMETER=VALUE…]` and `--nodes N`; a FILE.py is executed.

    Raises SpecError, or topology.TooManyParts.
    """
    said = f"--nodes {nodes}" if topo is None else f"--topo {topo}"
    first, *words = ("single" if topo is None else topo).split(",")
    try:
        if nodes is not None and not 1 <= nodes <= MAX_GENERATED_NODES:
            said = "--nodes"
            raise ValueError(f"out of range (got {nodes}; want 1 to {MAX_GENERATED_NODES})")
        if "/" in first or ".py" in first:
            return _from_file(said, first, words, nodes)
        found = topology.topology_class(first)
        given = _parameters(first, found, words, nodes)
        wiring = topology.build(found, given)
        # A cluster file fills in the number of nodes by itself.
        written = {key: value for key, value in given.items() if key != "nodes"}
        underlay = {"topology": first, **({"parameters": written} if written else {})}
        return Choice(said, wiring, first, underlay)
    except topology.WrongTopology as error:
        raise SpecError([Problem(said, what) for what in error.problems]) from error
    except ValueError as error:
        raise SpecError([Problem(said, str(error))]) from error


def _from_file(said: str, first: str, words: list[str], nodes: int | None) -> Choice:
    path, _, name = first.partition(":")
    if not name and words and "=" not in words[0]:
        name = words.pop(0)
    found = topology.class_in_file(Path(path), name or None)
    shown = name or getattr(found, "__name__", "topology")
    made = topology.make(found, _parameters(shown, found, words, nodes))
    wiring = topology.wiring_of(made)
    if not wiring.nodes or not wiring.switches:
        got = f"{len(wiring.nodes)} hosts and {len(wiring.switches)} switches"
        raise ValueError(f"too little for a cluster (got {got}; want one of each at least)")
    fitting, renamed = with_fitting_names(wiring)
    warnings = tuple(Problem(said, what) for what in warnings_of(made, wiring, renamed))
    label = re.sub(r"[^a-z0-9]+", "-", shown.lower()).strip("-")
    return Choice(said, fitting, label or "topology", _explicit(fitting), warnings)


def _parameters(name: str, found: Any, words: Sequence[str], nodes: int | None) -> dict[str, Any]:  # noqa: ANN401 - a class of Mininet
    given = topology.parameters_from_words(name, found, words)
    if nodes is None:
        return given
    declared, _ = topology.parameters_of(found)
    if all(parameter.name != "nodes" for parameter in declared):
        raise ValueError(f"--nodes does not go with {name} (got {nodes}; want {_names(declared)} of --topo instead)")
    if given.get("nodes", nodes) != nodes:
        raise ValueError(f"two numbers of nodes (got nodes={given['nodes']} and --nodes {nodes}; want one)")
    return {**given, "nodes": nodes}


def _names(declared: Sequence[topology.TopologyParameter]) -> str:
    return ", ".join(parameter.name for parameter in declared) or "no parameters"


def generate(choice: Choice, pods_per_node: int) -> Cluster:
    """Generate a cluster of the chosen shape with light pods pod1…, alternating `echo` and `shell`.

    Raises SpecError.
    """
    nodes = choice.wiring.nodes
    wide = len(nodes) > FULL_SEGMENT
    for what, got, lowest, highest in (
        (f"{choice.said}: nodes", len(nodes), 1, MAX_GENERATED_NODES),
        ("--pods-per-node", pods_per_node, 0, min(100 if wide else 200, MAX_GENERATED_PODS // max(1, len(nodes)))),
    ):
        if not lowest <= got <= highest:
            raise SpecError([Problem(what, f"out of range (got {got}; want {lowest} to {highest})")])
    subnet_length = NARROW_SUBNET if wide else SUBNET_BITS
    underlay = WIDE_SEGMENT if wide and choice.wiring.segment_count == 1 else _range_for(choice.wiring.segment_count)
    cluster = {
        "apiVersion": "testbed/v1",
        "kind": "Cluster",
        "metadata": {"name": f"{choice.name.replace('_', '-')}-{len(nodes)}"[:63]},
        "network": {"Network": "10.0.0.0/16", "SubnetLen": subnet_length, "Backend": {"Type": "udp"}},
        "underlay": {"cidr": str(underlay), **choice.underlay},
        "nodes": {name: {} for name in nodes},
    }
    pods = [
        _pod(number + 1, nodes[number // pods_per_node], "shell" if number % pods_per_node % 2 else "echo")
        for number in range(len(nodes) * pods_per_node)
    ]
    text = dump_documents([cluster, *pods])
    try:
        found = read_cluster(text.encode(), "generated")
    except SpecError as error:
        # Positions in a text that the user has never seen are useless.
        raise SpecError([Problem(choice.said, problem.what) for problem in error.problems]) from error
    return replace(found, warnings=(*choice.warnings, *found.warnings))


def _range_for(segments: int) -> IPv4Network:
    """Return a range with a /24 for each segment, starting at 192.168.8.0 while the numbers allow."""
    bits = SUBNET_BITS - (segments - 1).bit_length()
    if bits < LARGEST_UNDERLAY.prefixlen:
        return LARGEST_UNDERLAY
    wanted = UNDERLAY.supernet(new_prefix=bits)
    if wanted.network_address == UNDERLAY.network_address:
        return wanted
    return next(LARGEST_UNDERLAY.subnets(new_prefix=bits))


def _explicit(wiring: Wiring) -> dict[str, Any]:
    routers = {"routers": list(wiring.routers)} if wiring.routers else {}
    return {"switches": list(wiring.switches), **routers, "links": [_link(cable) for cable in wiring.cables]}


def _link(cable: Cable) -> dict[str, Any]:
    shaping = cable.shaping
    given = {
        "bandwidth": shaping.bandwidth,
        "delay": shaping.delay,
        "jitter": shaping.jitter,
        "loss": shaping.loss,
        "maxQueueSize": shaping.max_queue_size,
    }
    return {"ends": list(cable.ends), **{name: value for name, value in given.items() if value is not None}}


def _pod(number: int, node: str, image: str) -> dict[str, Any]:
    container: dict[str, Any] = {"name": image, "image": image}
    if image == "echo":
        container["ports"] = [{"containerPort": GENERATED_PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod{number}", "labels": {"app": image}},
        "spec": {"nodeName": node, "containers": [container]},
    }
