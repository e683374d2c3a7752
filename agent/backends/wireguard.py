"""The wireguard backend: the kernel encrypts packets between the nodes.

As with the real flanneld: device `flannel-wg` with the subnet's base address /32, one route for the whole network
through it, and a WireGuard peer for each node: public key from its lease, public address as endpoint, its subnet as
allowed IPs. With IPv6 there is a second device, `flannel-wg-v6`, unless `Mode` lets one device carry both. Our key is
kept in a file; the devices are removed with the agent.
"""

import base64
import logging
import os
import re
import secrets
from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from agent.backends.base import OWN_ADDRESS, Underlay
from agent.backends.entries import NO_PEER, PEER, OverlayDevice, PeerEntries, base_address, has_family, share_of
from agent.errors import EnvironmentMissing, NetlinkError
from agent.kernel.bridge import ipv6_sysctls
from agent.kernel.kernel import Kernel
from agent.kernel.values import (
    Family,
    IPAddress,
    IPNetwork,
    Route,
    Wanted,
    WantedAddresses,
    WantedLink,
    WantedRoute,
    WireguardPeer,
)
from agent.kernel.wireguard import WireguardDevices
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.backend_options import WireguardOptions

log = logging.getLogger(__name__)

ENCAP_OVERHEAD = 80  # bytes, by flannel's count: outer IPv6 header 40, UDP 8, WireGuard 32 (its §5.4.6)
KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")  # 32 bytes in base64
KEY_BYTES = 32


class WireguardPlan:
    """See `Plan`."""

    name = "wireguard"
    rules = None

    def __init__(
        self,
        options: WireguardOptions,
        networks: dict[Family, IPNetwork],
        underlay: Underlay,
        kernel: Kernel,
        key_file: Path,
    ) -> None:
        """Take `networks`, the pod network of each family."""
        self._options = options
        self._networks = networks
        self._underlay = underlay
        self._kernel = kernel
        self._wireguard = WireguardDevices(kernel)
        self._key_file = key_file
        self._private_key: str | None = None
        self._public_key = ""
        self._separate = options.mode == "separate"
        both = 6 in networks and self._separate
        self.devices = (OverlayDevice("flannel-wg", 4), *((OverlayDevice("flannel-wg-v6", 6),) if both else ()))
        self.overlay_mtu = min(options.mtu or underlay.mtu, underlay.mtu) - ENCAP_OVERHEAD
        self._endpoints: dict[tuple[str, str], tuple[IPAddress, int]] = {}
        """The endpoint set for a peer, by device and key; the kernel changes it when the peer moves."""
        self._shared_keys: frozenset[str] = frozenset()
        """The warnings about leases with one key, while they last."""

    def lease_attrs(self) -> LeaseAttrs:
        """Return our public key, which the kernel derives; so create the devices."""
        for device in self.devices:
            self._converge_link(device)
        ipv6 = 6 in self._networks
        return LeaseAttrs(
            public_ip=self._underlay.public_ip,
            public_ipv6=self._underlay.public_ipv6 if ipv6 else None,
            backend_type=self.name,
            backend_data=self._data(4),
            backend_v6_data=self._data(6) if ipv6 else None,
        )

    def converge_devices(self, own: Subnet) -> None:
        """Make sure that the devices are up, with key, port, addresses and the route for the network."""
        for device in self.devices:
            self._converge_link(device)
            name, families = device.name, self._families_of(device)
            networks = {family: self._networks[family] for family in families}
            routes = [Route(net, name, scope="link" if family == 4 else "global") for family, net in networks.items()]
            wanted = Wanted(
                links=(replace(self._wanted_link(device), up=True),),
                sysctls=ipv6_sysctls(name, enabled=6 in families),
                addresses=tuple(
                    WantedAddresses(name, frozenset({base_address(own, family)}), OWN_ADDRESS, family)
                    for family in families
                ),
                routes=tuple(WantedRoute(one, "pods of other nodes are reached through the overlay") for one in routes),
            )
            self._kernel.converge(wanted)

    def peer_entries(self, lease: Lease, routes: Collection[Route]) -> tuple[PeerEntries, ...]:
        """Return no routes: one covers the whole network."""
        found = []
        for device in self.devices:
            for family in self._families_of(device):
                if has_family(lease, family):
                    address, port = self._peer(device, lease).endpoint
                    shown = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
                    found.append(PeerEntries(share_of(lease, family)[0], shown, None))
        return tuple(found)

    def converge_peers(self, peers: Collection[Lease]) -> None:
        """Give each device exactly these peers; a peer's old key is removed."""
        self._warn_of_shared_keys(peers)
        for device in self.devices:
            usable = [lease for lease in peers if has_family(lease, device.family)]
            wanted = {peer.public_key: peer for peer in (self._peer(device, lease) for lease in usable)}
            state = self._wireguard.read(device.name)
            if state is None:
                raise NetlinkError(f"{device.name}: the device is gone")
            for key in state.peers.keys() - wanted.keys():
                self._wireguard.remove_peer(device.name, key, NO_PEER)
                self._endpoints.pop((device.name, key), None)
            for key, peer in wanted.items():
                known = state.peers.get(key)
                moved = self._endpoints.get((device.name, key)) != peer.endpoint
                if known is None or moved or known.settings != peer.settings:
                    self._wireguard.set_peer(device.name, peer, PEER)
                    self._endpoints[device.name, key] = peer.endpoint

    def _warn_of_shared_keys(self, peers: Collection[Lease]) -> None:
        """Warn once of leases with one key, for instance from a copied key file: a device has one peer for each."""
        holders: dict[str, Lease] = {}
        shared = []
        for lease in peers:
            key, _ = peer_data(lease.attrs.backend_data, self._port(4))
            if (other := holders.get(key)) is not None:
                shared.append(
                    f"lease {other.subnet} of {other.attrs.public_ip} ignored: lease {lease.subnet} of"
                    f" {lease.attrs.public_ip} has the same public key (want another key on each node)"
                )
            holders[key] = lease
        for warning in shared:
            if warning not in self._shared_keys:
                log.warning("%s", warning)
        self._shared_keys = frozenset(shared)

    def remove_devices(self) -> None:
        """Remove all of them: without the agent a peer's new key would go unnoticed."""
        for device in self.devices:
            link = self._kernel.link(device.name)
            if link is not None and link.kind == "wireguard":
                self._kernel.delete_link(device.name, "the agent is stopping")

    def _families_of(self, device: OverlayDevice) -> tuple[Family, ...]:
        return (device.family,) if self._separate else tuple(self._networks)

    def _port(self, family: Family) -> int:
        return self._options.listen_port_v6 if family == 6 and self._separate else self._options.listen_port

    def _data(self, family: Family) -> dict[str, object]:
        return {"PublicKey": self._public_key, "Port": self._port(family)}

    def _peer(self, device: OverlayDevice, lease: Lease) -> WireguardPeer:
        """Return the WireGuard peer of a lease. Raises ValueError when its backend data is incomplete or invalid."""
        public_key, port = peer_data(share_of(lease, device.family)[2], self._port(device.family))
        families = [family for family in self._families_of(device) if has_family(lease, family)]
        return WireguardPeer(
            public_key=public_key,
            endpoint=(self._endpoint_address(device, lease), port),
            allowed=frozenset(share_of(lease, family)[0] for family in families),
            psk=self._options.psk,
            keepalive_s=self._options.keepalive_s,
        )

    def _endpoint_address(self, device: OverlayDevice, lease: Lease) -> IPAddress:
        ipv4, ipv6 = lease.attrs.public_ip, lease.attrs.public_ipv6
        if self._separate:
            return share_of(lease, device.family)[1]
        if ipv6 is None or self._options.mode == "ipv4":
            return ipv4
        if self._options.mode == "ipv6":
            return ipv6
        own = self._underlay.public_ipv6
        return ipv6 if prefers_ipv6(ipv4, ipv6, own) else ipv4

    def _wanted_link(self, device: OverlayDevice) -> WantedLink:
        underlay = self._underlay
        return WantedLink(
            device.name,
            f"packets for other nodes' pods; {underlay.interface} takes {underlay.mtu} bytes, the headers "
            f"{ENCAP_OVERHEAD}",
            kind="wireguard",
            mtu=self.overlay_mtu,
        )

    def _converge_link(self, device: OverlayDevice) -> None:
        """Create the device if it is missing, and set our key and port."""
        name, port = device.name, self._port(device.family)
        self._kernel.converge(Wanted(links=(self._wanted_link(device),)))
        if self._private_key is None:
            self._private_key = read_or_make_key(self._key_file)
        state = self._wireguard.read(name)
        if state is None or (state.private_key, state.port) != (self._private_key, port):
            why = "peers know us by this key"
            self._wireguard.set_device(name, private_key=self._private_key, port=port, why=why)
            state = self._wireguard.read(name)
        self._public_key = state.public_key if state is not None else ""


def peer_data(data: object, default_port: int) -> tuple[str, int]:
    """Return key and port from a peer's backend data; older agents publish no port. Raises ValueError."""
    fields = {key.lower(): value for key, value in data.items()} if isinstance(data, dict) else {}
    key, port = fields.get("publickey"), fields.get("port") or default_port
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise ValueError("missing PublicKey (32 bytes in base64) in its backend data")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise ValueError("invalid Port in its backend data")
    return key, port


def prefers_ipv6(ipv4: IPv4Address, ipv6: IPAddress, own_ipv6: IPAddress | None) -> bool:
    """Report whether flannel's Mode "auto" picks IPv6: public IPv4 first, then IPv6 if both ends have a public one,
    else IPv4.
    """
    return ipv4.is_private and not ipv6.is_private and own_ipv6 is not None and not own_ipv6.is_private


def read_or_make_key(path: Path) -> str:
    """Read our private key from the file, or create the file with a new key. Raises EnvironmentMissing."""
    want = "want a WireGuard key in base64, or no file"
    try:
        key = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return _make_key(path)
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentMissing(f"backend wireguard: {path}: cannot be read (got {error}; {want})") from error
    if not KEY.fullmatch(key):
        raise EnvironmentMissing(f"backend wireguard: {path}: not a key (got other text; {want})")
    return key


def _make_key(path: Path) -> str:
    number = bytearray(secrets.token_bytes(KEY_BYTES))
    # A Curve25519 scalar (RFC 7748 §5), as `wg genkey` makes it.
    number[0] &= 248
    number[31] = (number[31] & 127) | 64
    key = base64.b64encode(number).decode()
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "w") as file:
            file.write(f"{key}\n")
    except OSError as error:
        raise EnvironmentMissing(f"backend wireguard: {path}: {error.strerror} (want a place for our key)") from error
    log.info("new WireGuard key in %s", path)
    return key
