"""Changes of a namespace's state, each with the commands that a person would have typed. Pure."""

from dataclasses import dataclass
from typing import Protocol

from agent.kernel.values import (
    ForwardingDatabaseEntry,
    IPAddress,
    IPInterface,
    Route,
    TunnelSettings,
    VethPeer,
    VxlanSettings,
    WantedLink,
)


class Change(Protocol):
    """One request to the kernel and the equivalent commands."""

    @property
    def why(self) -> str:
        """Return the reason, for the journal."""

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return the equivalent commands."""


@dataclass(frozen=True, slots=True)
class AddLink:
    """Make a link, with all settings that one request allows."""

    link: WantedLink
    underlay: str | None = None
    """Name of the interface that a vxlan device's packets leave by."""

    @property
    def why(self) -> str:
        """Return the reason, for the journal."""
        return self.link.why

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip link add`."""
        link = self.link
        words = ["ip", "link", "add", link.name, *link_words(link.mtu, link.mac, link.tx_queue_length, link.master)]
        words += ["up"] if link.up else []
        cut = isinstance(link.settings, TunnelSettings) and link.settings.cut
        words += ["gso_max_segs", "1"] if cut else []
        words += ["type", link.kind or "", *self._settings()]
        return (words, ["ethtool", "-K", link.name, "tx", "off"]) if cut else (words,)

    def _settings(self) -> list[str]:
        match self.link.settings:
            case VethPeer() as peer:
                return ["peer", *peer.words()]
            case VxlanSettings() as vxlan:
                words = ["id", str(vxlan.vni), "dev", self.underlay or "?", "local", str(vxlan.local)]
                words += ["dstport", str(vxlan.port), "learning" if vxlan.learning else "nolearning"]
                return words + (["gbp"] if vxlan.gbp else [])
            case TunnelSettings() as tunnel:
                words = ["local", str(tunnel.local), "remote", str(tunnel.remote) if tunnel.remote else "any"]
                words += ["ttl", str(tunnel.ttl)] if tunnel.ttl else []
                port = str(tunnel.fou_port)
                in_udp = ["encap", "fou", "encap-sport", port, "encap-dport", port]
                return words + ([] if tunnel.fou_port is None else in_udp)
            case None:
                return []


@dataclass(frozen=True, slots=True)
class SetLink:
    """Change settings of a link; None keeps a setting."""

    name: str
    why: str
    mtu: int | None = None
    mac: str | None = None
    tx_queue_length: int | None = None
    master: str | None = None
    alias: str | None = None
    up: bool | None = None

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip link set`."""
        words = ["ip", "link", "set", self.name, *link_words(self.mtu, self.mac, self.tx_queue_length, self.master)]
        words += [] if self.alias is None else ["alias", self.alias]
        return (words + ([] if self.up is None else ["up" if self.up else "down"]),)


@dataclass(frozen=True, slots=True)
class SetHairpin:
    """Let a bridge send frames out of the port that they came in by, or not."""

    port: str
    on: bool
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `bridge link set`."""
        return (["bridge", "link", "set", "dev", self.port, "hairpin", "on" if self.on else "off"],)


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Remove a link."""

    name: str
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip link delete`."""
        return (["ip", "link", "delete", self.name],)


@dataclass(frozen=True, slots=True)
class WriteSysctl:
    """Set a sysctl if its value differs; checking and writing is one step, since finding it is most of the work."""

    name: str
    value: str
    why: str
    required: bool

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `sysctl -w`."""
        return (["sysctl", "-w", f"{self.name}={self.value}"],)


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give a device an address."""

    device: str
    address: IPInterface
    broadcast: bool
    """Whether it gets the network's broadcast address."""
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip address add`; without duplicate address detection, since no other node can have our
        IPv6 address.
        """
        words = ["ip", "address", "add", str(self.address), *(["brd", "+"] if self.broadcast else [])]
        return ([*words, "dev", self.device, *(["nodad"] if self.address.version == 6 else [])],)


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Remove an address from a device."""

    device: str
    address: IPInterface
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip address delete`."""
        return (["ip", "address", "delete", str(self.address), "dev", self.device],)


@dataclass(frozen=True, slots=True)
class ReplaceRoute:
    """Set a route, replacing any other to that destination with that metric."""

    route: Route
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip route replace`."""
        return (["ip", "route", "replace", *self.route.words()],)


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Delete a route."""

    route: Route
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip route delete`."""
        return (["ip", "route", "delete", *self.route.words()],)


@dataclass(frozen=True, slots=True)
class ReplaceNeighbours:
    """Make permanent neighbours of a device, in as few messages as possible."""

    device: str
    entries: tuple[tuple[IPAddress, str], ...]
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip neigh replace`, one for each."""
        return tuple(
            ["ip", "neigh", "replace", str(address), "lladdr", mac, "dev", self.device, "nud", "permanent"]
            for address, mac in self.entries
        )


@dataclass(frozen=True, slots=True)
class DeleteNeighbour:
    """Delete a neighbour."""

    device: str
    address: IPAddress
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `ip neigh delete`."""
        return (["ip", "neigh", "delete", str(self.address), "dev", self.device],)


@dataclass(frozen=True, slots=True)
class ReplaceForwarding:
    """Make a permanent entry of a vxlan device's forwarding database, replacing any entry of the MAC."""

    device: str
    entry: ForwardingDatabaseEntry
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `bridge fdb replace`."""
        return (["bridge", "fdb", "replace", *_entry_words(self.device, self.entry), "permanent"],)


@dataclass(frozen=True, slots=True)
class DeleteForwarding:
    """Remove an entry of a vxlan device's forwarding database."""

    device: str
    entry: ForwardingDatabaseEntry
    why: str

    @property
    def commands(self) -> tuple[list[str], ...]:
        """Return `bridge fdb delete`."""
        return (["bridge", "fdb", "delete", *_entry_words(self.device, self.entry)],)


def link_words(mtu: int | None, mac: str | None, tx_queue_length: int | None, master: str | None) -> list[str]:
    """Return the settings of a link, as `ip link` takes them."""
    words = [] if mtu is None else ["mtu", str(mtu)]
    words += [] if tx_queue_length is None else ["txqueuelen", str(tx_queue_length)]
    words += [] if mac is None else ["address", mac]
    return words + ([] if master is None else ["master", master])


def _entry_words(device: str, entry: ForwardingDatabaseEntry) -> list[str]:
    return [entry.mac, "dev", device, "dst", str(entry.destination), "self"]
