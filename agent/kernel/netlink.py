"""Links, addresses, routes, neighbours and sysctls of one network namespace: read, and brought to what is wanted.

Nothing here remembers: each call asks the kernel first. A change that is already so is not made and not journalled;
one that somebody else made or undid in between («already there», «already gone») is success. Only this room
imports pyroute2. One Kernel may be used from several threads; its calls run one after the other.
"""

import errno
import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from typing import Any, TypeVar

from agent.kernel.netlink_library import KernelRefusal
from agent.kernel.netlink_links import ALREADY_GONE, ALREADY_THERE, NetlinkError
from agent.kernel.netlink_messages import PERMANENT, read_address, read_assigned_address, read_route
from agent.kernel.netlink_socket import RouteSocket
from agent.kernel.values import (
    ONLINK,
    ROUTE_KINDS,
    ROUTE_PROTOCOLS,
    ROUTE_SCOPES,
    AssignedAddress,
    Family,
    IPAddress,
    IPInterface,
    Link,
    Route,
)
from agent.kernel.wireguard import WireguardKernel

__all__ = ["Kernel", "Link", "NetlinkError", "Route"]

Address = TypeVar("Address", bound=IPAddress)

MAIN_TABLE = 254  # RT_TABLE_MAIN
ADDRESS_FAMILIES: Mapping[Family, int] = {4: 2, 6: 10}  # AF_INET, AF_INET6
NO_ARP = 0x40  # NUD_NOARP, linux/neighbour.h
FEW_NEIGHBOURS = 4
"""So many are asked for one by one: for a list the kernel goes through the neighbours of all namespaces."""
SYSCTL_BYTES = 4096
PASSING_ADDRESS = 0x01 | 0x20  # IFA_F_TEMPORARY | IFA_F_DEPRECATED, linux/if_addr.h
ADDRESS_WITHOUT_PROBING = 0x02  # IFA_F_NODAD, linux/if_addr.h


class Kernel(WireguardKernel):
    """The network state of one namespace; each change is journalled as the ip or sysctl command that does the same."""

    # Reads

    def addresses(self, device: str) -> frozenset[IPv4Interface]:
        """The device's IPv4 addresses with their prefix lengths; empty when there is no such device."""
        return frozenset(address for address in self._addresses(device, 4) if isinstance(address, IPv4Interface))

    def ipv6_addresses(self, device: str) -> frozenset[IPv6Interface]:
        """The device's lasting IPv6 addresses, link-local ones included; empty when there is no such device."""
        return frozenset(
            address for address in self._addresses(device, 6, lasting=True) if isinstance(address, IPv6Interface)
        )

    def assigned_addresses(self, family: Family = 4) -> tuple[AssignedAddress, ...]:
        """Return the addresses of all interfaces, each interface's in the kernel's order."""
        messages = self._read(
            f"ip -{family} address", lambda socket: list(socket.get_addr(family=ADDRESS_FAMILIES[family]))
        )
        return tuple(map(read_assigned_address, messages))

    def own_addresses(self, family: Family) -> frozenset[IPAddress]:
        """Return every address of the family that this machine has."""
        return frozenset(assigned.address.ip for assigned in self.assigned_addresses(family))

    def _addresses(self, device: str, family: Family, *, lasting: bool = False) -> frozenset[IPInterface]:
        link = self.link(device)
        if link is None:
            return frozenset()
        messages = self._read(
            f"ip -{family} address show {device}",
            lambda socket: list(socket.get_addr(family=ADDRESS_FAMILIES[family], index=link.index)),
        )
        passing = PASSING_ADDRESS if lasting else 0
        return frozenset(read_address(message) for message in messages if not message["flags"] & passing)

    def routes(self, family: Family = 4) -> frozenset[Route]:
        """The main table of a family."""
        names = {link.index: link.name for link in self.links()}
        messages = self._read(
            f"ip -{family} route",
            lambda socket: list(socket.get_routes(family=ADDRESS_FAMILIES[family], table=MAIN_TABLE)),
        )
        return frozenset(read_route(message, names) for message in messages)

    def route_towards(self, address: IPAddress) -> Route | None:
        """Return how packets to `address` leave, with the source that the kernel takes; None without a route."""
        names = {link.index: link.name for link in self.links()}
        try:
            found = self._ask(lambda socket: socket.route("get", dst=str(address)))
        except KernelRefusal:
            return None
        return read_route(found[0], names) if found else None

    def neighbours(self, device: str, family: Family = 4) -> dict[IPAddress, str]:
        """The device's permanent neighbours and their MAC addresses."""
        link = self.link(device)
        if link is None:
            return {}
        messages = self._read(
            f"ip -{family} neigh show dev {device}",
            lambda socket: list(socket.get_neighbours(family=ADDRESS_FAMILIES[family], ifindex=link.index)),
        )
        return {
            ip_address(message.get_attr("NDA_DST")): message.get_attr("NDA_LLADDR") or ""
            for message in messages
            if message["state"] & PERMANENT
        }

    def count_neighbours(self) -> tuple[int, int]:
        """(collectable, permanent) IPv4 entries of all devices: the kernel has one limit for the former everywhere."""
        messages = self._read(
            "ip -4 neigh", lambda socket: socket.get_neighbours(family=ADDRESS_FAMILIES[4], ifindex=0)
        )
        # Those that need no resolution (multicast, loopback) are never thrown away for want of room either.
        permanent = sum(bool(message["state"] & (PERMANENT | NO_ARP)) for message in messages)
        return len(messages) - permanent, permanent

    def read_sysctl(self, name: str) -> str | None:
        """The value, blanks normalised; None where this kernel or namespace does not have it."""
        path = _sysctl_path(name)
        try:
            return " ".join(self._namespace.run(path.read_text).split())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NetlinkError(f"sysctl {name}: {error.strerror}") from error

    # Links

    def create_bridge(self, name: str, *, mtu: int, mac: str | None = None, why: str) -> None:
        """Make sure that a bridge `name` exists with this MTU (bytes) and, if given, this MAC address."""
        command = ["ip", "link", "add", name, "mtu", str(mtu), *(["address", mac] if mac else []), "type", "bridge"]
        if self._exists(name, "bridge", command):
            self.set_mtu(name, mtu, why)
            if mac is not None:
                self.set_mac(name, mac, why)
            return
        options = {"address": mac} if mac else {}
        self._change(
            command,
            why,
            lambda socket: socket.link("add", ifname=name, kind="bridge", mtu=mtu, **options),
            ALREADY_THERE,
        )

    def create_veth(
        self,
        name: str,
        *,
        peer: str,
        peer_netns_pid: int | None = None,
        peer_netns_name: str | None = None,
        mtu: int,
        mac: str | None = None,
        peer_mac: str | None = None,
        why: str,
    ) -> None:
        """Make sure that a veth `name` exists; where it has to be made, `peer` goes into that process' namespace.

        `peer_netns_name`: what `ip netns` calls that namespace; the journal then has it instead of the process.
        """
        near: dict[str, object] = {"mtu": mtu} | ({"address": mac} if mac else {})
        far: dict[str, object] = {"ifname": peer, "mtu": mtu} | ({"address": peer_mac} if peer_mac else {})
        command = ["ip", "link", "add", name, "mtu", str(mtu), *(["address", mac] if mac else [])]
        command += ["type", "veth", "peer", "name", peer, "mtu", str(mtu), *(["address", peer_mac] if peer_mac else [])]
        if peer_netns_pid is not None:
            far["net_ns_pid"] = peer_netns_pid
            command += ["netns", peer_netns_name or str(peer_netns_pid)]
        if not self._exists(name, "veth", command):
            self._change(command, why, lambda socket: socket.link("add", ifname=name, kind="veth", peer=far, **near))

    def set_master(self, name: str, bridge: str, why: str) -> None:
        """Make sure that the link is a port of `bridge`."""
        command = ["ip", "link", "set", name, "master", bridge]
        master = self._link_or_raise(bridge, command)
        self._set_link(
            name, ["master", bridge], why, lambda link: link.master == master.index, {"master": master.index}
        )

    # Addresses, routes, neighbours, sysctls

    def ensure_addresses(self, device: str, wanted: Collection[IPInterface], why: str, family: Family = 4) -> None:
        """Leave exactly `wanted`, all of `family`, among the device's addresses. Adds before it deletes.

        IPv6 link-local addresses are the kernel's own and stay.
        """
        link = self._link_or_raise(device, ["ip", "address", "show", device])
        present = frozenset(
            address for address in self._addresses(device, family) if not (family == 6 and address.ip.is_link_local)
        )
        for address in sorted(set(wanted) - present, key=str):
            self._add_address(link, address, why)
        surplus = sorted(present - set(wanted), key=str)
        for address in surplus:
            command = ["ip", "address", "delete", str(address), "dev", device]
            parts = {"index": link.index, "address": str(address.ip), "prefixlen": address.network.prefixlen}
            self._change(command, why, partial(_delete_address, parts=parts), ALREADY_GONE)
        if surplus:
            # Deleting a primary address takes its secondaries along where promote_secondaries is off.
            for address in sorted(set(wanted) - self._addresses(device, family), key=str):
                self._add_address(link, address, why)

    def ensure_route(self, route: Route, why: str) -> None:
        """Make sure of the route, in place of any other to that destination with that metric."""
        if route not in self.routes(route.destination.version):
            self.replace_route(route, why)

    def replace_route(self, route: Route, why: str) -> None:
        """Put the route in, whether it is there or not; for those who have just looked at all routes."""
        command = ["ip", "route", "replace", *route.words()]
        parts = self._route_parts(route, command)
        if route.destination.version == 4:
            self._change(command, why, lambda socket: socket.route("replace", **parts))
            return
        # «Replace» of an IPv6 route adds a second path to one whose gateway is another.
        for other in self.routes(6):
            if (other.destination, other.metric) == (route.destination, route.metric) and other.protocol != "kernel":
                self.remove_route(other, why)
        self._change(command, why, lambda socket: socket.route("replace", **parts))

    def delete_route(self, route: Route, why: str) -> None:
        """Make sure that the route is gone."""
        if route in self.routes(route.destination.version):
            self.remove_route(route, why)

    def remove_route(self, route: Route, why: str) -> None:
        """Take the route out; for those who have just looked at all routes."""
        command = ["ip", "route", "delete", *route.words()]
        parts = self._route_parts(route, command)
        self._change(command, why, lambda socket: socket.route("del", **parts), ALREADY_GONE)

    def ensure_neighbour(self, device: str, address: IPAddress, mac: str, why: str) -> None:
        """Make sure of a permanent neighbour entry."""
        self.ensure_neighbours(device, {address: mac}, why)

    def ensure_neighbours(self, device: str, wanted: Mapping[Address, str], why: str) -> None:
        """Make sure of permanent neighbour entries, MAC by address, all of one family; others stay."""
        if not wanted:
            return
        command = ["ip", "neigh", "replace", "dev", device]
        index = self._link_or_raise(device, command).index
        present = self._neighbours_among(device, index, wanted)
        missing = {address: mac for address, mac in wanted.items() if present.get(address) != mac.lower()}
        if not missing:
            return
        entries = {str(address): mac for address, mac in missing.items()}
        try:
            self._ask(lambda socket: socket.replace_neighbours(index, entries))
        except KernelRefusal as error:
            raise NetlinkError(f"{' '.join(command)}: {error.args[-1]}") from error
        for address, mac in missing.items():
            command = ["ip", "neigh", "replace", str(address), "lladdr", mac, "dev", device, "nud", "permanent"]
            self.journal.record(command, why)

    def _neighbours_among(self, device: str, index: int, wanted: Collection[Address]) -> Mapping[IPAddress, str]:
        """Those of the wanted ones that are permanent neighbours already, perhaps others too."""
        if len(wanted) > FEW_NEIGHBOURS:
            return self.neighbours(device, next(iter(wanted)).version)
        found: dict[IPAddress, str] = {}
        for address in wanted:
            try:
                [message] = self._ask(partial(RouteSocket.get_neighbour, ifindex=index, address=str(address)))
            except KernelRefusal as error:
                if error.code in ALREADY_GONE:
                    continue
                raise NetlinkError(f"ip neigh get {address} dev {device}: {error.args[-1]}") from error
            if message["state"] & PERMANENT:
                found[address] = message.get_attr("NDA_LLADDR") or ""
        return found

    def delete_neighbour(self, device: str, address: IPAddress, why: str) -> None:
        """Make sure that there is no neighbour entry for `address` on the device."""
        link = self.link(device)
        if link is not None:
            command = ["ip", "neigh", "delete", str(address), "dev", device]
            parts: dict[str, Any] = {"dst": str(address), "ifindex": link.index}
            self._change(command, why, lambda socket: socket.neigh("del", **parts), ALREADY_GONE)

    def sysctl(self, name: str, value: str, why: str) -> None:
        """Make sure of a sysctl. Dots separate; an interface's own dot is written `/`, as for sysctl(8)."""
        if not self._write_sysctl(name, value, why):
            raise NetlinkError(f"sysctl -w {name}={value}: {os.strerror(errno.ENOENT)}")

    def sysctl_if_known(self, name: str, value: str, why: str) -> None:
        """The same where this kernel or namespace has it."""
        self._write_sysctl(name, value, why)

    def _write_sysctl(self, name: str, value: str, why: str) -> bool:
        """False: there is none of this name."""
        try:
            changed = self._namespace.run(lambda: _bring_to(_sysctl_path(name), value))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise NetlinkError(f"sysctl -w {name}={value}: {error.strerror}") from error
        if changed:
            self.journal.record(["sysctl", "-w", f"{name}={value}"], why)
        return True

    # Common ground

    def _add_address(self, link: Link, address: IPInterface, why: str) -> None:
        parts: dict[str, object] = {"index": link.index, "address": str(address.ip)}
        parts["prefixlen"] = address.network.prefixlen
        command = ["ip", "address", "add", str(address), "dev", link.name]
        if isinstance(address, IPv6Interface):
            # Nobody else can have an address of our own subnet: no probing, during which it could not be used.
            parts["flags"] = ADDRESS_WITHOUT_PROBING
            command.append("nodad")
        elif address.network.prefixlen < 31 and "BROADCAST" in link.flags:
            parts["broadcast"] = str(address.network.broadcast_address)
            command[4:4] = ["brd", "+"]
        self._change(command, why, lambda socket: socket.addr("add", **parts), ALREADY_THERE)

    def _route_parts(self, route: Route, command: Sequence[str]) -> dict[str, object]:
        parts: dict[str, object] = {
            "dst": str(route.destination),
            "table": MAIN_TABLE,
            "scope": ROUTE_SCOPES[route.scope],
            "type": ROUTE_KINDS[route.kind],
            "proto": ROUTE_PROTOCOLS[route.protocol],
            "family": ADDRESS_FAMILIES[route.destination.version],
            "flags": ONLINK if route.onlink else 0,
        }
        if route.device is not None:
            parts["oif"] = self._link_or_raise(route.device, command).index
        if route.gateway is not None:
            parts["gateway"] = str(route.gateway)
        if route.metric:
            parts["priority"] = route.metric
        if route.source is not None:
            parts["prefsrc"] = str(route.source)
        return parts


def _delete_address(socket: Any, parts: dict[str, object]) -> None:  # noqa: ANN401 - pyroute2 ships no types
    socket.addr("del", **parts)


def _sysctl_path(name: str) -> Path:
    swapped = name.translate(str.maketrans("./", "/."))
    # sysctl(8): whichever of the two comes first is the separator.
    slash_first = "/" in name and ("." not in name or name.index("/") < name.index("."))
    return Path("/proc/sys") / (name if slash_first else swapped)


def _bring_to(sysctl: Path, value: str) -> bool:
    """Whether it had another value. Opened once: to find one among those of all namespaces is most of the work."""
    try:
        descriptor = os.open(sysctl, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        # Nothing is to be written where it is so already.
        if sysctl.read_text().split() == value.split():
            return False
        raise
    try:
        if os.read(descriptor, SYSCTL_BYTES).decode().split() == value.split():
            return False
        os.pwrite(descriptor, f"{value}\n".encode(), 0)
    finally:
        os.close(descriptor)
    return True
