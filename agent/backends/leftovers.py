"""What earlier runs with another backend left on this node; it would take packets away from ours."""

from collections.abc import Collection

from agent.backends.subnet_routes import is_subnet_route
from agent.kernel.netlink import Kernel
from agent.kernel.values import IPNetwork

TUNNEL_KINDS = frozenset({"vxlan", "ipip", "wireguard"})
"""TUN devices go with their process."""
NOT_WANTED = "left by a run with another backend"


def remove_other_devices(kernel: Kernel, network: IPNetwork, keep: Collection[str], why: str = NOT_WANTED) -> None:
    """Remove flannel's tunnel devices with an address in `network`, except `keep`. Raises NetlinkError.

    Those of other networks are other agents'.
    """
    for link in kernel.links():
        if link.kind in TUNNEL_KINDS and link.name.startswith("flannel") and link.name not in keep:
            addresses = kernel.addresses(link.name) if network.version == 4 else kernel.ipv6_addresses(link.name)
            if any(address.ip in network for address in addresses):
                kernel.delete_link(link.name, why)


def remove_subnet_routes(kernel: Kernel, network: IPNetwork, own: IPNetwork, why: str = NOT_WANTED) -> None:
    """Remove routes to single peers: they go before the one for the whole network. Raises NetlinkError."""
    devices = {link.name for link in kernel.links()}
    for route in kernel.routes(network.version):
        if route.destination != own and is_subnet_route(route, network, own.prefixlen, devices):
            kernel.remove_route(route, why)
