"""How a node's kernel forwards packets for other nodes' subnets, if its agent does not report that.

A route leads to the subnet. On a vxlan device the route's gateway has a neighbour entry, and its MAC address a
forwarding entry with the node's address. For other kinds of devices (a TUN, wireguard) only the agent knows the next
hop.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.kernel.kernel import Kernel
from agent.kernel.values import Family, IPAddress, IPNetwork, Route


@dataclass(frozen=True, slots=True)
class VxlanTables:
    """Neighbours (address → MAC) and forwarding entries (MAC → node) of one vxlan device."""

    neighbours: Mapping[IPAddress, str]
    nodes: Mapping[str, IPAddress]


@dataclass(frozen=True, slots=True)
class KernelTables:
    """The tables that decide where a packet goes."""

    routes: frozenset[Route]
    vxlan: Mapping[str, VxlanTables]
    """By device."""


@dataclass(frozen=True, slots=True)
class Passage:
    """The path of packets for one subnet."""

    subnet: str
    via: str | None = None
    """The node that they are sent to; None: only the agent knows it, or there is a problem."""
    problem: str | None = None


def read_tables(kernel: Kernel) -> KernelTables:
    """Read the tables of a node. Raises NetlinkError."""
    families: tuple[Family, ...] = (4, 6)
    devices = [link.name for link in kernel.links() if link.kind == "vxlan"]
    return KernelTables(
        routes=frozenset(route for family in families for route in kernel.routes(family)),
        vxlan={
            name: VxlanTables(
                {address: mac for family in families for address, mac in kernel.neighbours(name, family).items()},
                {entry.mac: entry.destination for entry in kernel.forwarding_database(name)},
            )
            for name in devices
        },
    )


# Decisions. Pure.


def passages(subnets: Iterable[IPNetwork], tables: KernelTables) -> list[Passage]:
    """Return the path of packets for each subnet."""
    return [_passage(subnet, tables) for subnet in subnets]


def _passage(subnet: IPNetwork, tables: KernelTables) -> Passage:
    route = _route_to(subnet, tables.routes)
    if route is None:
        return Passage(str(subnet), problem=f"no route to {subnet}")
    vxlan = tables.vxlan.get(route.device or "")
    if vxlan is None or route.gateway is None:
        return Passage(str(subnet), via=None if route.gateway is None else str(route.gateway))
    mac = vxlan.neighbours.get(route.gateway)
    if mac is None:
        return Passage(str(subnet), problem=f"no neighbour entry for {route.gateway} on {route.device}")
    node = vxlan.nodes.get(mac)
    if node is None:
        return Passage(str(subnet), problem=f"no forwarding entry for {mac} on {route.device}")
    return Passage(str(subnet), via=str(node))


def _route_to(subnet: IPNetwork, routes: Iterable[Route]) -> Route | None:
    """Return the most specific route that covers the whole subnet; not the default route, which leads out
    of the lab.
    """
    holding = [
        route
        for route in routes
        if route.destination.prefixlen > 0
        and route.destination.version == subnet.version
        and subnet.prefixlen >= route.destination.prefixlen
        and subnet.network_address in route.destination
    ]
    best = min(holding, key=lambda route: (-route.destination.prefixlen, route.metric), default=None)
    return best if best is not None and best.kind == "unicast" else None
