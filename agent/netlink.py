"""Links, addresses, routes, neighbours and sysctls of one network namespace: read, and brought to what is wanted.

Nothing here remembers: each call asks the kernel first. A change that is already so is not made and not journalled;
one that somebody else made or undid in between («already there», «already gone») is success. The only module of the
agent that imports pyroute2. One Kernel may be used from several threads; its calls run one after the other.
"""

import errno
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted
from pyroute2.netlink.exceptions import NetlinkError as KernelRefusal

from agent.errors import AgentError
from agent.journal import Journal
from agent.namespace_thread import NamespaceThread, Result
from agent.netlink_messages import read_address, read_link, read_route
from agent.netlink_values import ONLINK, ROUTE_KINDS, ROUTE_PROTOCOLS, ROUTE_SCOPES, Link, Route

__all__ = ["Kernel", "Link", "NetlinkError", "Route"]

MAIN_TABLE = 254  # RT_TABLE_MAIN
IPV4 = 2  # AF_INET
PERMANENT = 0x80  # NUD_PERMANENT, linux/neighbour.h
ALREADY_THERE = frozenset({errno.EEXIST})
ALREADY_GONE = frozenset({errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL})
DUMP_ATTEMPTS = 10
"""A dump that the kernel's tables changed under is asked for again; so often in a row means something is very busy."""

Act = Callable[[Any], object]


class NetlinkError(AgentError):
    """The kernel refused a read or a change; the message is the command in words and the kernel's reason."""


class Kernel:
    """The network state of one namespace; each change is journalled as the ip or sysctl command that does the same."""

    def __init__(self, journal: Journal, netns_pid: int | None = None) -> None:
        """Open the caller's own network namespace, or that of process `netns_pid`. Raises NetlinkError.

        A process that shares the caller's namespace is refused: it has not yet moved to its own, and the changes
        meant for it would be made here.
        """
        self.journal = journal
        try:
            self._thread = NamespaceThread(netns_pid)
        except OSError as error:
            raise NetlinkError(f"enter the network namespace of process {netns_pid}: {error.strerror}") from error
        try:
            # pyroute2 keeps one socket per thread, opened where that thread is: all calls go through this one.
            self._socket = self._thread.run(lambda: IPRoute(groups=0))
        except BaseException as error:
            self._thread.close()
            if isinstance(error, OSError):
                raise NetlinkError(f"open a netlink socket: {error.strerror}") from error
            raise
        self._closed = False

    def close(self) -> None:
        """Let the namespace go; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._thread.run(self._socket.close)
            self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reads

    def links(self) -> tuple[Link, ...]:
        """Every interface, by index."""
        found = self._read("ip link", lambda socket: [read_link(message) for message in socket.get_links()])
        return tuple(sorted(found, key=lambda link: link.index))

    def link(self, name: str) -> Link | None:
        """The interface of that name, or None."""
        try:
            return self._thread.run(lambda: read_link(self._socket.link("get", ifname=name)[0]))
        except KernelRefusal as error:
            if error.code == errno.ENODEV:
                return None
            raise _refused(["ip", "link", "show", name], error) from error

    def addresses(self, device: str) -> frozenset[IPv4Interface]:
        """The device's IPv4 addresses with their prefix lengths; empty when there is no such device."""
        link = self.link(device)
        if link is None:
            return frozenset()
        messages = self._read(
            f"ip -4 address show {device}", lambda socket: list(socket.get_addr(family=IPV4, index=link.index))
        )
        return frozenset(read_address(message) for message in messages)

    def routes(self) -> frozenset[Route]:
        """The main IPv4 table."""
        names = {link.index: link.name for link in self.links()}
        messages = self._read("ip -4 route", lambda socket: list(socket.get_routes(family=IPV4, table=MAIN_TABLE)))
        return frozenset(read_route(message, names) for message in messages)

    def neighbours(self, device: str) -> dict[IPv4Address, str]:
        """The device's permanent IPv4 neighbours and their MAC addresses."""
        link = self.link(device)
        if link is None:
            return {}
        messages = self._read(
            f"ip -4 neigh show dev {device}",
            lambda socket: list(socket.get_neighbours(family=IPV4, ifindex=link.index)),
        )
        return {
            IPv4Address(message.get_attr("NDA_DST")): message.get_attr("NDA_LLADDR") or ""
            for message in messages
            if message["state"] & PERMANENT
        }

    def read_sysctl(self, name: str) -> str | None:
        """The value, blanks normalised; None where this kernel or namespace does not have it."""
        path = _sysctl_path(name)
        try:
            return " ".join(self._thread.run(path.read_text).split())
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
        mtu: int,
        mac: str | None = None,
        peer_mac: str | None = None,
        why: str,
    ) -> None:
        """Make sure that a veth `name` exists; where it has to be made, `peer` goes into that process' namespace."""
        near: dict[str, object] = {"mtu": mtu} | ({"address": mac} if mac else {})
        far: dict[str, object] = {"ifname": peer, "mtu": mtu} | ({"address": peer_mac} if peer_mac else {})
        command = ["ip", "link", "add", name, "mtu", str(mtu), *(["address", mac] if mac else [])]
        command += ["type", "veth", "peer", "name", peer, "mtu", str(mtu), *(["address", peer_mac] if peer_mac else [])]
        if peer_netns_pid is not None:
            far["net_ns_pid"] = peer_netns_pid
            command += ["netns", str(peer_netns_pid)]
        if not self._exists(name, "veth", command):
            self._change(command, why, lambda socket: socket.link("add", ifname=name, kind="veth", peer=far, **near))

    def delete_link(self, name: str, why: str) -> None:
        """Make sure that there is no link `name`."""
        link = self.link(name)
        if link is not None:
            command = ["ip", "link", "delete", name]
            self._change(command, why, lambda socket: socket.link("del", index=link.index), ALREADY_GONE)

    def set_up(self, name: str, why: str) -> None:
        """Make sure that the link is up."""
        self._set_link(name, ["up"], why, lambda link: link.up, {"state": "up"})

    def set_down(self, name: str, why: str) -> None:
        """Make sure that the link is down."""
        self._set_link(name, ["down"], why, lambda link: not link.up, {"state": "down"})

    def set_mtu(self, name: str, mtu: int, why: str) -> None:
        """Make sure of the link's MTU (bytes)."""
        self._set_link(name, ["mtu", str(mtu)], why, lambda link: link.mtu == mtu, {"mtu": mtu})

    def set_mac(self, name: str, mac: str, why: str) -> None:
        """Make sure of the link's MAC address."""
        self._set_link(name, ["address", mac], why, lambda link: link.mac == mac.lower(), {"address": mac})

    def set_tx_queue_length(self, name: str, packets: int, why: str) -> None:
        """Make sure of how many packets may wait for the link."""
        words = ["txqueuelen", str(packets)]
        self._set_link(name, words, why, lambda link: link.tx_queue_length == packets, {"txqlen": packets})

    def set_master(self, name: str, bridge: str, why: str) -> None:
        """Make sure that the link is a port of `bridge`."""
        command = ["ip", "link", "set", name, "master", bridge]
        master = self._link_or_raise(bridge, command)
        self._set_link(
            name, ["master", bridge], why, lambda link: link.master == master.index, {"master": master.index}
        )

    # Addresses, routes, neighbours, sysctls

    def ensure_addresses(self, device: str, wanted: Collection[IPv4Interface], why: str) -> None:
        """Leave exactly `wanted` among the device's IPv4 addresses. Adds before it deletes."""
        link = self._link_or_raise(device, ["ip", "address", "show", device])
        present = self.addresses(device)
        for address in sorted(set(wanted) - present):
            self._add_address(link, address, why)
        surplus = sorted(present - set(wanted))
        for address in surplus:
            command = ["ip", "address", "delete", str(address), "dev", device]
            parts = {"index": link.index, "address": str(address.ip), "prefixlen": address.network.prefixlen}
            self._change(command, why, partial(_delete_address, parts=parts), ALREADY_GONE)
        if surplus:
            # Deleting a primary address takes its secondaries along where promote_secondaries is off.
            for address in sorted(set(wanted) - self.addresses(device)):
                self._add_address(link, address, why)

    def ensure_route(self, route: Route, why: str) -> None:
        """Make sure of the route, in place of any other to that destination with that metric."""
        if route not in self.routes():
            command = ["ip", "route", "replace", *route.words()]
            parts = self._route_parts(route, command)
            self._change(command, why, lambda socket: socket.route("replace", **parts))

    def delete_route(self, route: Route, why: str) -> None:
        """Make sure that the route is gone."""
        if route in self.routes():
            command = ["ip", "route", "delete", *route.words()]
            parts = self._route_parts(route, command)
            self._change(command, why, lambda socket: socket.route("del", **parts), ALREADY_GONE)

    def ensure_neighbour(self, device: str, address: IPv4Address, mac: str, why: str) -> None:
        """Make sure of a permanent neighbour entry."""
        self.ensure_neighbours(device, {address: mac}, why)

    def ensure_neighbours(self, device: str, wanted: Mapping[IPv4Address, str], why: str) -> None:
        """Make sure of permanent neighbour entries, MAC by address; others stay."""
        present = self.neighbours(device)
        missing = {address: mac for address, mac in wanted.items() if present.get(address) != mac.lower()}
        index = self._link_or_raise(device, ["ip", "neigh", "replace", "dev", device]).index if missing else 0
        for address, mac in missing.items():
            command = ["ip", "neigh", "replace", str(address), "lladdr", mac, "dev", device, "nud", "permanent"]
            parts = {"dst": str(address), "lladdr": mac, "ifindex": index, "state": "permanent"}
            self._change(command, why, partial(_replace_neighbour, parts=parts))

    def sysctl(self, name: str, value: str, why: str) -> None:
        """Make sure of a sysctl. Dots separate; an interface's own dot is written `/`, as for sysctl(8)."""
        if self.read_sysctl(name) == " ".join(value.split()):
            return
        try:
            self._thread.run(lambda: _sysctl_path(name).write_text(f"{value}\n"))
        except OSError as error:
            raise NetlinkError(f"sysctl -w {name}={value}: {error.strerror}") from error
        self.journal.record(["sysctl", "-w", f"{name}={value}"], why)

    # Common ground

    def _add_address(self, link: Link, address: IPv4Interface, why: str) -> None:
        parts = {"index": link.index, "address": str(address.ip), "prefixlen": address.network.prefixlen}
        command = ["ip", "address", "add", str(address), "dev", link.name]
        if address.network.prefixlen < 31 and "BROADCAST" in link.flags:
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

    def _set_link(
        self, name: str, words: list[str], why: str, already: Callable[[Link], bool], parts: dict[str, object]
    ) -> None:
        command = ["ip", "link", "set", name, *words]
        link = self._link_or_raise(name, command)
        if not already(link):
            self._change(command, why, lambda socket: socket.link("set", index=link.index, **parts))

    def _exists(self, name: str, kind: str, command: Sequence[str]) -> bool:
        link = self.link(name)
        if link is not None and link.kind != kind:
            raise NetlinkError(f"{' '.join(command)}: {name} exists and is a {link.kind or 'hardware device'}")
        return link is not None

    def _link_or_raise(self, name: str, command: Sequence[str]) -> Link:
        link = self.link(name)
        if link is None:
            raise NetlinkError(f"{' '.join(command)}: there is no device {name}")
        return link

    def _read(self, what: str, read: Callable[[Any], Result]) -> Result:
        for _ in range(DUMP_ATTEMPTS):
            try:
                return self._thread.run(lambda: read(self._socket))
            except NetlinkDumpInterrupted:
                time.sleep(0.001)
            except KernelRefusal as error:
                raise _refused(what.split(), error) from error
        raise NetlinkError(f"{what}: changed {DUMP_ATTEMPTS} times while it was read")

    def _change(self, command: list[str], why: str, act: Act, settled: frozenset[int] = frozenset()) -> None:
        try:
            self._thread.run(lambda: act(self._socket))
        except KernelRefusal as error:
            if error.code in settled:
                return
            raise _refused(command, error) from error
        self.journal.record(command, why)


def _refused(command: Sequence[str], error: KernelRefusal) -> NetlinkError:
    return NetlinkError(f"{' '.join(command)}: {error.args[-1]}")


def _delete_address(socket: Any, parts: dict[str, object]) -> None:  # noqa: ANN401 - pyroute2 ships no types
    socket.addr("del", **parts)


def _replace_neighbour(socket: Any, parts: dict[str, object]) -> None:  # noqa: ANN401 - pyroute2 ships no types
    socket.neigh("replace", **parts)


def _sysctl_path(name: str) -> Path:
    swapped = name.translate(str.maketrans("./", "/."))
    # sysctl(8): whichever of the two comes first is the separator.
    slash_first = "/" in name and ("." not in name or name.index("/") < name.index("."))
    return Path("/proc/sys") / (name if slash_first else swapped)
