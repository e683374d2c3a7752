"""Remove what earlier runs with another backend left on this node; it would divert our packets."""

from collections.abc import Collection

from agent.backends.drop_device import is_drop_device
from agent.backends.subnet_routes import is_subnet_route
from agent.kernel.kernel import Kernel
from agent.kernel.values import IPNetwork, Wanted

TUNNEL_KINDS = frozenset({"vxlan", "ipip", "wireguard"})
"""flannel0, a TUN device, vanishes with its process."""
NOT_WANTED = "left by a run with another backend"


def remove_other_devices(kernel: Kernel, network: IPNetwork, keep: Collection[str], why: str = NOT_WANTED) -> None:
    """Remove flannel's tunnel devices and our drop device with an address in `network`, except `keep`.

    Those of other networks are other agents'. Raises NetlinkError.
    """
    candidates = [
        link.name
        for link in kernel.links()
        if (link.kind in TUNNEL_KINDS and link.name.startswith("flannel")) or is_drop_device(link)
    ]
    strangers = [
        name
        for name in candidates
        if name not in keep and any(one.ip in network for one in kernel.addresses(name, network.version))
    ]
    if strangers:
        kernel.converge(Wanted(no_links=dict.fromkeys(strangers, why)))


def remove_subnet_routes(kernel: Kernel, network: IPNetwork, own: IPNetwork, why: str = NOT_WANTED) -> None:
    """Remove routes to single peers: they override the one for the whole network. Raises NetlinkError."""
    routes = kernel.routes(network.version)
    devices = {route.device for route in routes if route.device is not None}
    peers = [
        route
        for route in sorted(routes, key=str)
        if route.destination != own and is_subnet_route(route, network, own.prefixlen, devices)
    ]
    if peers:
        kernel.converge(Wanted(no_routes=dict.fromkeys(peers, why)))
