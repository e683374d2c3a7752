"""The vxlan backend: the kernel wraps frames between the nodes' devices in UDP (RFC 7348).

Kernel state, as with the real flanneld: device `flannel.VNI` with the subnet's base address /32; per peer, its device's
MAC as a permanent neighbour, a forwarding entry for that MAC, and a route to its subnet via its base address. Without
learning or ARP, packets flow while the agent is down. For IPv6 there is a second device, `flannel-v6.VNI`, between the
nodes' IPv6 addresses.
"""

import random
import re
from collections.abc import Collection
from dataclasses import replace

from agent.backends.base import OWN_ADDRESS, Underlay
from agent.backends.entries import Hop, OverlayDevice, PeerEntries, base_address, has_family, share_of
from agent.backends.subnet_routes import direct_device
from agent.errors import NetlinkError
from agent.kernel.bridge import ipv6_sysctls
from agent.kernel.kernel import Kernel
from agent.kernel.values import Family, Route, VxlanSettings, Wanted, WantedAddresses, WantedLink
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.backend_options import VxlanOptions

# bytes: inner Ethernet 14, vxlan 8, UDP 8, and the outer header
ENCAP_OVERHEAD: dict[Family, int] = {4: 14 + 8 + 8 + 20, 6: 14 + 8 + 8 + 40}
MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
ANY_MAC = "00:00:00:00:00:00"
"""As an entry it is where frames for all unknown MACs go."""


class VxlanPlan:
    """See `Plan`."""

    name = "vxlan"
    rules = None

    def __init__(
        self, options: VxlanOptions, underlay: Underlay, kernel: Kernel, *, ipv6: bool, rng: random.Random
    ) -> None:
        """`ipv6`: dual stack; the underlay then has an IPv6 address."""
        self._options = options
        self._underlay = underlay
        self._kernel = kernel
        families: tuple[Family, ...] = (4, 6) if ipv6 else (4,)
        self.devices = tuple(
            OverlayDevice(device_name(options.vni, family), family, has_hops=True) for family in families
        )
        underlay_mtu = min(options.mtu or underlay.mtu, underlay.mtu)
        # One MTU for pods, whichever family they use.
        self.overlay_mtu = underlay_mtu - ENCAP_OVERHEAD[families[-1]]
        self._mtu: dict[Family, int] = {family: underlay_mtu - ENCAP_OVERHEAD[family] for family in families}
        self._macs: dict[Family, str] = {}
        self._rng = rng

    def lease_attrs(self) -> LeaseAttrs:
        """Return VNI and the MAC of our device; create the devices, because peers need their MAC."""
        self._kernel.converge(Wanted(links=tuple(map(self._wanted_link, self.devices))))
        ipv6 = len(self.devices) > 1
        return LeaseAttrs(
            public_ip=self._underlay.public_ip,
            public_ipv6=self._underlay.public_ipv6 if ipv6 else None,
            backend_type=self.name,
            backend_data=self._data(4),
            backend_v6_data=self._data(6) if ipv6 else None,
        )

    def converge_devices(self, own: Subnet) -> None:
        """Make sure that the device is up, with its settings, its address and the MAC that peers know."""
        for device in self.devices:
            name, family = device.name, device.family
            wanted = Wanted(
                links=(replace(self._wanted_link(device), up=True),),
                sysctls=ipv6_sysctls(name, enabled=family == 6),
                addresses=(WantedAddresses(name, frozenset({base_address(own, family)}), OWN_ADDRESS, family),),
            )
            self._kernel.converge(wanted)

    def peer_entries(self, lease: Lease, routes: Collection[Route]) -> tuple[PeerEntries, ...]:
        """Return neighbour, forwarding entry and route; with DirectRouting, a plain route to peers without a gateway in
        between.
        """
        return tuple(
            self._entries(lease, device, routes) for device in self.devices if has_family(lease, device.family)
        )

    def converge_peers(self, peers: Collection[Lease]) -> None:
        """Do nothing: entries are all it needs."""

    def remove_devices(self) -> None:
        """Do nothing: packets flow without the agent."""

    def _entries(self, lease: Lease, device: OverlayDevice, routes: Collection[Route]) -> PeerEntries:
        subnet, public, data = share_of(lease, device.family)
        mac = vtep_mac(data)
        direct = direct_device(public, routes) if self._options.direct_routing else None
        if direct is not None:
            return PeerEntries(subnet, str(public), Route(subnet, direct, gateway=public))
        gateway = subnet.network_address
        port = self._options.port
        return PeerEntries(
            subnet,
            f"{public}:{port}" if device.family == 4 else f"[{public}]:{port}",
            Route(subnet, device.name, gateway=gateway, onlink=True),
            Hop(device.name, gateway, mac, public),
        )

    def _data(self, family: Family) -> dict[str, object]:
        return {"VNI": self._options.vni, "VtepMAC": self._macs[family]}

    def _settings(self, family: Family) -> VxlanSettings:
        local = self._underlay.address if family == 4 else self._underlay.ipv6_address
        link = self._kernel.link(self._underlay.interface)
        if link is None or local is None:
            raise NetlinkError(f"{self._underlay.interface}: the underlay interface is gone")
        options = self._options
        return VxlanSettings(options.vni, link.index, local, options.port, options.learning, options.gbp)

    def _wanted_link(self, device: OverlayDevice) -> WantedLink:
        """Return the device with a stable MAC: an earlier run's, if that had the same settings."""
        settings = self._settings(device.family)
        if device.family not in self._macs:
            link = self._kernel.link(device.name)
            known = link is not None and link.kind == "vxlan" and link.settings == settings
            # Chosen before the device is made, so that udev does not choose one.
            self._macs[device.family] = link.mac if link is not None and known else random_mac(self._rng)
        underlay, headers = self._underlay, ENCAP_OVERHEAD[device.family]
        return WantedLink(
            device.name,
            f"packets for other nodes' pods; {underlay.interface} takes {underlay.mtu} bytes, the headers {headers}; "
            "peers know the device by its MAC",
            kind="vxlan",
            settings=settings,
            mtu=self._mtu[device.family],
            mac=self._macs[device.family],
        )


def device_name(vni: int, family: Family) -> str:
    """Return flannel's name for the device."""
    return f"flannel.{vni}" if family == 4 else f"flannel-v6.{vni}"


def random_mac(rng: random.Random) -> str:
    """Return a random locally administered unicast address (IEEE 802)."""
    octets = [rng.getrandbits(8) for _ in range(6)]
    octets[0] = octets[0] & 0xFE | 0x02
    return ":".join(f"{octet:02x}" for octet in octets)


def vtep_mac(data: object) -> str:
    """Return the MAC in a peer's backend data. Raises ValueError."""
    mac = (
        next((value for key, value in data.items() if key.lower() == "vtepmac"), None)
        if isinstance(data, dict)
        else None
    )
    if not isinstance(mac, str) or not MAC.fullmatch(mac.lower()) or int(mac[:2], 16) & 1 or mac == ANY_MAC:
        raise ValueError("its backend data has no VtepMAC, the unicast MAC of its vxlan device")
    return mac.lower()
