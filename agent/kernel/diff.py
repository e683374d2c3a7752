"""Compute the ordered changes that lead from a namespace's state to the wanted one. Pure.

Additions come before deletions, so that packets always have their routes; links come before whatever is on them, and a
device's sysctls before it is brought up. Only what `Wanted` names is changed; what others made stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface
from typing import Protocol, TypeVar

from agent.errors import NetlinkError
from agent.kernel.values import (
    ForwardingDatabaseEntry,
    IPAddress,
    IPInterface,
    Link,
    Route,
    State,
    TunnelSettings,
    VethPeer,
    VxlanSettings,
    Wanted,
    WantedAddresses,
    WantedForwarding,
    WantedLink,
    WantedNeighbours,
    WantedRoute,
)

T = TypeVar("T")


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
        words = ["ip", "link", "add", link.name, *_link_words(link.mtu, link.mac, link.tx_queue_length, link.master)]
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
        words = ["ip", "link", "set", self.name, *_link_words(self.mtu, self.mac, self.tx_queue_length, self.master)]
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


def diff(wanted: Wanted, state: State) -> list[Change]:
    """Return the changes that lead from `state` to `wanted`, in order.

    Raises NetlinkError for a missing link that others must create, or an existing one of another kind.
    """
    changes: list[Change] = [DeleteLink(name, why) for name, why in wanted.no_links.items() if name in state.links]
    state = replace(state, links={name: one for name, one in state.links.items() if name not in wanted.no_links})
    later: list[Change] = []
    with_sysctls = {sysctl.device for sysctl in wanted.sysctls}
    for link in wanted.links:
        made, then = _link_changes(link, state, held_down=link.name in with_sysctls)
        changes += made
        later += then
    changes += [WriteSysctl(one.name, one.value, one.why, one.required) for one in wanted.sysctls]
    for addresses in wanted.addresses:
        changes += _address_changes(addresses, state, wanted)
    changes += later
    for neighbours in wanted.neighbours:
        changes += _missing_neighbours(neighbours, state)
    for forwarding in wanted.forwarding:
        changes += _missing_forwarding(forwarding, state)
    for route in wanted.routes:
        changes += _route_changes(route, state)
    changes += _removals(wanted, state)
    return changes


def _link_changes(wanted: WantedLink, state: State, *, held_down: bool) -> tuple[list[Change], list[Change]]:
    """Return a link's immediate changes, and those after its sysctls and addresses."""
    link = state.links.get(wanted.name)
    if link is None and wanted.kind is None:
        asked = ["ip", "link", "set", wanted.name]
        asked += _link_words(wanted.mtu, wanted.mac, wanted.tx_queue_length, wanted.master)
        asked += [] if wanted.up is None else ["up" if wanted.up else "down"]
        raise NetlinkError(f"{' '.join(asked)}: no device {wanted.name}")
    if link is not None and wanted.kind is not None and link.kind != wanted.kind:
        raise NetlinkError(
            f"{wanted.name}: exists and is a {link.kind or 'hardware device'} (want none, or a {wanted.kind} device)"
        )
    changes: list[Change] = []
    if link is not None and not _has_settings(link, wanted):
        changes.append(DeleteLink(wanted.name, "its settings are wrong and cannot be changed"))
        link = None
    if link is None:
        now = replace(wanted, up=None if held_down else wanted.up)
        changes.append(AddLink(now, _name_of_underlay(wanted, state)))
        if wanted.alias is not None:
            # A new link has none from the kernel.
            changes.append(SetLink(wanted.name, wanted.why, alias=wanted.alias))
        later: list[Change] = [SetLink(wanted.name, wanted.why, up=True)] if held_down and wanted.up else []
        return changes, [SetHairpin(wanted.name, True, wanted.why), *later] if wanted.hairpin else later
    settings = SetLink(
        wanted.name,
        wanted.why,
        mtu=_if_different(wanted.mtu, link.mtu),
        mac=None if wanted.mac is None or wanted.mac.lower() == link.mac else wanted.mac,
        tx_queue_length=_if_different(wanted.tx_queue_length, link.tx_queue_length),
        master=_if_different(wanted.master, _name_of(state, link.master)),
        alias=_if_different(wanted.alias, link.alias),
    )
    up = _if_different(wanted.up, link.up)
    hairpin = wanted.hairpin is not None and (wanted.hairpin != link.hairpin or settings.master is not None)
    if not held_down:
        # Everything in one request.
        settings = replace(settings, up=up)
        up = None
    if settings != SetLink(wanted.name, wanted.why):
        changes.append(settings)
    then: list[Change] = [SetHairpin(wanted.name, bool(wanted.hairpin), wanted.why)] if hairpin else []
    if up is not None:
        then.append(SetLink(wanted.name, wanted.why, up=up))
    return changes, then


def _has_settings(link: Link, wanted: WantedLink) -> bool:
    return isinstance(wanted.settings, VethPeer | None) or link.settings == wanted.settings


def _name_of_underlay(wanted: WantedLink, state: State) -> str | None:
    return _name_of(state, wanted.settings.underlay) if isinstance(wanted.settings, VxlanSettings) else None


def _name_of(state: State, index: int) -> str | None:
    return next((link.name for link in state.links.values() if index and link.index == index), None)


def _if_different(wanted: T | None, present: T | None) -> T | None:
    return None if wanted == present else wanted


def _address_changes(wanted: WantedAddresses, state: State, everything: Wanted) -> Iterator[Change]:
    present = state.addresses.get((wanted.device, wanted.family), frozenset())
    link = state.links.get(wanted.device)
    # A bridge or veth yet to be made has broadcast; so does every kind of ours that is not a tunnel.
    made = next((one for one in everything.links if one.name == wanted.device), None)
    broadcasts = "BROADCAST" in link.flags if link is not None else made is not None and made.kind in ("bridge", "veth")

    def add(address: IPInterface) -> AddAddress:
        has_one = isinstance(address, IPv4Interface) and address.network.prefixlen < 31 and broadcasts
        return AddAddress(wanted.device, address, has_one, wanted.why)

    yield from (add(address) for address in sorted(wanted.addresses - present, key=str))
    surplus = sorted(present - wanted.addresses, key=str)
    yield from (DeleteAddress(wanted.device, address, wanted.why) for address in surplus)
    # Deleting a primary address also deletes its secondaries where promote_secondaries is off. Adding one that still
    # exists changes nothing.
    networks = {address.network for address in surplus}
    yield from (add(address) for address in sorted(wanted.addresses, key=str) if address.network in networks)


def _missing_neighbours(wanted: WantedNeighbours, state: State) -> Iterator[Change]:
    present = state.neighbours.get((wanted.device, wanted.family), {})
    missing = tuple((one, mac) for one, mac in wanted.entries.items() if present.get(one) != mac.lower())
    if missing:
        yield ReplaceNeighbours(wanted.device, missing, wanted.why)


def _missing_forwarding(wanted: WantedForwarding, state: State) -> Iterator[Change]:
    present = state.forwarding.get(wanted.device, frozenset())
    for mac, destination in wanted.entries.items():
        entry = ForwardingDatabaseEntry(mac.lower(), destination)
        if entry not in present:
            yield ReplaceForwarding(wanted.device, entry, wanted.why)


def _route_changes(wanted: WantedRoute, state: State) -> Iterator[Change]:
    route = wanted.route
    present = state.routes.get(route.destination.version, frozenset())
    if route in present:
        return
    if route.destination.version == 6:
        # `replace` adds a second path to an IPv6 route whose gateway differs.
        for other in sorted(present, key=str):
            if (other.destination, other.metric) == (route.destination, route.metric) and other.protocol != "kernel":
                yield DeleteRoute(other, wanted.why)
    yield ReplaceRoute(route, wanted.why)


def _removals(wanted: Wanted, state: State) -> Iterator[Change]:
    for route, why in wanted.no_routes.items():
        if route in state.routes.get(route.destination.version, frozenset()):
            yield DeleteRoute(route, why)
    for (device, address), why in wanted.no_neighbours.items():
        if device in state.links:
            yield DeleteNeighbour(device, address, why)
    for neighbours in wanted.neighbours:
        if neighbours.no_others is not None:
            present = state.neighbours.get((neighbours.device, neighbours.family), {})
            for address in sorted(present.keys() - neighbours.entries.keys(), key=str):
                yield DeleteNeighbour(neighbours.device, address, neighbours.no_others)
    for forwarding in wanted.forwarding:
        if forwarding.no_others is not None:
            keep = {ForwardingDatabaseEntry(mac.lower(), to) for mac, to in forwarding.entries.items()}
            for entry in sorted(state.forwarding.get(forwarding.device, frozenset()) - keep, key=str):
                yield DeleteForwarding(forwarding.device, entry, forwarding.no_others)


def _link_words(mtu: int | None, mac: str | None, tx_queue_length: int | None, master: str | None) -> list[str]:
    words = [] if mtu is None else ["mtu", str(mtu)]
    words += [] if tx_queue_length is None else ["txqueuelen", str(tx_queue_length)]
    words += [] if mac is None else ["address", mac]
    return words + ([] if master is None else ["master", master])


def _entry_words(device: str, entry: ForwardingDatabaseEntry) -> list[str]:
    return [entry.mac, "dev", device, "dst", str(entry.destination), "self"]
