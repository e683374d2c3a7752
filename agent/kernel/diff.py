"""Compute the ordered changes that lead from a namespace's state to the wanted one. Pure.

Additions come before deletions, so that packets always have their routes; links come before whatever is on them, and a
device's sysctls before it is brought up. Only what `Wanted` names is changed; what others made stays.
"""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import TypeVar

from agent.errors import NetlinkError
from agent.kernel.changes import (
    AddAddress,
    AddLink,
    Change,
    DeleteAddress,
    DeleteForwarding,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    ReplaceForwarding,
    ReplaceNeighbours,
    ReplaceRoute,
    SetHairpin,
    SetLink,
    WriteSysctl,
    link_words,
)
from agent.kernel.values import (
    ForwardingDatabaseEntry,
    IPInterface,
    Link,
    State,
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
        asked += link_words(wanted.mtu, wanted.mac, wanted.tx_queue_length, wanted.master)
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
