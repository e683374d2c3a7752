"""The ipip backend: the kernel puts packets into packets (RFC 2003), each peer's subnet by the peer's public address.

Device `flannel.ipip` with the subnet's base address /32, from our address to anywhere; a route by it needs no address
of the peer's own device, so its gateway is the peer's public address and `onlink`.
"""

from collections.abc import Collection

from agent.backends.base import Underlay
from agent.backends.entries import OverlayDevice, PeerEntries
from agent.backends.shares import base_address, share_of
from agent.backends.subnet_routes import direct_device
from agent.kernel.ipv6_settings import set_ipv6
from agent.kernel.netlink import Kernel, NetlinkError
from agent.kernel.values import Route, TunnelSettings
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.backend_options import IpipOptions

DEVICE = "flannel.ipip"
ENCAP_OVERHEAD = 20  # bytes: the outer IPv4 header without options (RFC 791 §3.1)


class IpipPlan:
    """See `Plan`."""

    name = "ipip"
    devices: tuple[OverlayDevice, ...] = (OverlayDevice(DEVICE, 4),)

    def __init__(self, options: IpipOptions, underlay: Underlay, kernel: Kernel) -> None:
        self._options = options
        self._underlay = underlay
        self._kernel = kernel
        self.overlay_mtu = underlay.mtu - ENCAP_OVERHEAD

    def lease_attrs(self) -> LeaseAttrs:
        """Our address; the device is made, to find out early whether the kernel has such."""
        self._converge_link()
        return LeaseAttrs(public_ip=self._underlay.public_ip, backend_type=self.name)

    def converge_devices(self, own: Subnet) -> None:
        """The device with its settings and address; up."""
        self._converge_link()
        kernel, underlay = self._kernel, self._underlay
        set_ipv6(kernel, DEVICE, enabled=False)
        why = f"{underlay.interface} takes {underlay.mtu}, the outer header {ENCAP_OVERHEAD}"
        kernel.set_mtu(DEVICE, self.overlay_mtu, why)
        why = "the node's own address in the overlay, the base of its subnet"
        kernel.ensure_addresses(DEVICE, [base_address(own, 4)], why)
        kernel.set_up(DEVICE, "the overlay device carries packets")

    def peer_entries(self, lease: Lease, routes: Collection[Route]) -> tuple[PeerEntries, ...]:
        """A route by the tunnel; with DirectRouting a plain one where no gateway is between us."""
        subnet, public, _ = share_of(lease, 4)
        direct = direct_device(public, routes) if self._options.direct_routing else None
        route = Route(subnet, direct or DEVICE, gateway=public, onlink=direct is None)
        return (PeerEntries(subnet, str(public), route),)

    def converge_peers(self, peers: Collection[Lease]) -> None:
        """Nothing beside the routes."""

    def remove_devices(self) -> None:
        """None: packets flow without the agent."""

    def _converge_link(self) -> None:
        kernel, wanted = self._kernel, TunnelSettings(self._underlay.address)
        link = kernel.link(DEVICE)
        if link is not None and link.kind != "ipip":
            raise NetlinkError(
                f"{DEVICE}: exists and is a {link.kind or 'hardware device'} (want none, or an ipip one)"
            )
        if link is not None and kernel.ipip(DEVICE) != wanted:
            kernel.delete_link(DEVICE, "its ends are not those of the underlay")
            link = None
        if link is None:
            kernel.create_ipip(DEVICE, wanted, mtu=self.overlay_mtu, why="packets routed to it are put into packets")
