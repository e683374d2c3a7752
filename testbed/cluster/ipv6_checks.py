"""Checks of IPv6 beside IPv4 in a cluster file: network, underlay and nodes. Pure."""

from collections.abc import Iterator
from ipaddress import IPv6Network

from agent.lease import Subnet
from agent.netconfig.config import NetworkConfig
from testbed.cluster.addresses import IPV6_UNDERLAY, UnderlayFull, split_ipv6
from testbed.cluster.cluster_document import ClusterDocument
from testbed.cluster.free_values import free_subnet
from testbed.cluster.problems import Problem
from testbed.cluster.validation import Source
from testbed.cluster.wiring import Wiring

SERVICE_RANGE_IPV6 = IPv6Network("fd00:10:96::/112")
"""Range of Services' IPv6 cluster addresses, as in kubeadm's dual-stack examples."""
FIXED_BITS = ("is_loopback", "is_multicast", "is_link_local", "is_unspecified")


def ipv6_underlay(document: ClusterDocument, config: NetworkConfig | None) -> IPv6Network | None:
    """Return the underlay's IPv6 range; None if the network has only IPv4, or is wrong."""
    if config is None or config.ipv6_network is None:
        return None
    return document.underlay.ipv6_cidr or IPV6_UNDERLAY


def check_ipv6(
    source: Source, document: ClusterDocument, config: NetworkConfig, wiring: Wiring | None
) -> Iterator[Problem]:
    """Check IPv6 settings across fields."""
    if config.ipv6_network is None:
        yield from _check_absent(source, document)
        return
    cidr = document.underlay.ipv6_cidr or IPV6_UNDERLAY
    path = ("underlay", "ipv6Cidr") if document.underlay.ipv6_cidr else ("underlay",)
    if any(getattr(cidr, property) for property in FIXED_BITS):
        yield source.problem(path, f"a range that machines cannot have (got {cidr}; want one such as {IPV6_UNDERLAY})")
    try:
        split_ipv6(cidr, wiring.segment_count if wiring else 1)
    except UnderlayFull as full:
        yield source.problem(path, f"no room for {full} (got {cidr}; want a larger range)")
    for what, range_ in (("underlay", cidr), ("range of Services", SERVICE_RANGE_IPV6)):
        if config.ipv6_network.overlaps(range_):
            got = f"{config.ipv6_network} and {range_}"
            want = "want ranges without a common address"
            yield source.problem(("network",), f"the overlay overlaps the {what} (got {got}; {want})")
    if cidr.overlaps(SERVICE_RANGE_IPV6):
        got = f"{cidr} and {SERVICE_RANGE_IPV6}"
        yield source.problem(
            path, f"the underlay overlaps the range of Services (got {got}; want another, such as {IPV6_UNDERLAY})"
        )
    if config.ipv6_subnet_len is not None and 128 - config.ipv6_subnet_len < 32 - config.subnet_len:
        got = f"/{config.subnet_len} and /{config.ipv6_subnet_len}"
        what = f"a node has room for fewer pods by IPv6 than by IPv4 (got {got}; want a smaller IPv6SubnetLen)"
        yield source.problem(("network",), what)
    yield from _check_pins(source, document, config)


def _check_absent(source: Source, document: ClusterDocument) -> Iterator[Problem]:
    want = "want EnableIPv6: true and IPv6Network in network, or none"
    if document.underlay.ipv6_cidr is not None:
        what = f"the network has IPv4 only (got {document.underlay.ipv6_cidr}; {want})"
        yield source.problem(("underlay", "ipv6Cidr"), what)
    for name, node in document.nodes.items():
        if node.ipv6_subnet is not None:
            what = f"the network has IPv4 only (got {node.ipv6_subnet}; {want})"
            yield source.problem(("nodes", name, "ipv6Subnet"), what)


def _check_pins(source: Source, document: ClusterDocument, config: NetworkConfig) -> Iterator[Problem]:
    holders: dict[IPv6Network, str] = {}
    for name, node in document.nodes.items():
        path = ("nodes", name, "ipv6Subnet")
        if node.subnet is None and node.ipv6_subnet is not None:
            yield source.problem(path, f"a pin of one family (got {node.ipv6_subnet}; want subnet: NETWORK beside it)")
        elif node.subnet is not None and node.ipv6_subnet is None and not _is_given(source, path):
            what = f"a pin of one family (got subnet: {node.subnet}; want ipv6Subnet: NETWORK beside it)"
            yield source.problem(("nodes", name, "subnet"), what)
        elif node.subnet is not None and node.ipv6_subnet is not None:
            allowed = config.allows(Subnet(node.subnet, node.ipv6_subnet))
            if not allowed and config.subnet_min <= node.subnet.network_address <= config.subnet_max:
                between = f"/{config.ipv6_subnet_len}, {config.ipv6_subnet_min} to {config.ipv6_subnet_max}"
                what = f"not a subnet that may be leased (got {node.ipv6_subnet}; want one of {between})"
                yield source.problem(path, what)
            if (first := holders.setdefault(node.ipv6_subnet, name)) != name:
                held = f"{first}, line {source.line(('nodes', first, 'ipv6Subnet'))}"
                want = f"another{_such_as(document, config)}"
                yield source.problem(path, f"a subnet twice (got {node.ipv6_subnet}, which {held} has; want {want})")


def _such_as(document: ClusterDocument, config: NetworkConfig) -> str:
    first, last, length = config.ipv6_subnet_min, config.ipv6_subnet_max, config.ipv6_subnet_len
    if first is None or last is None or length is None:
        return ""
    return f", such as {free_subnet(first, last, length, {node.ipv6_subnet for node in document.nodes.values()})}"


def _is_given(source: Source, path: tuple[str, ...]) -> bool:
    """Report whether the file has the key, even with a wrong value."""
    value = source.document.value
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value is not None
