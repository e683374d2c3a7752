"""Checks across the fields of the Cluster document. Pure; problems are returned."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from agent.errors import InvalidConfig, UsageError
from agent.netconfig.backend_options import BACKEND_OPTIONS
from agent.netconfig.config import NetworkConfig, parse_network_config
from agent.netconfig.fields import Fields
from agent.options.command_line import parse_options
from testbed.cluster.addresses import FIRST_NODE_OFFSET, AddressPlan, UnderlayFull, plan_addresses
from testbed.cluster.agent_words import NEED_TLS, named
from testbed.cluster.cluster_document import AgentSpec, ClusterDocument
from testbed.cluster.dns import DNS_ADDRESS
from testbed.cluster.etcd_spec import check_etcd
from testbed.cluster.free_values import free_address, free_subnet
from testbed.cluster.ipv6_checks import check_ipv6, ipv6_underlay
from testbed.cluster.network_json import network_json
from testbed.cluster.problems import Problem, near_match, shorten
from testbed.cluster.validation import Source
from testbed.cluster.wiring import Wiring

NETWORK_KEYS = (
    "Network",
    "SubnetLen",
    "SubnetMin",
    "SubnetMax",
    "Backend",
    "EnableIPv4",
    "EnableIPv6",
    "EnableNFTables",
    "IPv6Network",
    "IPv6SubnetLen",
    "IPv6SubnetMin",
    "IPv6SubnetMax",
)
"""Keys that flannel reads; it ignores others and any case, so a typo would go unnoticed there."""

_NOT_FOR_MACHINES = ("is_loopback", "is_multicast", "is_link_local", "is_unspecified")


def has_dns(document: ClusterDocument, config: NetworkConfig) -> bool:
    """Return whether the lab has a DNS: as the file says, else unless the DNS's address could be a pod's."""
    return DNS_ADDRESS not in config.network if document.dns is None else document.dns


def read_network(source: Source, document: ClusterDocument) -> tuple[NetworkConfig | None, list[Problem]]:
    """Parse flannel's own config, as the agents will; the rest of the lab uses this value."""
    try:
        return parse_network_config(network_json(document.network).encode()), []
    except InvalidConfig as error:
        return None, list(_config_problems(source, document, str(error).removeprefix("network config: ")))
    except ValueError:
        what = "a number that JSON does not have (got NaN or infinity; want a number such as 24)"
        return None, [source.problem(("network",), what)]


def check_cluster(
    source: Source, document: ClusterDocument, wiring: Wiring | None, config: NetworkConfig | None
) -> Iterator[Problem]:
    """Check the Cluster document alone; `wiring` and `config` are None if those are wrong."""
    yield from _check_nodes(source, document, wiring, config)
    yield from _check_network_keys(source, document)
    yield from _check_agent_flags(source, document)
    yield from _check_backend_type(source, document)
    yield from check_etcd(source, document.etcd)
    if config is None:
        return
    for warning in config.warnings:
        yield source.problem(("network",), warning.replace("taken as", "want"))
    if config.network.overlaps(document.underlay.cidr):
        got = f"{config.network} and {document.underlay.cidr}"
        yield source.problem(
            ("network",), f"the overlay overlaps the underlay (got {got}; want ranges without a common address)"
        )
    if document.dns and DNS_ADDRESS in config.network:
        what = f"the DNS's address {DNS_ADDRESS} is a pod's too (got Network {config.network}; want one without it)"
        yield source.problem(("dns",), what)
    yield from check_ipv6(source, document, config, wiring)
    yield from _check_backend_options(source, document, config)
    yield from _check_pins(source, document, config)


def _check_agent_flags(source: Source, document: ClusterDocument) -> Iterator[Problem]:
    """Check flags for our own agent by its own parser; another program's flags are not checked."""
    given: list[tuple[tuple[str | int, ...], AgentSpec]] = [(("agent",), document.agent)]
    given += [(("nodes", name, "agent"), node.agent) for name, node in document.nodes.items() if node.agent]
    for path, agent in given:
        for name in named(agent.command or ()):
            if name in NEED_TLS and not document.etcd.tls:
                what = f"etcd has no certificates here (got {{{name}}} and tls: false; want etcd: {{tls: true}})"
                yield source.problem((*path, "command"), what)
        if agent.command is None and agent.args:
            try:
                parse_options(agent.args, {})
            except UsageError as error:
                for line in str(error).splitlines():
                    yield source.problem((*path, "args"), line.removeprefix("error: "))


def addresses_of(document: ClusterDocument, wiring: Wiring | None, config: NetworkConfig | None) -> AddressPlan:
    """Return the underlay addresses of a cluster. Raises UnderlayFull."""
    given = {name: node.ip for name, node in document.nodes.items()}
    underlay = document.underlay
    ipv6_cidr = ipv6_underlay(document, config)
    return plan_addresses(underlay.cidr, underlay.gateway, document.etcd.member_count, given, wiring, ipv6_cidr)


def _check_nodes(
    source: Source, document: ClusterDocument, wiring: Wiring | None, config: NetworkConfig | None
) -> Iterator[Problem]:
    cidr = document.underlay.cidr
    subnets: dict[str, IPv4Network] = {}
    if any(getattr(cidr, property) for property in _NOT_FOR_MACHINES):
        want = "a range for machines, such as 192.168.8.0/24"
        yield source.problem(("underlay", "cidr"), f"a range that machines cannot have (got {cidr}; want {want})")
    reserved: dict[IPv4Address, str] = {}
    gateway = document.underlay.gateway
    if gateway is not None:
        yield from _check_host(source, ("underlay", "gateway"), gateway, cidr)
    try:
        plan = addresses_of(document, wiring, config)
        # The default plan if no node has an address of its own: nodes must leave these free.
        bare = plan_addresses(cidr, gateway, document.etcd.member_count, {}, wiring)
        reserved = {bare.gateway: "the gateway", **{address: name for name, address in bare.etcd.items()}}
        reserved |= {address: name for name, addresses in bare.routers.items() for address in addresses}
        if wiring is not None and gateway is not None and gateway in cidr and gateway not in plan.subnets[0]:
            want = f"an address in {plan.subnets[0]}, the subnet of {wiring.switches[0]}"
            yield source.problem(("underlay", "gateway"), f"not on the first switch (got {gateway}; want {want})")
        if wiring is not None:
            subnets = {name: plan.subnets[wiring.ports[name][0]] for name in document.nodes}
        if gateway is not None and gateway in plan.etcd.values():
            reserved[gateway] = "the gateway"
    except UnderlayFull as full:
        got = f"{cidr}, {len(document.nodes)} nodes, {document.etcd.member_count} etcd members and a gateway"
        yield source.problem(("underlay", "cidr"), f"no address left for {full} (got {got}; want a larger range)")
    holders: dict[IPv4Address, str] = {}
    taken = {*reserved, *(node.ip for node in document.nodes.values() if node.ip)}
    for name, node in document.nodes.items():
        if node.ip is None:
            continue
        path = ("nodes", name, "ip")
        free = free_address(subnets.get(name, cidr), taken, FIRST_NODE_OFFSET)
        want = f"want another, such as {free}"
        yield from _check_host(source, path, node.ip, cidr, subnets.get(name, cidr))
        if node.ip in reserved:
            yield source.problem(path, f"the address of {reserved[node.ip]} (got {node.ip}; {want})")
        if node.ip in holders:
            first = holders[node.ip]
            held = f"{first}, line {source.line(('nodes', first, 'ip'))}"
            yield source.problem(path, f"an address twice (got {node.ip}, which {held} has; {want})")
        holders.setdefault(node.ip, name)


def _check_host(
    source: Source, path: tuple[str, ...], address: IPv4Address, cidr: IPv4Network, subnet: IPv4Network | None = None
) -> Iterator[Problem]:
    subnet = subnet or cidr
    if address not in cidr:
        yield source.problem(path, f"outside the underlay (got {address}; want an address in {cidr})")
    elif address not in subnet:
        want = f"an address in {subnet}, the subnet that its link leads to"
        yield source.problem(path, f"in another subnet of the underlay (got {address}; want {want})")
    elif address in (subnet.network_address, subnet.broadcast_address):
        yield source.problem(path, f"not a host's address (got {address}; want one inside {subnet})")


def _check_network_keys(source: Source, document: ClusterDocument) -> Iterator[Problem]:
    known = {key.lower() for key in NETWORK_KEYS}
    for key in document.network:
        if key.lower() not in known:
            want = ", ".join(NETWORK_KEYS)
            what = f"unknown key (got {shorten(key)}; want {want}){near_match(key, NETWORK_KEYS)}"
            yield source.problem(("network", key), what, at_key=True)


def _check_backend_type(source: Source, document: ClusterDocument) -> Iterator[Problem]:
    """Check the type alone, whatever else is wrong; overlays of other programs may have types that only the agent
    knows.
    """
    backend = Fields(document.network).get("Backend")
    kind = Fields(backend).get("Type") if isinstance(backend, dict) else None
    if isinstance(kind, str) and kind and kind.lower() not in BACKEND_OPTIONS:
        what = f"unknown backend type (got {shorten(kind.lower())}; want {', '.join(BACKEND_OPTIONS)})"
        path = ("network", _spelt(document, "Backend"), "Type")
        yield source.problem(path, what + near_match(kind.lower(), BACKEND_OPTIONS))


def _check_backend_options(source: Source, document: ClusterDocument, config: NetworkConfig) -> Iterator[Problem]:
    known = ("Type", *sorted(BACKEND_OPTIONS.get(config.backend_type, ())))
    for option in config.unknown_options:
        path = ("network", _spelt(document, "Backend"), option)
        what = f"the {config.backend_type} backend has no such option (got {shorten(option)}; want {', '.join(known)})"
        yield source.problem(path, what + near_match(option, known), at_key=True)


def _config_problems(source: Source, document: ClusterDocument, text: str) -> Iterator[Problem]:
    """Return the agent's own errors about the config, each at its key."""
    for what in re.split(r"(?<=\)); ", text):
        key, _, rest = what.partition(": ")
        first, *more = key.split(".")
        path = ("network", _spelt(document, first), *more)
        yield source.problem(path, rest) if rest else source.problem(("network",), what)


def _spelt(document: ClusterDocument, key: str) -> str:
    """Return a key of the config as the file spells it; flannel ignores case."""
    return next((given for given in document.network if given.lower() == key.lower()), key)


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
        elif not config.subnet_min <= node.subnet.network_address <= config.subnet_max:
            between = f"{config.subnet_min} to {config.subnet_max}"
            yield source.problem(path, f"not a subnet that may be leased (got {node.subnet}; want one from {between})")
        if node.subnet in holders:
            first = holders[node.subnet]
            held = f"{first}, line {source.line(('nodes', first, 'subnet'))}"
            pinned = {other.subnet for other in document.nodes.values()}
            free = free_subnet(config.subnet_min, config.subnet_max, config.subnet_len, pinned)
            what = f"a subnet twice (got {node.subnet}, which {held} has; want another, such as {free})"
            yield source.problem(path, what)
        holders.setdefault(node.subnet, name)
