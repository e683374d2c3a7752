"""The actual and the wanted state of a namespace as values, with their `ip` syntax. Pure.

`State` is what was read, `Wanted` what is desired; diff.py compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Literal

Family = Literal[4, 6]
"""An IP version."""
FAMILY_WORDS: Mapping[Family, str] = {4: "ip", 6: "ip6"}
"""What nft calls each, and how the names of iptables' programs begin."""
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
    """Traffic of a link since its creation, by the kernel's counters."""

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
    """The settings of a vxlan device; none of them can be changed later."""

    vni: int
    underlay: int
    """Index of the interface that its packets leave by."""
    local: IPAddress
    """Outer source address."""
    port: int
    """UDP destination port."""
    learning: bool = False
    """Whether the kernel learns MAC addresses from received packets."""
    gbp: bool = False
    """Group-based policy extension."""


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """The settings of an ipip device; none of them can be changed later."""

    local: IPAddress
    remote: IPAddress | None = None
    ttl: int = 0
    """Of the outer packet; 0: the inner one's."""
    fou_port: int | None = None
    """UDP port, from and to which its packets go in datagrams (FOU); None: in plain IPv4 packets."""
    cut: bool = False
    """Packets of several segments are cut, and checksums made, before they enter: nothing below the tunnel does it."""


@dataclass(frozen=True, slots=True)
class ForwardingDatabaseEntry:
    """An entry of a vxlan device: packets for this MAC go to that address."""

    mac: str
    destination: IPAddress


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """A peer of a wireguard device."""

    public_key: str
    """Base64."""
    endpoint: tuple[IPAddress, int]
    """Destination of its packets until it sends from another; port 0: not yet known."""
    allowed: frozenset[IPNetwork]
    """The peer's inner addresses."""
    psk: str = field(default="", repr=False)
    """Base64; empty: none."""
    keepalive_s: int = 0
    """0: none."""

    @property
    def settings(self) -> tuple[object, ...]:
        """Return everything but the endpoint, which the kernel changes itself."""
        return self.allowed, self.psk, self.keepalive_s

    def with_allowed(self, more: frozenset[IPNetwork]) -> "WireguardPeer":
        """Return the same peer with more networks."""
        return replace(self, allowed=self.allowed | more)


@dataclass(frozen=True, slots=True)
class WireguardState:
    """A wireguard device in the kernel; keys in base64."""

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
    """The driver's name: `bridge`, `veth`, `tun`, …; empty for hardware and loopback."""
    mtu: int
    """In bytes."""
    mac: str
    """Lower case with colons; empty where the device has none."""
    flags: frozenset[str]
    """As `ip link` prints them, e.g. `UP`, `POINTOPOINT`."""
    master: int
    """Index of the bridge whose port it is; 0 for none."""
    tx_queue_length: int = 0
    """In packets."""
    settings: "VxlanSettings | TunnelSettings | None" = None
    """Settings of a vxlan or ipip device; None for other kinds, and for settings that ours never have."""
    hairpin: bool = False
    """As a bridge port: frames may leave by the port that they came in by."""
    alias: str = ""
    """A text for people that the kernel keeps with the link; may be empty."""

    @property
    def up(self) -> bool:
        """Return whether the administrator has set the link up."""
        return "UP" in self.flags

    @property
    def carrier(self) -> bool:
        """Return whether the link's other end is present."""
        return "LOWER_UP" in self.flags


@dataclass(frozen=True, slots=True)
class AssignedAddress:
    """An address that an interface has, as the kernel lists it."""

    address: IPInterface
    device: int
    """Index of the interface."""
    scope: int = 0
    """One of ROUTE_SCOPES: how far away it is valid."""
    permanent: bool = True
    """Without an expiry; an address from DHCP or a router has one."""
    secondary: bool = False
    """IPv4: in the network of an earlier address of the interface."""
    temporary: bool = False
    """IPv6: a privacy address (RFC 8981)."""
    deprecated: bool = False
    """Not for new connections (RFC 4862)."""
    duplicate: bool = False
    """IPv6: another machine has the same address, so the kernel does not use it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the kernel's main table. The kernel's key is destination and metric."""

    destination: IPNetwork
    device: str | None
    gateway: IPAddress | None = None
    scope: str = "global"
    metric: int = 0
    """0: none given; the kernel stores such IPv6 routes with 1024 (IP6_RT_PRIO_USER)."""
    kind: str = "unicast"
    protocol: str = "boot"
    """The route's origin; `boot` is the default of `ip route`."""
    source: IPAddress | None = None
    """Preferred source address of this node's own packets."""
    onlink: bool = False
    """The gateway is on the device although no route says so."""

    def words(self) -> list[str]:
        """Return the route as arguments of `ip route replace`."""
        words = [] if self.kind == "unicast" else [self.kind]
        words.append("default" if self.destination.prefixlen == 0 else str(self.destination))
        if self.gateway is not None:
            words += ["via", str(self.gateway)]
        if self.device is not None:
            words += ["dev", self.device]
        # The default of `ip`: a route to neighbours has link scope. IPv6 has none.
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
class Flow:
    """The connection tracker's entry for a sender's packets: their addresses, and those of the replies."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int
    reply_source: IPAddress
    """The receiver of the datagrams: `destination`, or its translation."""
    reply_source_port: int
    reply_destination: IPAddress
    """The sender as the receiver sees it: `source`, or its translation."""


@dataclass(frozen=True, slots=True)
class VethPeer:
    """The other end of a veth pair that is to be created."""

    name: str
    mtu: int
    """In bytes."""
    mac: str | None = None
    namespace_pid: int | None = None
    """A process whose network namespace it is put in; None: next to the first end."""
    namespace: str | None = None
    """The name of that namespace in `ip netns`; the journal then shows it instead of the process."""

    def words(self) -> list[str]:
        """Return the peer as arguments after `type veth peer`."""
        words = ["name", self.name, "mtu", str(self.mtu), *(["address", self.mac] if self.mac else [])]
        if self.namespace_pid is not None:
            words += ["netns", self.namespace or str(self.namespace_pid)]
        return words


@dataclass(frozen=True, slots=True)
class WantedLink:
    """A wanted link; fields that are None stay unchanged.

    Without a kind, others create it, and its absence is an error. A link with other settings is recreated.
    """

    name: str
    why: str
    kind: str | None = None
    settings: VxlanSettings | TunnelSettings | VethPeer | None = None
    mtu: int | None = None
    """In bytes."""
    mac: str | None = None
    tx_queue_length: int | None = None
    """In packets."""
    master: str | None = None
    """The bridge whose port it is."""
    alias: str | None = None
    hairpin: bool | None = None
    up: bool | None = None


@dataclass(frozen=True, slots=True)
class WantedAddresses:
    """All addresses of one family that a device should have; IPv6 link-local ones are the kernel's own and stay."""

    device: str
    addresses: frozenset[IPInterface]
    why: str
    family: Family = 4


@dataclass(frozen=True, slots=True)
class WantedRoute:
    """A route that replaces any other to that destination with that metric."""

    route: Route
    why: str


@dataclass(frozen=True, slots=True)
class WantedNeighbours:
    """Permanent neighbours of a device, MAC by address, all of one family."""

    device: str
    entries: Mapping[IPAddress, str]
    why: str
    family: Family = 4
    no_others: str | None = None
    """Why others are removed; None keeps them."""


@dataclass(frozen=True, slots=True)
class WantedForwarding:
    """Destinations of a vxlan device's packets, by MAC."""

    device: str
    entries: Mapping[str, IPAddress]
    why: str
    no_others: str | None = None
    """Why others are removed; None keeps them."""


@dataclass(frozen=True, slots=True)
class WantedSysctl:
    """A sysctl. Dots separate its name; a dot in an interface's name is written `/`, as for sysctl(8)."""

    name: str
    value: str
    why: str
    required: bool = True
    """False: it is no error if this kernel or namespace does not have it."""
    device: str | None = None
    """Its device: it is set once that exists, before that is brought up."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted state of a part of a namespace; anything not mentioned stays."""

    links: tuple[WantedLink, ...] = ()
    sysctls: tuple[WantedSysctl, ...] = ()
    addresses: tuple[WantedAddresses, ...] = ()
    neighbours: tuple[WantedNeighbours, ...] = ()
    forwarding: tuple[WantedForwarding, ...] = ()
    routes: tuple[WantedRoute, ...] = ()
    no_links: Mapping[str, str] = field(default_factory=dict)
    """Links to delete, with the reason, by name."""
    no_routes: Mapping[Route, str] = field(default_factory=dict)
    """Routes to delete, with the reason."""
    no_neighbours: Mapping[tuple[str, IPAddress], str] = field(default_factory=dict)
    """Neighbours to delete, by device and address, with the reason."""

    def __add__(self, other: "Wanted") -> "Wanted":
        """Return the union of both."""
        return Wanted(
            links=self.links + other.links,
            sysctls=self.sysctls + other.sysctls,
            addresses=self.addresses + other.addresses,
            neighbours=self.neighbours + other.neighbours,
            forwarding=self.forwarding + other.forwarding,
            routes=self.routes + other.routes,
            no_links={**self.no_links, **other.no_links},
            no_routes={**self.no_routes, **other.no_routes},
            no_neighbours={**self.no_neighbours, **other.no_neighbours},
        )


@dataclass(frozen=True, slots=True)
class State:
    """The part of a namespace's state that was read."""

    links: Mapping[str, Link] = field(default_factory=dict)
    """By name."""
    addresses: Mapping[tuple[str, Family], frozenset[IPInterface]] = field(default_factory=dict)
    """Without IPv6 link-local ones."""
    routes: Mapping[Family, frozenset[Route]] = field(default_factory=dict)
    """The main tables."""
    neighbours: Mapping[tuple[str, Family], Mapping[IPAddress, str]] = field(default_factory=dict)
    """Permanent ones: MAC by address."""
    forwarding: Mapping[str, frozenset[ForwardingDatabaseEntry]] = field(default_factory=dict)
