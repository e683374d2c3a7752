"""Remove what earlier runs with another backend left on this node; it would divert our packets."""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

from agent.backends.drop_device import is_drop_device
from agent.backends.subnet_routes import is_subnet_route
from agent.kernel.kernel import Kernel
from agent.kernel.values import IPNetwork, Link, TunnelSettings, Wanted

TUNNEL_KINDS = frozenset({"vxlan", "ipip", "wireguard"})
"""flannel0, a TUN device, vanishes with its process."""
PEER_DEVICES = "flfou-"
"""Prefix of the devices of peers that --datapath kernel makes; these carry packets without a process too."""
NOT_WANTED = "left by a run with another backend"


def remove_other_devices(kernel: Kernel, network: IPNetwork, keep: Collection[str], why: str = NOT_WANTED) -> None:
    """Remove flannel's tunnel devices and our drop device with an address in `network`, except `keep`.

    Those of other networks are other agents'. Raises NetlinkError.
    """
    remove_kernel_path(kernel, network, keep, why)
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


def remove_kernel_path(kernel: Kernel, network: IPNetwork, keep: Collection[str] = (), why: str = NOT_WANTED) -> None:
    """Remove what --datapath kernel left for `network`, except `keep`: its devices, and the port that the kernel has.

    A device of peers has no address; it belongs to the one with the same port. Raises NetlinkError.
    """
    fou = [link for link in kernel.links() if _fou_port(link) is not None and link.name not in keep]
    others = {
        _fou_port(link)
        for link in fou
        if (addresses := kernel.addresses(link.name)) and not any(one.ip in network for one in addresses)
    }
    ours = [link for link in fou if _fou_port(link) not in others and link.name.startswith(("flannel", PEER_DEVICES))]
    if not ours:
        return
    # Imported here: only this path of udp needs them.
    from agent.backends.fou_rules import remove_rules
    from agent.kernel.fou import FouPorts

    for local, port in {
        (one.settings.local, _fou_port(one)) for one in ours if isinstance(one.settings, TunnelSettings)
    }:
        if isinstance(local, IPv4Address) and port is not None:
            FouPorts(kernel).remove(local, port, why)
    kernel.converge(Wanted(no_links={link.name: why for link in ours}))
    if isinstance(network, IPv4Network):
        # The next flannel0 may be a TUN device, which these rules would take for that of strangers.
        remove_rules(network, kernel.journal)


def _fou_port(link: Link) -> int | None:
    return link.settings.fou_port if isinstance(link.settings, TunnelSettings) else None


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
