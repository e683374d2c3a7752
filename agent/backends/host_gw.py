"""The host-gw backend: plain routes to each peer's subnet via the peer itself; for nodes on one segment."""

from collections.abc import Collection
from functools import partial

from agent.backends.base import Underlay
from agent.backends.entries import OverlayDevice, PeerEntries, has_family, share_of
from agent.errors import EnvironmentMissing
from agent.kernel.values import Family, Route
from agent.lease import Lease, LeaseAttrs, Subnet


class HostGatewayPlan:
    """See `Plan`."""

    name = "host-gw"
    rules = None
    devices: tuple[OverlayDevice, ...] = ()

    def __init__(self, underlay: Underlay, *, ipv6: bool = False) -> None:
        """`ipv6`: dual stack. Raises EnvironmentMissing when peers could not route to us."""
        if underlay.public_ip != underlay.address:
            raise EnvironmentMissing(
                f"--public-ip: host-gw routes to nodes directly (got {underlay.public_ip}; want {underlay.address}, "
                f"the address of {underlay.interface}, or another backend)"
            )
        self.overlay_mtu = underlay.mtu
        self._underlay = underlay
        self._families: tuple[Family, ...] = (4, 6) if ipv6 else (4,)

    def lease_attrs(self) -> LeaseAttrs:
        """Return our addresses."""
        public_ipv6 = self._underlay.public_ipv6 if 6 in self._families else None
        return LeaseAttrs(public_ip=self._underlay.public_ip, public_ipv6=public_ipv6, backend_type=self.name)

    def converge_devices(self, own: Subnet) -> None:
        """Do nothing: packets leave by the underlay itself."""

    def peer_entries(self, lease: Lease, routes: Collection[Route]) -> tuple[PeerEntries, ...]:
        """Return one route per family."""
        found = []
        for family in filter(partial(has_family, lease), self._families):
            subnet, public, _ = share_of(lease, family)
            found.append(PeerEntries(subnet, str(public), Route(subnet, self._underlay.interface, gateway=public)))
        return tuple(found)

    def converge_peers(self, peers: Collection[Lease]) -> None:
        """Do nothing: routes are all it needs."""

    def remove_devices(self) -> None:
        """Do nothing: packets flow without the agent."""
