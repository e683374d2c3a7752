"""What the kernel has to know about peers, as values; and the way there.

First what is missing is added, in the order in which packets need it (neighbour, forwarding entry, route); then what
is too much goes. One entry that the kernel refuses keeps no other from being made.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from agent.kernel.values import (
    Family,
    IPAddress,
    IPNetwork,
    Route,
    Wanted,
    WantedForwarding,
    WantedNeighbours,
    WantedRoute,
)

PEER = "a peer's pods are reached this way"
NO_PEER = "no peer is there any more"


@dataclass(frozen=True, slots=True)
class Hop:
    """The far end of a peer on a vxlan device."""

    device: str
    gateway: IPAddress
    """The peer's address on the overlay device."""
    mac: str
    underlay: IPAddress
    """Where the outer packet goes."""


@dataclass(frozen=True, slots=True)
class PeerEntries:
    """Everything about one peer in one family."""

    subnet: IPNetwork
    via: str
    """Where packets for the subnet go, for people."""
    route: Route | None
    """None where one route for the whole network does it."""
    hop: Hop | None = None
    """None where the kernel finds out by itself, by ARP on the underlay."""


@dataclass(frozen=True, slots=True)
class OverlayDevice:
    """A device of ours; its neighbours and forwarding entries are the backend's alone."""

    name: str
    family: Family
    """Of the overlay's addresses."""
    has_hops: bool = False
    """Whether peers on it need a Hop."""


def wanted_entries(
    peers: Collection[PeerEntries],
    devices: Iterable[OverlayDevice],
    routes: Collection[Route],
    ours: Callable[[Route], bool],
) -> Wanted:
    """Return the neighbours, forwarding entries and routes of exactly these peers. Pure.

    `routes` is what the kernel has now; those of them that are `ours` and not wanted are to go.
    """
    with_hops = [device for device in devices if device.has_hops]
    hops = {device: [peer.hop for peer in peers if peer.hop and peer.hop.device == device.name] for device in with_hops}
    wanted_routes = sorted({peer.route for peer in peers if peer.route is not None}, key=str)
    replaced = {(route.destination, route.metric) for route in wanted_routes}
    return Wanted(
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
