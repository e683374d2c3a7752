"""Allocates cluster IPs and node ports to Services without their own: the same name gets the same number again.

Pure.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, ip_address

from agent.kernel.values import Family, IPAddress, IPNetwork
from testbed.cluster.ipv6_checks import SERVICE_RANGE_IPV6
from testbed.cluster.object_key import ObjectKey
from testbed.cluster.service import NODE_PORTS, Service
from testbed.errors import TestbedError

SERVICE_RANGE = IPv4Network("10.96.0.0/12")
SERVICE_RANGES: Mapping[Family, IPNetwork] = {4: SERVICE_RANGE, 6: SERVICE_RANGE_IPV6}
FIRST_CHOSEN = 256
"""Lower ones are left to Services that name theirs, like 10.96.0.10 of the cluster's DNS."""


class NothingFree(TestbedError):
    """All addresses or node ports are taken."""


def allocate(services: Iterable[Service], dual_stack: bool = False) -> dict[ObjectKey, Service]:
    """Return every Service with its numbers, by name; those that name their own are served before the others."""
    wanted = list(services)
    found: dict[ObjectKey, Service] = {}
    for service in sorted(wanted, key=_chooses):
        found[service.key] = number(service, found, dual_stack)
    return {service.key: found[service.key] for service in wanted}


def number(service: Service, numbered: Mapping[ObjectKey, Service], dual_stack: bool = False) -> Service:
    """Return the Service with its numbers.

    `numbered` are the existing ones; one with its own name is its previous state. Numbers that it does not name are
    kept from that, else chosen. Raises NothingFree.
    """
    before = numbered.get(service.key)
    others = [other for key, other in numbered.items() if key != service.key]
    families = () if service.headless else service.families(dual_stack)
    addresses = [_address(service, family, before, others) for family in families]
    return service.resolved(addresses, tuple(_node_ports(service, before, others)))


def _chooses(service: Service) -> bool:
    chooses_port = service.has_node_ports and any(port.node_port is None for port in service.spec.ports)
    return service.spec.cluster_ip is None or chooses_port


def _address(service: Service, family: Family, before: Service | None, others: Iterable[Service]) -> IPAddress:
    for one in (service, before):
        if one is not None and (own := one.address_of(family)) is not None:
            return own
    taken = {other.address_of(family) for other in others}
    network = SERVICE_RANGES[family]
    size = network.num_addresses - 1 - FIRST_CHOSEN
    for offset in _choices(str(service.key), size):
        if (address := ip_address(int(network.network_address) + FIRST_CHOSEN + offset)) not in taken:
            return address
    raise NothingFree(f"no free cluster IP: all {size} are taken")


def _node_ports(service: Service, before: Service | None, others: Iterable[Service]) -> Iterator[int | None]:
    ports = [port for other in (*others, service) for port in other.spec.ports]
    taken: set[tuple[str, int]] = {(port.protocol, port.node_port) for port in ports if port.node_port is not None}
    had = {(port.protocol, port.port): port.node_port for port in before.spec.ports} if before is not None else {}
    for port in service.spec.ports:
        chosen = port.node_port
        if chosen is None and service.has_node_ports:
            kept = had.get((port.protocol, port.port))
            if kept is not None and (port.protocol, kept) not in taken:
                chosen = kept
            else:
                chosen = _free_node_port(f"{service.key}/{port.port}", port.protocol, taken)
            taken.add((port.protocol, chosen))
        yield chosen


def _free_node_port(name: str, protocol: str, taken: set[tuple[str, int]]) -> int:
    size = NODE_PORTS[1] - NODE_PORTS[0] + 1
    for offset in _choices(name, size):
        if (protocol, NODE_PORTS[0] + offset) not in taken:
            return NODE_PORTS[0] + offset
    raise NothingFree(f"no free node port: all {size} are taken")


def _choices(name: str, size: int) -> Iterator[int]:
    """Yield every number below `size`, starting at one that depends only on the name."""
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % size
    return ((first + step) % size for step in range(size))
