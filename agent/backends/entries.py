"""The kernel's entries for peers, as values. Pure.

Missing entries are added first, in the order in which packets need them (neighbour, forwarding entry, route); then
unexpected ones are removed. An entry that the kernel refuses does not stop the others.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from agent.errors import InvalidConfig
from agent.kernel.bridge import ipv6_sysctls
from agent.kernel.values import (
    Family,
    IPAddress,
    IPInterface,
    IPNetwork,
    Route,
    Wanted,
    WantedForwarding,
    WantedLink,
    WantedNeighbours,
    WantedRoute,
)
from agent.lease import Lease, Subnet

PEER = "the route to a peer's pods"
NO_PEER = "the peer is gone"


@dataclass(frozen=True, slots=True)
class Hop:
    """The far end of a peer on a vxlan device."""

    device: str
    gateway: IPAddress
    """The peer's address on the overlay device."""
    mac: str
    underlay: IPAddress
    """Destination of the outer packet."""


@dataclass(frozen=True, slots=True)
class PeerEntries:
    """Everything about one peer in one family."""

    subnet: IPNetwork
    via: str
    """Next hop of packets for the subnet, for people."""
    route: Route | None
    """None where one route covers the whole network."""
    hop: Hop | None = None
    """None where the kernel resolves it by ARP on the underlay."""
    link: WantedLink | None = None
    """A device of this peer alone; None where peers share one."""


@dataclass(frozen=True, slots=True)
class OverlayDevice:
    """One of our devices; its neighbours and forwarding entries belong to the backend alone."""

    name: str
    family: Family
    """Family of the overlay's addresses."""
    has_hops: bool = False
    """Whether peers on it need a Hop."""


def wanted_entries(
    peers: Collection[PeerEntries],
    devices: Iterable[OverlayDevice],
    routes: Collection[Route],
    ours: Callable[[Route], bool],
) -> Wanted:
    """Return the devices, neighbours, forwarding entries and routes of exactly these peers. Pure.

    `routes` are those in the kernel now; those that are `ours` and not wanted are removed.
    """
    with_hops = [device for device in devices if device.has_hops]
    hops = {device: [peer.hop for peer in peers if peer.hop and peer.hop.device == device.name] for device in with_hops}
    wanted_routes = sorted({peer.route for peer in peers if peer.route is not None}, key=str)
    replaced = {(route.destination, route.metric) for route in wanted_routes}
    links = {peer.link.name: peer.link for peer in peers if peer.link is not None}
    return Wanted(
        links=tuple(links.values()),
        sysctls=tuple(sysctl for name in links for sysctl in ipv6_sysctls(name, enabled=False)),
        neighbours=tuple(
            WantedNeighbours(device.name, {hop.gateway: hop.mac for hop in hops[device]}, PEER, device.family, NO_PEER)
            for device in with_hops
        ),
        forwarding=tuple(
            WantedForwarding(device.name, {hop.mac: hop.underlay for hop in hops[device]}, PEER, NO_PEER)
            for device in with_hops
        ),
        routes=tuple(WantedRoute(route, PEER) for route in wanted_routes),
        no_routes={
            route: NO_PEER
            for route in sorted(filter(ours, routes), key=str)
            if (route.destination, route.metric) not in replaced
        },
    )


def base_address(own: Subnet, family: Family) -> IPInterface:
    """Return the base of our subnet as a single address.

    Raises InvalidConfig when our lease has none of that family.
    """
    if family == 4:
        return IPv4Interface((own.ipv4.network_address, 32))
    if own.ipv6 is None:
        raise InvalidConfig("our lease has no IPv6 subnet")
    return IPv6Interface((own.ipv6.network_address, 128))


def has_family(lease: Lease, family: Family) -> bool:
    """Report whether a peer can be reached in that family; one that joined before IPv6 was enabled has IPv4 only."""
    return family == 4 or (lease.subnet.ipv6 is not None and lease.attrs.public_ipv6 is not None)


def share_of(lease: Lease, family: Family) -> tuple[IPNetwork, IPAddress, object]:
    """Return a peer's subnet, public address and backend data in one family. Raises ValueError when it has none."""
    attrs = lease.attrs
    if family == 4:
        return lease.subnet.ipv4, attrs.public_ip, attrs.backend_data
    if lease.subnet.ipv6 is None or attrs.public_ipv6 is None:
        raise ValueError("it has no IPv6 subnet and public address")
    return lease.subnet.ipv6, attrs.public_ipv6, attrs.backend_v6_data
