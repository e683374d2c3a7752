"""What the kernel has to know about peers, as values; and the way there.

First what is missing is added, in the order in which packets need it (neighbour, forwarding entry, route); then what
is too much goes. One entry that the kernel refuses keeps no other from being made.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from agent.errors import AgentError
from agent.kernel.netlink import Kernel
from agent.kernel.values import Family, ForwardingDatabaseEntry, IPAddress, IPNetwork, Route

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


def converge_entries(
    kernel: Kernel,
    wanted: Collection[PeerEntries],
    devices: Iterable[OverlayDevice],
    routes: Collection[Route],
    ours: Callable[[Route], bool],
) -> list[AgentError]:
    """Bring the kernel to `wanted` and return what it refused.

    `routes` is what the kernel has now; those of them that are `ours` and not wanted are removed.
    """
    refused: list[AgentError] = []

    def attempt(change: Callable[[], object]) -> None:
        try:
            change()
        except AgentError as error:
            refused.append(error)

    with_hops = [device for device in devices if device.has_hops]
    hops = {
        device: [peer.hop for peer in wanted if peer.hop and peer.hop.device == device.name] for device in with_hops
    }
    for device in with_hops:
        attempt(partial(_ensure_hops, kernel, device, hops[device]))
    wanted_routes = {peer.route for peer in wanted if peer.route is not None}
    for route in sorted(wanted_routes - set(routes), key=str):
        attempt(partial(kernel.replace_route, route, PEER))
    replaced = {(route.destination, route.metric) for route in wanted_routes}
    for route in sorted(filter(ours, routes), key=str):
        if (route.destination, route.metric) not in replaced:
            attempt(partial(kernel.remove_route, route, NO_PEER))
    for device in with_hops:
        attempt(partial(_remove_surplus, kernel, device, hops[device]))
    return refused


def _ensure_hops(kernel: Kernel, device: OverlayDevice, hops: Collection[Hop]) -> None:
    kernel.ensure_neighbours(device.name, {hop.gateway: hop.mac for hop in hops}, PEER)
    kernel.ensure_forwarding_entries(device.name, {hop.mac: hop.underlay for hop in hops}, PEER)


def _remove_surplus(kernel: Kernel, device: OverlayDevice, hops: Collection[Hop]) -> None:
    gateways = {hop.gateway for hop in hops}
    for address in kernel.neighbours(device.name, device.family):
        if address not in gateways:
            kernel.delete_neighbour(device.name, address, NO_PEER)
    keep = {ForwardingDatabaseEntry(hop.mac, hop.underlay) for hop in hops}
    for entry in kernel.forwarding_database(device.name) - keep:
        kernel.delete_forwarding_entry(device.name, entry, NO_PEER)
