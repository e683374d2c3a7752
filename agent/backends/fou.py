"""The udp backend's packets without a process: the kernel makes the same datagrams (FOU: IP in UDP) by ipip devices.

Device `flannel0` has the subnet's base address /32 and carries nothing: packets of strangers arrive there. Each peer
has a device of its own, `flfou-` and its address in hex, with a route for its subnet: that the kernel finds a device by
the outer addresses is the check of the outer source. Rules check the inner addresses (fou_rules.py). An address
in no peer's subnet meets the `unreachable` route.
"""

import itertools
from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from agent.backends.base import OWN_ADDRESS, UDP_OVERHEAD, Underlay
from agent.backends.entries import NO_PEER, OverlayDevice, PeerEntries, base_address
from agent.backends.fou_rules import FouCheck, FouRules
from agent.backends.leftovers import PEER_DEVICES
from agent.errors import EnvironmentMissing, NetlinkError
from agent.kernel.bridge import ipv6_sysctls
from agent.kernel.fou import FouPorts
from agent.kernel.kernel import Kernel
from agent.kernel.values import Link, Route, TunnelSettings, Wanted, WantedAddresses, WantedLink
from agent.lease import Lease, LeaseAttrs, Subnet

TTL = 64
"""Of the outer packet, as a socket's; the devices would copy the inner one, and a pod could count the routers."""


class FouPlan:
    """See `Plan`."""

    name = "udp"

    def __init__(
        self, network: IPv4Network, port: int, underlay: Underlay, kernel: Kernel, *, offload: bool = False
    ) -> None:
        """Change nothing yet. `offload`: no process at the far end of any peer reads the datagrams."""
        self._network = network
        self._port = port
        self._underlay = underlay
        self._kernel = kernel
        self._ports = FouPorts(kernel)
        self._base = self._base_name()
        self._own: Subnet | None = None
        link = kernel.link(underlay.interface)
        # A network card cuts a packet of several segments into datagrams and makes its checksums; a veth does neither,
        # and a process at the far end would get 64 KiB as one datagram, or a TCP segment with a wrong checksum.
        self._cut = not offload and link is not None and link.kind == "veth"
        self._peers = frozenset(link.name for link in kernel.links() if is_peer_device(link))
        """The devices of peers; at first those of an earlier run."""
        self.overlay_mtu = underlay.mtu - UDP_OVERHEAD
        self.rules = FouRules(kernel.journal)

    @property
    def devices(self) -> tuple[OverlayDevice, ...]:
        """Return `flannel0` and those of the peers."""
        return tuple(OverlayDevice(name, 4) for name in (self._base, *sorted(self._peers)))

    def lease_attrs(self) -> LeaseAttrs:
        """Return our address; find out early what the kernel does not have."""
        missing = [why] if (why := self._ports.why_missing()) else []
        try:
            self._kernel.converge(Wanted(links=(self._base_link(),)))
        except EnvironmentMissing:
            missing.append("this kernel has no ipip device (want Debian's module ipip, or another --datapath)")
        except NetlinkError:
            # Without fou it refuses the device too.
            if not missing:
                raise
        if missing:
            raise EnvironmentMissing("\n".join(f"--datapath kernel: {line}" for line in missing))
        return LeaseAttrs(public_ip=self._underlay.public_ip)

    def converge_devices(self, own: Subnet) -> None:
        """Make sure of the rules, then of `flannel0`, then of the port: nothing is unpacked unchecked."""
        self._own = own
        check = FouCheck(
            self._network, own.ipv4, self._underlay.address, self._port, device=self._base, peers=PEER_DEVICES
        )
        self.rules.converge(check)
        wanted = Wanted(
            links=(replace(self._base_link(), up=True),),
            sysctls=ipv6_sysctls(self._base, enabled=False),
            addresses=(WantedAddresses(self._base, frozenset({base_address(own, 4)}), OWN_ADDRESS),),
        )
        self._kernel.converge(wanted)
        self._ports.converge(self._underlay.address, self._port, "the kernel unpacks the datagrams of peers")

    def peer_entries(self, lease: Lease, routes: Collection[Route]) -> tuple[PeerEntries, ...]:
        """Return the peer's device and the route through it."""
        public = lease.attrs.public_ip
        if public == self._underlay.public_ip or self._own is None:
            raise ValueError("its public address is ours")
        link = self._tunnel(peer_device(public), f"packets for the pods of {public}", public)
        source = base_address(self._own, 4).ip
        route = Route(lease.subnet.ipv4, link.name, gateway=public, source=source, onlink=True)
        return (PeerEntries(lease.subnet.ipv4, f"{public}:{self._port}", route, link=replace(link, up=True)),)

    def converge_peers(self, peers: Collection[Lease]) -> None:
        """Remove the devices of others at once, with their routes; those of these peers are among their entries."""
        wanted = frozenset(peer_device(lease.attrs.public_ip) for lease in peers)
        gone = sorted(self._peers - wanted)
        self._peers |= wanted
        if gone:
            self._kernel.converge(Wanted(no_links=dict.fromkeys(gone, NO_PEER)))
        self._peers = wanted

    def remove_devices(self) -> None:
        """Do nothing: packets flow without the agent."""

    def _base_name(self) -> str:
        """Return the first name that is free or ours; another network's agent may have flannel0."""
        for number in itertools.count():
            link = self._kernel.link(f"flannel{number}")
            if link is None or isinstance(link.settings, TunnelSettings):
                return f"flannel{number}"
        raise AssertionError("there is no end of numbers")

    def _base_link(self) -> WantedLink:
        return self._tunnel(self._base, "packets of strangers end here; it has the node's address", None)

    def _tunnel(self, name: str, why: str, remote: IPv4Address | None) -> WantedLink:
        underlay = self._underlay
        why += f"; {underlay.interface} takes {underlay.mtu} bytes, the outer headers {UDP_OVERHEAD}"
        settings = TunnelSettings(underlay.address, remote, ttl=TTL, fou_port=self._port, cut=self._cut)
        return WantedLink(name, why, kind="ipip", settings=settings, mtu=self.overlay_mtu)


def peer_device(public_ip: IPv4Address) -> str:
    """Return the name of a peer's device."""
    return f"{PEER_DEVICES}{int(public_ip):08x}"


def is_peer_device(link: Link) -> bool:
    """Report whether an agent made this link for a peer."""
    fou = isinstance(link.settings, TunnelSettings) and link.settings.fou_port is not None
    return fou and link.name.startswith(PEER_DEVICES)
