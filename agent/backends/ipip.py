"""The ipip backend: the kernel encapsulates IP in IP (RFC 2003); each peer's subnet is routed via the peer's public
address.

Device `flannel.ipip` with the subnet's base address /32, from our address to any; a route through it does not need the
address of the peer's device, so its gateway is the peer's public address, with `onlink`.
"""

from collections.abc import Collection
from dataclasses import replace

from agent.backends.base import OWN_ADDRESS, Underlay
from agent.backends.entries import OverlayDevice, PeerEntries, base_address, share_of
from agent.backends.subnet_routes import direct_device
from agent.kernel.bridge import ipv6_sysctls
from agent.kernel.kernel import Kernel
from agent.kernel.values import Route, TunnelSettings, Wanted, WantedAddresses, WantedLink
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.backend_options import IpipOptions

DEVICE = "flannel.ipip"
ENCAP_OVERHEAD = 20  # bytes: the outer IPv4 header without options (RFC 791 §3.1)


class IpipPlan:
    """See `Plan`."""

    name = "ipip"
    rules = None
    devices: tuple[OverlayDevice, ...] = (OverlayDevice(DEVICE, 4),)

    def __init__(self, options: IpipOptions, underlay: Underlay, kernel: Kernel) -> None:
        self._options = options
        self._underlay = underlay
        self._kernel = kernel
        self.overlay_mtu = underlay.mtu - ENCAP_OVERHEAD

    def lease_attrs(self) -> LeaseAttrs:
        """Return our address; create the device to find out early whether the kernel supports it."""
        self._kernel.converge(Wanted(links=(self._wanted_link(),)))
        return LeaseAttrs(public_ip=self._underlay.public_ip, backend_type=self.name)

    def converge_devices(self, own: Subnet) -> None:
        """Make sure that the device is up, with its settings and address."""
        wanted = Wanted(
            links=(replace(self._wanted_link(), up=True),),
            sysctls=ipv6_sysctls(DEVICE, enabled=False),
            addresses=(WantedAddresses(DEVICE, frozenset({base_address(own, 4)}), OWN_ADDRESS),),
        )
        self._kernel.converge(wanted)

    def peer_entries(self, lease: Lease, routes: Collection[Route]) -> tuple[PeerEntries, ...]:
        """Return a route through the tunnel; with DirectRouting, a plain one to peers without a gateway in between."""
        subnet, public, _ = share_of(lease, 4)
        direct = direct_device(public, routes) if self._options.direct_routing else None
        route = Route(subnet, direct or DEVICE, gateway=public, onlink=direct is None)
        return (PeerEntries(subnet, str(public), route),)

    def converge_peers(self, peers: Collection[Lease]) -> None:
        """Do nothing: routes are all it needs."""

    def remove_devices(self) -> None:
        """Do nothing: packets flow without the agent."""

    def _wanted_link(self) -> WantedLink:
        underlay = self._underlay
        return WantedLink(
            DEVICE,
            f"packets for other nodes' pods; {underlay.interface} takes {underlay.mtu} bytes, the outer header "
            f"{ENCAP_OVERHEAD}",
            kind="ipip",
            settings=TunnelSettings(underlay.address),
            mtu=self.overlay_mtu,
        )
