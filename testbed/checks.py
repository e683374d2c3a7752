"""What no single field can know: checks across the documents of one cluster file. Pure; problems are returned."""

import importlib
import inspect
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from agent.config import NetworkConfig, parse_network_config
from agent.errors import InvalidConfig
from agent.lease import Subnet
from testbed.addresses import AddressPlan, UnderlayFull, plan_addresses
from testbed.cluster_document import ClusterDocument
from testbed.images import RECIPES, RecipeError, program
from testbed.manifest import Container, Pod
from testbed.problems import Problem, near_match, shorten
from testbed.validation import Source

TOPOLOGIES = Path(__file__).resolve().parent.parent / "topologies"

NETWORK_KEYS = (
    *("Network", "SubnetLen", "SubnetMin", "SubnetMax", "Backend", "EnableIPv4", "EnableIPv6", "EnableNFTables"),
    *("IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"),
)
"""Keys that flannel reads; it ignores others and any case, so a typo would go unseen there."""


def network_json(network: dict[str, object]) -> str:
    """The config as it is written to etcd: compact JSON, keys in the order of the file. Raises ValueError for NaN."""
    return json.dumps(network, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def check_cluster(source: Source, document: ClusterDocument) -> Iterator[Problem]:
    """Everything about the Cluster document alone."""
    yield from _check_topology(source, document)
    yield from _check_nodes(source, document)
    config = None
    try:
        config = parse_network_config(network_json(document.network).encode())
    except (InvalidConfig, ValueError) as error:
        yield source.problem(("network",), str(error).removeprefix("network config: "))
    yield from _check_network_keys(source, document, config)
    if config is None:
        return
    if config.network.overlaps(document.underlay.cidr):
        got = f"{config.network} and {document.underlay.cidr}"
        yield source.problem(
            ("network",), f"the overlay overlaps the underlay (got {got}; want ranges without a common address)"
        )
    yield from _check_pins(source, document, config)


def addresses_of(document: ClusterDocument) -> AddressPlan:
    """The underlay addresses of a cluster. Raises UnderlayFull."""
    given = {name: node.ip for name, node in document.nodes.items()}
    underlay = document.underlay
    return plan_addresses(underlay.cidr, underlay.gateway, document.etcd.member_count, given)


def known_topologies() -> list[str]:
    """Names that `underlay.topology` may have."""
    return sorted(path.stem for path in TOPOLOGIES.glob("[a-z]*.py"))


def _check_topology(source: Source, document: ClusterDocument) -> Iterator[Problem]:
    name, known = document.underlay.topology, known_topologies()
    if name not in known:
        what = f"no such topology (got {shorten(name)}; want {', '.join(known)}){near_match(name, known)}"
        yield source.problem(("underlay", "topology"), what)
    elif document.underlay.parameters:
        topology = importlib.import_module(f"topologies.{name}").topos[name]
        allowed = sorted(set(inspect.signature(topology.build).parameters) - {"self", "nodes"})
        for parameter in document.underlay.parameters:
            if parameter not in allowed:
                want = ", ".join(allowed) or f"none, {name} has no parameters here"
                what = f"unknown parameter of {name} (got {shorten(parameter)}; want {want})"
                yield source.problem(("underlay", "parameters", parameter), what, at_key=True)


def _check_nodes(source: Source, document: ClusterDocument) -> Iterator[Problem]:
    cidr = document.underlay.cidr
    reserved: dict[IPv4Address, str] = {}
    gateway = document.underlay.gateway
    if gateway is not None:
        yield from _check_host(source, ("underlay", "gateway"), gateway, cidr)
    try:
        plan = addresses_of(document)
        # What the plan gives where no node has an address of its own: nodes must leave these free.
        bare = plan_addresses(cidr, gateway, document.etcd.member_count, {})
        reserved = {bare.gateway: "the gateway", **{address: name for name, address in bare.etcd.items()}}
        if gateway is not None and gateway in plan.etcd.values():
            reserved[gateway] = "the gateway"
    except UnderlayFull as full:
        got = f"{cidr}, {len(document.nodes)} nodes, {document.etcd.member_count} etcd members and a gateway"
        yield source.problem(("underlay", "cidr"), f"no address left for {full} (got {got}; want a larger range)")
    holders: dict[IPv4Address, str] = {}
    for name, node in document.nodes.items():
        if node.ip is None:
            continue
        path = ("nodes", name, "ip")
        yield from _check_host(source, path, node.ip, cidr)
        if node.ip in reserved:
            yield source.problem(path, f"the address of {reserved[node.ip]} (got {node.ip}; want another)")
        if node.ip in holders:
            first = holders[node.ip]
            held = f"{first}, line {source.line(('nodes', first, 'ip'))}"
            yield source.problem(path, f"an address twice (got {node.ip}, which {held} has; want another)")
        holders.setdefault(node.ip, name)


def _check_host(source: Source, path: tuple[str, ...], address: IPv4Address, cidr: IPv4Network) -> Iterator[Problem]:
    if address not in cidr:
        yield source.problem(path, f"outside the underlay (got {address}; want an address in {cidr})")
    elif address in (cidr.network_address, cidr.broadcast_address):
        yield source.problem(path, f"not a host's address (got {address}; want one inside {cidr})")


def _check_network_keys(source: Source, document: ClusterDocument, config: NetworkConfig | None) -> Iterator[Problem]:
    known = {key.lower() for key in NETWORK_KEYS}
    for key in document.network:
        if key.lower() not in known:
            want = ", ".join(NETWORK_KEYS)
            what = f"unknown key (got {shorten(key)}; want {want}){near_match(key, NETWORK_KEYS)}"
            yield source.problem(("network", key), what, at_key=True)
    backend_key = next((key for key in document.network if key.lower() == "backend"), "Backend")
    for option in config.unknown_options() if config else ():
        what = (
            f"the {config.backend_type if config else ''} backend has no such option (got {shorten(option)}; want none)"
        )
        yield source.problem(("network", backend_key, option), what, at_key=True)


def _check_pins(source: Source, document: ClusterDocument, config: NetworkConfig) -> Iterator[Problem]:
    holders: dict[IPv4Network, str] = {}
    for name, node in document.nodes.items():
        if node.subnet is None:
            continue
        path = ("nodes", name, "subnet")
        if not node.subnet.subnet_of(config.network):
            yield source.problem(path, f"outside the network (got {node.subnet}; want a part of {config.network})")
        elif node.subnet.prefixlen != config.subnet_len:
            yield source.problem(path, f"wrong size (got /{node.subnet.prefixlen}; want /{config.subnet_len})")
        elif not config.allows(Subnet(node.subnet)):
            between = f"{config.subnet_min} to {config.subnet_max}"
            yield source.problem(path, f"not a subnet that may be leased (got {node.subnet}; want one from {between})")
        if node.subnet in holders:
            first = holders[node.subnet]
            held = f"{first}, line {source.line(('nodes', first, 'subnet'))}"
            yield source.problem(path, f"a subnet twice (got {node.subnet}, which {held} has; want another)")
        holders.setdefault(node.subnet, name)


def check_names(pods: Sequence[tuple[Source, Pod]], cluster: Source, nodes: Sequence[str]) -> Iterator[Problem]:
    """Pods, nodes and the machines of the lab have one name space, because `exec NAME` must be clear."""
    first: dict[str, Source] = {}
    for source, pod in pods:
        path, name = ("metadata", "name"), pod.name
        if name in first:
            line = first[name].line(path)
            yield source.problem(path, f"a pod name twice (got {name}, line {line} has it too; want another)")
        elif name in nodes:
            line = cluster.document.key_position(("nodes", name)).line
            yield source.problem(path, f"a node has this name (got {name}, line {line}; want another)")
        first.setdefault(name, source)
        node = pod.spec.node_name
        if node is not None and node not in nodes:
            what = f"no such node (got {shorten(node)}; want {', '.join(nodes)}){near_match(node, nodes)}"
            yield source.problem(("spec", "nodeName"), what)


def check_pod(source: Source, pod: Pod) -> Iterator[Problem]:
    """What the parts of one pod say about each other."""
    spec = pod.spec
    yield from _duplicates(source, ("spec", "containers"), [container.name for container in spec.containers])
    yield from _duplicates(source, ("spec", "volumes"), [volume.name for volume in spec.volumes])
    volumes = [volume.name for volume in spec.volumes]
    holders: dict[tuple[int, str], str] = {}
    for number, container in enumerate(spec.containers):
        path = ("spec", "containers", number)
        yield from _check_image(source, path, container)
        yield from _duplicates(source, (*path, "env"), [variable.name for variable in container.env])
        targets = [mount.mount_path for mount in container.volume_mounts]
        yield from _duplicates(source, (*path, "volumeMounts"), targets, key="mountPath")
        for index, mount in enumerate(container.volume_mounts):
            if mount.name not in volumes:
                want = ", ".join(volumes) or "a volume under spec.volumes"
                what = f"no such volume in this pod (got {mount.name}; want {want})"
                yield source.problem((*path, "volumeMounts", index, "name"), what)
        for index, port in enumerate(container.ports):
            key, here = (port.container_port, port.protocol), (*path, "ports", index, "containerPort")
            if key in holders:
                got = f"{port.container_port}/{port.protocol}, {holders[key]} has it too"
                what = f"a port twice in one pod (got {got}; want another)"
                yield source.problem(here, what)
            holders.setdefault(key, f"{container.name}, line {source.line(here)}")


def _check_image(source: Source, path: tuple[str | int, ...], container: Container) -> Iterator[Problem]:
    if container.image in RECIPES:
        try:
            program(container)
        except RecipeError as error:
            yield source.problem((*path, "env"), str(error))
        return
    want = ", ".join(RECIPES)
    bare = container.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    reason = "nothing is pulled, an image is a recipe of the testbed" if bare != container.image else "no such recipe"
    what = f"{reason} (got {shorten(container.image)}; want {want}){near_match(bare, RECIPES)}"
    yield source.problem((*path, "image"), what)


def _duplicates(
    source: Source, path: tuple[str | int, ...], names: Sequence[str], key: str = "name"
) -> Iterator[Problem]:
    if max(Counter(names).values(), default=0) < 2:
        return
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first:
            line = source.line((*path, first[name], key))
            yield source.problem((*path, index, key), f"twice (got {name}, line {line} has it too; want another)")
        first.setdefault(name, index)
