"""The network state of one namespace: read, and brought to the wanted state.

    wanted values → read the affected state → diff (pure) → apply, journalled

No state is cached: each call reads the kernel first. A change that is already in effect is neither made nor journalled.
"""

import threading
from collections.abc import Callable, Collection
from ipaddress import IPv6Interface
from typing import Self, TypeVar

from agent.errors import AgentError, NetlinkError
from agent.kernel import read
from agent.kernel.apply import Applier, sysctl_path
from agent.kernel.diff import diff
from agent.kernel.journal import Journal
from agent.kernel.namespace import HeldNamespace
from agent.kernel.values import (
    AssignedAddress,
    Family,
    ForwardingDatabaseEntry,
    IPAddress,
    IPInterface,
    Link,
    Route,
    State,
    Traffic,
    Wanted,
    WantedAddresses,
    WantedLink,
    WantedRoute,
    WantedSysctl,
)

Result = TypeVar("Result")


class Kernel:
    """One namespace. Usable from several threads; its calls run one after the other."""

    def __init__(self, journal: Journal, netns_pid: int | None = None) -> None:
        """Open the caller's own network namespace, or that of process `netns_pid`. Raises NetlinkError.

        A process that shares the caller's namespace is refused: it has not yet moved to its own, and its changes would
        be made here.
        """
        self.journal = journal
        try:
            self._namespace = HeldNamespace(netns_pid)
        except OSError as error:
            raise NetlinkError(f"enter the network namespace of process {netns_pid}: {error.strerror}") from error
        try:
            self._socket = self._namespace.run(read.open_socket)
        except BaseException as error:
            self._namespace.close()
            if isinstance(error, OSError):
                raise NetlinkError(f"open a netlink socket: {error.strerror}") from error
            raise
        self._using = threading.RLock()
        self._closed = False

    def close(self) -> None:
        """Release the namespace; safe to call twice."""
        with self._using:
            if not self._closed:
                self._closed = True
                self._socket.close()
                self._namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Whole states

    def converge(self, wanted: Wanted, new: Collection[str] = (), known: Collection[Link] = ()) -> None:
        """Bring the namespace to `wanted`, up to the first change that the kernel refuses.

        `new`: devices just created, which have no addresses, neighbours and routes yet. `known`: links just read.
        Raises NetlinkError and EnvironmentMissing.
        """
        with self._using:
            state = read.state_for(self._socket, wanted, new, known)
            self._applier(state).apply(diff(wanted, state))

    def converge_all(self, wanted: Wanted) -> list[AgentError]:
        """Bring the namespace to `wanted` as far as the kernel allows; return its refusals."""
        with self._using:
            try:
                state = read.state_for(self._socket, wanted)
                return self._applier(state).apply_all(diff(wanted, state))
            except NetlinkError as error:
                return [error]

    def _applier(self, state: State) -> Applier:
        return Applier(self._socket, self._namespace.run, self.journal, state.links)

    # Reads

    def links(self) -> tuple[Link, ...]:
        """Return every interface, by index. Raises NetlinkError, as all reads here."""
        with self._using:
            return read.links(self._socket)

    def link(self, name: str) -> Link | None:
        """Return the interface of that name, or None."""
        with self._using:
            return read.link(self._socket, name)

    def traffic(self, name: str) -> Traffic | None:
        """Return the traffic of the interface of that name, or None when there is none."""
        with self._using:
            return read.traffic(self._socket, name)

    def assigned_addresses(self, family: Family = 4) -> tuple[AssignedAddress, ...]:
        """Return the addresses of all interfaces, each interface's in the kernel's order."""
        with self._using:
            return read.assigned_addresses(self._socket, family)

    def own_addresses(self, *families: Family) -> frozenset[IPAddress]:
        """Return every address of these families that this machine has."""
        return frozenset(held.address.ip for family in families for held in self.assigned_addresses(family))

    def addresses(self, device: str, family: Family = 4) -> tuple[IPInterface, ...]:
        """Return the device's addresses in the kernel's order; empty when there is no such device.

        Without transient IPv6 addresses: temporary and deprecated ones.
        """
        with self._using:
            link = read.link(self._socket, device)
            held = () if link is None else read.assigned_addresses(self._socket, family)
        passing = family == 6
        return tuple(
            one.address
            for one in held
            if link is not None and one.device == link.index and not (passing and (one.temporary or one.deprecated))
        )

    def ipv6_addresses(self, device: str) -> frozenset[IPv6Interface]:
        """Return the device's permanent IPv6 addresses, including link-local ones; empty when there is no
        such device.
        """
        return frozenset(one for one in self.addresses(device, 6) if isinstance(one, IPv6Interface))

    def routes(self, family: Family = 4) -> frozenset[Route]:
        """Return the main table of a family."""
        with self._using:
            return read.routes(self._socket, family)

    def route_to(self, destination: IPAddress, *, entry: bool = False) -> Route | None:
        """Return the route that packets to `destination` take; see `read.route_to`."""
        with self._using:
            return read.route_to(self._socket, destination, entry=entry)

    def neighbours(self, device: str, family: Family = 4) -> dict[IPAddress, str]:
        """Return the device's permanent neighbours and their MAC addresses."""
        with self._using:
            link = read.link(self._socket, device)
            return {} if link is None else read.neighbours(self._socket, link, family)

    def unanswered_neighbours(self, device: str, family: Family) -> frozenset[IPAddress]:
        """Return the addresses on a device that failed to resolve to a MAC address."""
        with self._using:
            link = read.link(self._socket, device)
            return frozenset() if link is None else read.unanswered_neighbours(self._socket, link, family)

    def count_neighbours(self) -> tuple[int, int]:
        """Return (collectable, permanent) IPv4 entries of all devices."""
        with self._using:
            return read.count_neighbours(self._socket)

    def forwarding_database(self, device: str) -> frozenset[ForwardingDatabaseEntry]:
        """Return where a vxlan device sends packets, by destination MAC; empty when there is no such device."""
        with self._using:
            link = read.link(self._socket, device)
            return frozenset() if link is None else read.forwarding_database(self._socket, link)

    def bridge_port(self, bridge: str, mac: str) -> str | None:
        """Return the bridge port behind a MAC address; None when the bridge does not know it and floods."""
        with self._using:
            link = read.link(self._socket, bridge)
            index = None if link is None else read.bridge_port(self._socket, link, mac)
            port = None if index is None else read.link_at(self._socket, index)
            return None if port is None else port.name

    def read_sysctl(self, name: str) -> str | None:
        """Return the value, whitespace normalised; None if this kernel or namespace does not have it."""
        path = sysctl_path(name)
        try:
            return " ".join(self._namespace.run(path.read_text).split())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NetlinkError(f"sysctl {name}: {error.strerror}") from error

    def run_inside(self, function: Callable[[], Result]) -> Result:
        """Run a function in a thread in the namespace; return what it returns, or raise what it raises."""
        return self._namespace.run(function)

    # Single changes

    def delete_link(self, name: str, why: str) -> None:
        """Make sure that there is no link `name`."""
        self.converge(Wanted(no_links={name: why}))

    def set_up(self, name: str, why: str) -> None:
        """Make sure that the link is up."""
        self.converge(Wanted(links=(WantedLink(name, why, up=True),)))

    def set_down(self, name: str, why: str) -> None:
        """Make sure that the link is down."""
        self.converge(Wanted(links=(WantedLink(name, why, up=False),)))

    def ensure_addresses(self, device: str, wanted: Collection[IPInterface], why: str, family: Family = 4) -> None:
        """Leave exactly `wanted`, all of `family`, on the device."""
        self.converge(Wanted(addresses=(WantedAddresses(device, frozenset(wanted), why, family),)))

    def ensure_route(self, route: Route, why: str) -> None:
        """Make sure of the route, replacing any other to that destination with that metric."""
        self.converge(Wanted(routes=(WantedRoute(route, why),)))

    def delete_route(self, route: Route, why: str) -> None:
        """Make sure that the route is gone."""
        self.converge(Wanted(no_routes={route: why}))

    def delete_neighbour(self, device: str, address: IPAddress, why: str) -> None:
        """Make sure that there is no neighbour entry for `address` on the device."""
        self.converge(Wanted(no_neighbours={(device, address): why}))

    def sysctl(self, name: str, value: str, why: str, *, required: bool = True) -> None:
        """Make sure of a sysctl; do nothing if it is optional and missing."""
        self.converge(Wanted(sysctls=(WantedSysctl(name, value, why, required),)))
