"""Reads links, addresses, routes, neighbours and forwarding entries through pyroute2, as our own values.

A socket stays in the namespace in which it was opened, in every thread. pyroute2's objects do not leave this file.
"""

import errno
import itertools
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from ipaddress import ip_address
from typing import TypeVar

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal

from agent.errors import NetlinkError
from agent.kernel.messages import (
    PERMANENT,
    Message,
    read_assigned_address,
    read_forwarding_entry,
    read_link,
    read_route,
)
from agent.kernel.values import (
    AssignedAddress,
    Family,
    ForwardingDatabaseEntry,
    IPAddress,
    Link,
    Route,
    State,
    Traffic,
    VxlanSettings,
    Wanted,
)

Result = TypeVar("Result")

ADDRESS_FAMILIES: Mapping[Family, int] = {4: 2, 6: 10}  # AF_INET, AF_INET6
BRIDGE_FAMILY = 7  # AF_BRIDGE: forwarding databases are dumped as neighbours of this family
MAIN_TABLE = 254  # RT_TABLE_MAIN
NO_ARP = 0x40  # NUD_NOARP
UNANSWERED = 0x01 | 0x20  # NUD_INCOMPLETE, NUD_FAILED
FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH, linux/rtnetlink.h: the table's entry, not its result for this one address
TRAFFIC_NAMES = tuple(item.name for item in fields(Traffic))

ALREADY_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL})
REFUSED_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESRCH, errno.EINVAL, errno.EACCES})
DUMP_ATTEMPTS = 10
"""A dump during which the kernel's tables changed is repeated; so many times in a row means constant changes."""
LARGEST_SEQUENCE_NUMBER = (1 << 32) - 1
"""This number and the one before are reserved for batches, which read their answers themselves."""
FEW = 4
"""Up to this many links or neighbours are queried one by one: a list of neighbours walks those of all namespaces."""


class SequenceNumbers:
    """A socket's request numbers, none used twice. pyroute2's own pool reuses them, holds back the last 255, and walks
    through these at each request: a sixth of the time to read a link.
    """

    def __init__(self) -> None:
        self._next = itertools.count()

    def alloc(self) -> int:
        """Return a number; never 0, which the kernel's own announcements have."""
        return next(self._next) % (LARGEST_SEQUENCE_NUMBER - 2) + 1

    def alloc_multi(self, count: int) -> list[int]:
        """Return several numbers."""
        return [self.alloc() for _ in range(count)]

    def free(self, number: int, ban: int = 0) -> None:
        """Do nothing: numbers are not reused."""


def open_socket() -> IPRoute:
    """Return a route socket in the calling thread's namespace. Raises OSError."""
    socket = IPRoute()
    socket.addr_pool = SequenceNumbers()
    return socket


def refused(what: str, error: KernelRefusal) -> NetlinkError:
    """Describe the kernel's refusal of a command."""
    return NetlinkError(f"{what}: {error.args[-1]}")


# --- one kind of object at a time


def links(socket: IPRoute) -> tuple[Link, ...]:
    """Return every interface, by index. Raises NetlinkError, as all reads here."""
    found = dump("ip link", lambda: [read_link(message) for message in socket.get_links()])
    return tuple(sorted(found, key=lambda link: link.index))


def link(socket: IPRoute, name: str) -> Link | None:
    """Return the interface of that name, or None."""
    return _link(socket, name, ifname=name)


def link_at(socket: IPRoute, index: int) -> Link | None:
    """Return the interface with that index, or None."""
    return _link(socket, f"#{index}", index=index)


def traffic(socket: IPRoute, name: str) -> Traffic | None:
    """Return the traffic of the interface of that name, or None when there is none."""
    message = _link_message(socket, name, ifname=name)
    counts = {} if message is None else message.get_attr("IFLA_STATS64") or {}
    return None if message is None else Traffic(**{name: counts.get(name, 0) for name in TRAFFIC_NAMES})


def _link(socket: IPRoute, shown: str, **asked: object) -> Link | None:
    message = _link_message(socket, shown, **asked)
    return None if message is None else read_link(message)


def _link_message(socket: IPRoute, shown: str, **asked: object) -> Message | None:
    try:
        message: Message = socket.link("get", **asked)[0]
    except KernelRefusal as error:
        if error.code == errno.ENODEV:
            return None
        raise refused(f"ip link show {shown}", error) from error
    return message


def assigned_addresses(socket: IPRoute, family: Family) -> tuple[AssignedAddress, ...]:
    """Return the addresses of all interfaces, each interface's in the kernel's order."""
    messages = dump(f"ip -{family} address", lambda: list(socket.get_addr(family=ADDRESS_FAMILIES[family])))
    return tuple(map(read_assigned_address, messages))


def routes(socket: IPRoute, family: Family) -> frozenset[Route]:
    """Return the main table of a family."""
    messages = _routes(socket, family)
    indices = {message.get_attr("RTA_OIF") for message in messages} - {None}
    found = links(socket) if len(indices) > FEW else [link_at(socket, index) for index in indices]
    names = {one.index: one.name for one in found if one is not None}
    return frozenset(read_route(message, names) for message in messages)


def _routes(socket: IPRoute, family: Family) -> list[Message]:
    asked = {"family": ADDRESS_FAMILIES[family], "table": MAIN_TABLE}
    return dump(f"ip -{family} route", lambda: list(socket.get_routes(**asked)))


def route_to(socket: IPRoute, destination: IPAddress, *, entry: bool = False) -> Route | None:
    """Return the route that packets to `destination` take, with the source that the kernel would choose; None if there
    is no route.

    `entry`: the table's entry instead, with its own destination. Also None for a route that refuses packets.
    """
    asked = {"family": ADDRESS_FAMILIES[destination.version], "dst": str(destination)}
    try:
        message = socket.route("get", **asked, flags=FIB_MATCH if entry else 0)[0]
    except KernelRefusal as error:
        if error.code in REFUSED_ROUTE:
            return None
        raise refused(f"ip route get {destination}", error) from error
    device = link_at(socket, message.get_attr("RTA_OIF")) if message.get_attr("RTA_OIF") else None
    return read_route(message, {device.index: device.name} if device is not None else {})


def neighbours(socket: IPRoute, device: Link, family: Family) -> dict[IPAddress, str]:
    """Return a device's permanent neighbours: MAC by address."""
    return {
        ip_address(message.get_attr("NDA_DST")): message.get_attr("NDA_LLADDR") or ""
        for message in _neighbours(socket, device, family)
        if message["state"] & PERMANENT
    }


def unanswered_neighbours(socket: IPRoute, device: Link, family: Family) -> frozenset[IPAddress]:
    """Return the addresses on a device that failed to resolve to a MAC address."""
    found = [message for message in _neighbours(socket, device, family) if message["state"] & UNANSWERED]
    return frozenset(ip_address(message.get_attr("NDA_DST")) for message in found)


def neighbours_among(socket: IPRoute, device: Link, wanted: Collection[IPAddress]) -> dict[IPAddress, str]:
    """Return those of the wanted addresses that are permanent neighbours already, and perhaps others."""
    if len(wanted) > FEW:
        return neighbours(socket, device, next(iter(wanted)).version)
    found: dict[IPAddress, str] = {}
    for address in wanted:
        try:
            [message] = socket.neigh("get", dst=str(address), ifindex=device.index)
        except KernelRefusal as error:
            if error.code in ALREADY_GONE:
                continue
            raise refused(f"ip neigh get {address} dev {device.name}", error) from error
        if message["state"] & PERMANENT:
            found[address] = message.get_attr("NDA_LLADDR") or ""
    return found


def count_neighbours(socket: IPRoute) -> tuple[int, int]:
    """Return (collectable, permanent) IPv4 entries of all devices; the kernel has one limit for the former."""
    messages = dump("ip -4 neigh", lambda: list(socket.get_neighbours(family=ADDRESS_FAMILIES[4])))
    # Entries without resolution (multicast, loopback) are never evicted either.
    permanent = sum(bool(message["state"] & (PERMANENT | NO_ARP)) for message in messages)
    return len(messages) - permanent, permanent


def forwarding_database(socket: IPRoute, device: Link) -> frozenset[ForwardingDatabaseEntry]:
    """Return where a vxlan device sends packets, by destination MAC."""
    what = f"bridge fdb show dev {device.name}"
    messages = dump(what, lambda: list(socket.get_neighbours(family=BRIDGE_FAMILY, ifindex=device.index)))
    entries = [read_forwarding_entry(message) for message in messages]
    return frozenset(entry for entry in entries if entry is not None)


def bridge_port(socket: IPRoute, bridge: Link, mac: str) -> int | None:
    """Return the index of the bridge port behind a MAC address; None when the bridge does not know it."""
    messages = dump(f"bridge fdb show br {bridge.name}", lambda: list(socket.fdb("dump", master=bridge.index)))
    return next((int(one["ifindex"]) for one in messages if one.get_attr("NDA_LLADDR") == mac), None)


def _neighbours(socket: IPRoute, device: Link, family: Family) -> list[Message]:
    asked = {"family": ADDRESS_FAMILIES[family], "ifindex": device.index}
    return dump(f"ip -{family} neigh show dev {device.name}", lambda: list(socket.get_neighbours(**asked)))


# --- the state that a wanted state covers


def state_for(socket: IPRoute, wanted: Wanted, new: Collection[str] = (), known: Collection[Link] = ()) -> State:
    """Return the part of the namespace's state that `wanted` covers.

    `new`: devices just created, which have no addresses, neighbours and routes yet. `known`: links just read. Devices
    that `wanted` does not name are not distinguished in routes.
    """
    found = _links_for(socket, wanted, known)
    old = {name: one for name, one in found.items() if name not in new}
    assigned = {
        family: assigned_addresses(socket, family)
        for family in sorted({one.family for one in wanted.addresses if one.device in old})
    }
    names = {one.index: one.name for one in found.values()}
    families = {one.route.destination.version for one in wanted.routes if one.route.device not in new}
    families |= {route.destination.version for route in wanted.no_routes}
    return State(
        links=found,
        addresses={
            (one.device, one.family): frozenset(
                held.address
                for held in assigned[one.family]
                if held.device == old[one.device].index and not (one.family == 6 and held.address.ip.is_link_local)
            )
            for one in wanted.addresses
            if one.device in old
        },
        routes={
            family: frozenset(read_route(message, names) for message in _routes(socket, family))
            for family in sorted(families)
        },
        neighbours={
            (one.device, one.family): (
                neighbours_among(socket, old[one.device], one.entries)
                if one.no_others is None
                else neighbours(socket, old[one.device], one.family)
            )
            for one in wanted.neighbours
            if one.device in old
        },
        forwarding={
            one.device: forwarding_database(socket, old[one.device]) for one in wanted.forwarding if one.device in old
        },
    )


def _links_for(socket: IPRoute, wanted: Wanted, known: Collection[Link]) -> dict[str, Link]:
    names = {one.name for one in wanted.links} | {one.master for one in wanted.links if one.master}
    names |= {*wanted.no_links, *(device for device, _ in wanted.no_neighbours)}
    names |= {one.device for one in wanted.addresses}
    names |= {one.device for one in wanted.neighbours} | {one.device for one in wanted.forwarding}
    names |= {route.device for route in (*wanted.no_routes, *(one.route for one in wanted.routes)) if route.device}
    below = {one.settings.underlay for one in wanted.links if isinstance(one.settings, VxlanSettings)}
    names -= {one.name for one in known}
    if len(names) + len(below) > FEW:
        found = [one for one in links(socket) if one.name in names or one.index in below]
    else:
        asked = [*(link(socket, name) for name in sorted(names)), *(link_at(socket, index) for index in below)]
        found = [one for one in asked if one is not None]
    return {one.name: one for one in (*known, *found)}


def dump(what: str, ask: Callable[[], Result]) -> Result:
    """Return the result of `ask`, repeated if the tables changed meanwhile. Raises NetlinkError."""
    for _ in range(DUMP_ATTEMPTS):
        try:
            return ask()
        except NetlinkDumpInterrupted:
            time.sleep(0.001)
        except KernelRefusal as error:
            raise refused(what, error) from error
    raise NetlinkError(f"{what}: changed {DUMP_ATTEMPTS} times while being read")
