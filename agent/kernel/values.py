"""Links and routes as values, and the `ip` words for them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal

Family = Literal[4, 6]
"""An IP version."""
IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network

ROUTE_SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
ROUTE_KINDS = {
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "anycast": 4,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
    "throw": 9,
}
ROUTE_PROTOCOLS = {"unspec": 0, "redirect": 1, "kernel": 2, "boot": 3, "static": 4}
ONLINK = 4  # RTNH_F_ONLINK, linux/rtnetlink.h

LINK_FLAGS = {  # linux/if.h
    "UP": 1 << 0,
    "BROADCAST": 1 << 1,
    "LOOPBACK": 1 << 3,
    "POINTOPOINT": 1 << 4,
    "RUNNING": 1 << 6,
    "NOARP": 1 << 7,
    "PROMISC": 1 << 8,
    "ALLMULTI": 1 << 9,
    "MULTICAST": 1 << 12,
    "LOWER_UP": 1 << 16,
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went through a link since it was made, by the kernel's count."""

    rx_packets: int = 0
    rx_bytes: int = 0
    rx_dropped: int = 0
    rx_errors: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    tx_dropped: int = 0
    tx_errors: int = 0


@dataclass(frozen=True, slots=True)
class VxlanSettings:
    """What makes a vxlan device the one that is wanted; none of it can be changed later."""

    vni: int
    underlay: int
    """Index of the interface that its packets leave by."""
    local: IPAddress
    """Outer source address."""
    port: int
    """UDP destination port."""
    learning: bool = False
    """Whether the kernel learns MAC addresses from what comes in."""
    gbp: bool = False
    """Group-based policy extension."""


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """The same for an ipip device."""

    local: IPAddress
    remote: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class ForwardingDatabaseEntry:
    """On a vxlan device: packets for this MAC go to that address."""

    mac: str
    destination: IPAddress


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """A peer of a wireguard device."""

    public_key: str
    """Base64."""
    endpoint: tuple[IPAddress, int]
    """Where its packets go until it is heard from elsewhere; port 0: nowhere yet."""
    allowed: frozenset[IPNetwork]
    """Inner addresses that are its own."""
    psk: str = field(default="", repr=False)
    """Base64; empty: none."""
    keepalive_s: int = 0
    """0: none."""

    @property
    def settings(self) -> tuple[object, ...]:
        """All but the endpoint, which the kernel changes by itself."""
        return self.allowed, self.psk, self.keepalive_s

    def with_allowed(self, more: frozenset[IPNetwork]) -> "WireguardPeer":
        """The same peer with more networks."""
        return replace(self, allowed=self.allowed | more)


@dataclass(frozen=True, slots=True)
class WireguardState:
    """A wireguard device as the kernel has it; keys in base64."""

    private_key: str = field(repr=False)
    public_key: str
    port: int
    peers: Mapping[str, WireguardPeer]
    """By public key."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel describes it."""

    name: str
    index: int
    kind: str
    """The driver's word: `bridge`, `veth`, `tun`, …; empty for hardware and loopback."""
    mtu: int
    """In bytes."""
    mac: str
    """Lower case with colons; empty where the device has none."""
    flags: frozenset[str]
    """As `ip link` prints them, e.g. `UP`, `POINTOPOINT`."""
    master: int
    """Index of the bridge that it is a port of; 0 for none."""
    tx_queue_length: int = 0
    """In packets."""
    traffic: Traffic = field(default=Traffic(), compare=False)

    @property
    def up(self) -> bool:
        """Whether the link is set up by the administrator."""
        return "UP" in self.flags

    @property
    def carrier(self) -> bool:
        """Whether the link's other end is there."""
        return "LOWER_UP" in self.flags


@dataclass(frozen=True, slots=True)
class AssignedAddress:
    """An address that an interface has, as the kernel lists it."""

    address: IPInterface
    device: int
    """Index of the interface."""
    scope: int = 0
    """As in ROUTE_SCOPES: how far away those may be who use it."""
    permanent: bool = True
    """Without an end; what DHCP or a router gave has one."""
    secondary: bool = False
    """IPv4: in the network of an earlier address of the interface."""
    temporary: bool = False
    """IPv6: a privacy address (RFC 8981)."""
    deprecated: bool = False
    """Not for new connections (RFC 4862)."""
    duplicate: bool = False
    """IPv6: another machine has it too, so the kernel does not use it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the kernel's main table. The kernel's key is destination and metric."""

    destination: IPNetwork
    device: str | None
    gateway: IPAddress | None = None
    scope: str = "global"
    metric: int = 0
    """0: none given; the kernel keeps IPv6 routes of that kind as 1024 (IP6_RT_PRIO_USER)."""
    kind: str = "unicast"
    protocol: str = "boot"
    """Who made it; `boot` is what `ip route` writes by itself."""
    source: IPAddress | None = None
    """Preferred source address of packets that this node sends by it."""
    onlink: bool = False
    """The gateway is reached on the device although no route says so."""

    def words(self) -> list[str]:
        """The route as one types it behind `ip route replace`."""
        words = [] if self.kind == "unicast" else [self.kind]
        words.append("default" if self.destination.prefixlen == 0 else str(self.destination))
        if self.gateway is not None:
            words += ["via", str(self.gateway)]
        if self.device is not None:
            words += ["dev", self.device]
        # What `ip` assumes when the scope is left out: a route to neighbours is for this link only. IPv6 has none.
        bare = self.kind == "unicast" and self.gateway is None and self.destination.version == 4
        assumed = "link" if bare else "global"
        if self.scope != assumed:
            words += ["scope", self.scope]
        if self.metric:
            words += ["metric", str(self.metric)]
        if self.protocol != "boot":
            words += ["proto", self.protocol]
        if self.source is not None:
            words += ["src", str(self.source)]
        return words + (["onlink"] if self.onlink else [])


@dataclass(frozen=True, slots=True)
class UdpFlow:
    """What the connection tracker remembers of a sender's datagrams: their addresses, and those of the replies."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    reply_source: IPAddress
    """Who gets the datagrams: `destination`, or what it was translated to."""
    reply_source_port: int
    reply_destination: IPAddress
    """Whom the receiver sees: `source`, or what it was translated to."""
    reply_destination_port: int
