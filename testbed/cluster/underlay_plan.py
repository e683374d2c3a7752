"""Ports, addresses, routes and neighbours of every machine of the underlay, from its wiring and addresses. Pure.

In one segment every machine has a neighbour entry for every other and sends the rest to the gateway, which answers "net
unreachable". With routers a machine knows those of its own segment and sends the rest to a router in it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from agent.kernel.values import IPAddress, Route
from testbed.cluster.addresses import AddressPlan
from testbed.cluster.wiring import Cable, Wiring

DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")
DEFAULT_IPV6_ROUTE = IPv6Network("::/0")
GATEWAY = "gw"
MACHINE_FILES_MIB = 64
ETCD_FILES_MIB = 1024
"""Its write-ahead log preallocates 64 MB before the first entry and again before each file's end; its database comes on
top.
"""
TO_GATEWAY = "everything else goes to the lab's gateway, which answers with net unreachable"


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a cable in a machine."""

    interface: str
    segment: int
    address: IPv4Interface
    mac: str
    ipv6: IPv6Interface | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A machine of the same segment."""

    interface: str
    """Interface of the machine with the entry."""
    name: str
    address: IPAddress
    mac: str


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """The wanted network of one machine."""

    name: str
    forwards: bool
    ports: tuple[Port, ...]
    routes: tuple[tuple[Route, str], ...]
    """With their reasons."""
    neighbours: tuple[Neighbour, ...]
    files_mib: int = MACHINE_FILES_MIB
    """Limit for its files; it has no disk, only its own /run."""


@dataclass(frozen=True, slots=True)
class UnderlayPlan:
    """Everything that `Underlay` builds."""

    machines: Mapping[str, MachinePlan]
    """Nodes, etcd members, the gateway, routers; each group in the order of the cluster file."""
    switches: tuple[str, ...]
    cables: tuple[Cable, ...]
    """In the order of plugging in, which numbers the ports."""
    spare: frozenset[int]
    """Indices in `cables` of those that close a loop of switches."""
    priorities: Mapping[str, int]
    """Of the switches in the spanning tree's election."""
    mtu: int
    """Of every cable and switch, in bytes."""
    ipv6: bool = False
    """Whether machines have IPv6 beside IPv4."""
    open_vswitch: bool = False
    """Whether switches are Open vSwitch's instead of Linux bridges."""


def plan_underlay(wiring: Wiring, addresses: AddressPlan, mtu: int, *, open_vswitch: bool = False) -> UnderlayPlan:
    """Plan the whole underlay; gateway and etcd members are on the first switch."""
    servers = (*addresses.etcd, GATEWAY)
    ports = {name: _ports(name, wiring, addresses) for name in (*addresses.nodes, *servers, *addresses.routers)}
    machines = {
        name: MachinePlan(
            name,
            forwards=name == GATEWAY or name in addresses.routers,
            ports=own,
            routes=tuple(_routes(name, ports, wiring, addresses)),
            neighbours=tuple(_neighbours(name, ports)),
            files_mib=ETCD_FILES_MIB if name in addresses.etcd else MACHINE_FILES_MIB,
        )
        for name, own in ports.items()
    }
    return UnderlayPlan(
        machines,
        wiring.switches,
        (*wiring.cables, *(Cable(name, wiring.switches[0]) for name in servers)),
        wiring.spare,
        wiring.priorities,
        mtu,
        ipv6=bool(addresses.ipv6_subnets),
        open_vswitch=open_vswitch,
    )


def _ports(name: str, wiring: Wiring, addresses: AddressPlan) -> tuple[Port, ...]:
    own: tuple[IPv4Address, ...]
    if name in addresses.routers:
        own, segments = addresses.routers[name], wiring.ports[name]
    elif name in addresses.nodes:
        own, segments = (addresses.nodes[name],), wiring.ports[name]
    else:
        own, segments = (addresses.gateway if name == GATEWAY else addresses.etcd[name],), (0,)
    return tuple(
        Port(
            f"{name}-eth{number}",
            segment,
            IPv4Interface((address, addresses.subnets[segment].prefixlen)),
            "02:00:" + ":".join(f"{byte:02x}" for byte in address.packed),
            _ipv6(addresses, segment, address),
        )
        for number, (segment, address) in enumerate(zip(segments, own, strict=True))
    )


def _ipv6(addresses: AddressPlan, segment: int, address: IPv4Address) -> IPv6Interface | None:
    own: IPv6Address | None = addresses.ipv6_of(address)
    return None if own is None else IPv6Interface((own, addresses.ipv6_subnets[segment].prefixlen))


def _routes(
    name: str, ports: Mapping[str, tuple[Port, ...]], wiring: Wiring, addresses: AddressPlan
) -> Iterator[tuple[Route, str]]:
    own = ports[name]
    attached = {port.segment: port for port in own}

    def via(
        router: str, port: Port, destination: IPv4Network, ipv6: IPv6Network | None, why: str
    ) -> Iterator[tuple[Route, str]]:
        there = next(far for far in ports[router] if far.segment == port.segment)
        yield Route(destination=destination, device=port.interface, gateway=there.address.ip), why
        if ipv6 is not None and there.ipv6 is not None and port.ipv6 is not None:
            yield Route(destination=ipv6, device=port.interface, gateway=there.ipv6.ip), why

    beyond = wiring.next_routers(attached, without=name)
    ways = {segment: (router, attached[start]) for segment, (start, router) in beyond.items()}
    if name == GATEWAY:
        default = None
    elif name in wiring.routers or wiring.segment_count == 1:
        default = (GATEWAY, attached[0]) if 0 in attached else ways[0]
    else:
        # Through the nearest router on the path to the gateway; in the gateway's segment, through any router of it.
        default = ways.get(0) or next(iter(ways.values()), (GATEWAY, attached.get(0, own[0])))
    for segment, way in sorted(ways.items()):
        if way != default:
            why = f"the segment {addresses.subnets[segment]} is behind {way[0]}"
            ipv6 = addresses.ipv6_subnets[segment] if addresses.ipv6_subnets else None
            yield from via(*way, addresses.subnets[segment], ipv6, why)
    if default is not None:
        why = TO_GATEWAY if default[0] == GATEWAY else f"everything else goes to the router {default[0]}"
        yield from via(*default, DEFAULT_ROUTE, DEFAULT_IPV6_ROUTE, why)


def _neighbours(name: str, ports: Mapping[str, tuple[Port, ...]]) -> Iterator[Neighbour]:
    for own in ports[name]:
        for other, theirs in ports.items():
            for port in theirs:
                if other != name and port.segment == own.segment:
                    yield Neighbour(own.interface, other, port.address.ip, port.mac)
                    if own.ipv6 is not None and port.ipv6 is not None:
                        yield Neighbour(own.interface, other, port.ipv6.ip, port.mac)
