"""Cluster IPs and node ports of Services that do not name theirs: the same name gets the same number again. Pure."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network

from testbed.cluster.service import NODE_PORTS, Service

SERVICE_RANGE = IPv4Network("10.96.0.0/12")
FIRST_CHOSEN = 256
"""Lower ones are left to those who name theirs, as 10.96.0.10 of the cluster's DNS."""


class NothingFree(Exception):
    """All addresses or node ports are taken."""


def allocate(wanted: Iterable[Service], before: Mapping[str, Service]) -> dict[str, Service]:
    """Every Service with its numbers, by name. One that had numbers `before` keeps them; raises NothingFree."""
    services = {service.name: service for service in wanted}
    addresses = {IPv4Address(one.spec.cluster_ip) for one in services.values() if _names_address(one)}
    ports: set[tuple[str, int | None]] = {
        (port.protocol, port.node_port) for one in services.values() for port in one.spec.ports if port.node_port
    }
    # Whoever has a number keeps it, whatever the order; new ones choose after that.
    for name, service in services.items():
        old = before.get(name)
        if old is not None and not _names_address(service) and _names_address(old) and not service.headless:
            addresses.add(IPv4Address(old.spec.cluster_ip))
    found = {}
    for name in sorted(services, key=lambda name: name not in before):
        service, old = services[name], before.get(name)
        found[name] = service.resolved(_address(service, old, addresses), tuple(_node_ports(service, old, ports)))
    return {name: found[name] for name in services}


def _names_address(service: Service) -> bool:
    return service.spec.cluster_ip is not None and not service.headless


def _address(service: Service, old: Service | None, taken: set[IPv4Address]) -> IPv4Address | None:
    if service.headless:
        return None
    if service.spec.cluster_ip is not None:
        return IPv4Address(service.spec.cluster_ip)
    if old is not None and _names_address(old):
        return IPv4Address(old.spec.cluster_ip)
    size = SERVICE_RANGE.num_addresses - 1 - FIRST_CHOSEN
    used = {int(address) - int(SERVICE_RANGE[FIRST_CHOSEN]) for address in taken}
    chosen = SERVICE_RANGE[FIRST_CHOSEN + _choose(service.name, size, used, "cluster IPs")]
    taken.add(chosen)
    return chosen


def _node_ports(service: Service, old: Service | None, taken: set[tuple[str, int | None]]) -> Iterable[int | None]:
    had = {(port.protocol, port.port): port.node_port for port in old.spec.ports} if old is not None else {}
    for port in service.spec.ports:
        number = port.node_port
        if number is None and service.spec.type == "NodePort":
            number = had.get((port.protocol, port.port))
            if number is None or (port.protocol, number) in taken:
                used = {one - NODE_PORTS[0] for protocol, one in taken if protocol == port.protocol and one}
                size = NODE_PORTS[1] - NODE_PORTS[0] + 1
                number = NODE_PORTS[0] + _choose(f"{service.name}/{port.port}", size, used, "node ports")
            taken.add((port.protocol, number))
        yield number


def _choose(name: str, size: int, used: Collection[int], what: str) -> int:
    """A number below `size` that depends on the name only, or the next free one after it."""
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % size
    for step in range(min(size, len(used) + 1)):
        if (number := (first + step) % size) not in used:
            return number
    raise NothingFree(f"no free {what}: all {size} are taken")
