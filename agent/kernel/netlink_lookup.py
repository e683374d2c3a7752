"""Questions to the kernel of one network namespace that change nothing: which route, which port of a bridge."""

import errno
from types import TracebackType
from typing import Any, Self

from agent.kernel.namespace import NamespaceThread
from agent.kernel.netlink_library import KernelRefusal, library_socket
from agent.kernel.netlink_messages import read_link, read_route
from agent.kernel.values import IPAddress, Link, Route

RTM_F_FIB_MATCH = 0x2000  # linux/rtnetlink.h: the table's entry, not what it comes to for this one address
FAMILIES = {4: 2, 6: 10}  # AF_INET, AF_INET6
MAIN_TABLE = 254  # RT_TABLE_MAIN
UNANSWERED = 0x01 | 0x20  # NUD_INCOMPLETE, NUD_FAILED, linux/neighbour.h
REFUSED = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ESRCH, errno.EINVAL, errno.EACCES})


class Lookups:
    """Asks the kernel of the caller's network namespace, or of that of process `netns_pid`. Raises OSError."""

    def __init__(self, netns_pid: int | None = None) -> None:
        self._thread = NamespaceThread(netns_pid)
        self._socket: Any = self._thread.run(library_socket)
        self._links: dict[int, Link] | None = None

    def close(self) -> None:
        """Let the namespace go."""
        self._thread.run(self._socket.close)
        self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def links(self) -> dict[int, Link]:
        """Every interface by index, as it was at the first question."""
        if self._links is None:
            found = self._thread.run(lambda: [read_link(message) for message in self._socket.get_links()])
            self._links = {link.index: link for link in found}
        return self._links

    def link(self, name: str) -> Link | None:
        """The interface of that name."""
        return next((link for link in self.links().values() if link.name == name), None)

    def route_to(self, destination: IPAddress) -> Route | None:
        """The entry of the routing tables that a packet to `destination` goes by, which may be one that refuses it;
        None when there is none. Raises OSError."""
        names = {link.index: link.name for link in self.links().values()}
        family = FAMILIES[destination.version]

        def ask() -> Route:
            found = self._socket.route("get", family=family, dst=str(destination), flags=RTM_F_FIB_MATCH)
            return read_route(found[0], names)

        try:
            return self._thread.run(ask)
        except KernelRefusal as refusal:
            if refusal.code in REFUSED:
                return self._refusing(destination, names)
            raise OSError(refusal.code, f"ip route get {destination}: {refusal.args[-1]}") from refusal

    def _refusing(self, destination: IPAddress, names: dict[int, str]) -> Route | None:
        """The most special entry of the main table that refuses it; the kernel tells only that there is one."""
        family = FAMILIES[destination.version]
        messages = self._thread.run(lambda: list(self._socket.get_routes(family=family, table=MAIN_TABLE)))
        fitting = [route for route in (read_route(one, names) for one in messages) if destination in route.destination]
        refusing = [route for route in fitting if route.kind in ("unreachable", "blackhole", "prohibit")]
        return max(refusing, key=lambda route: (route.destination.prefixlen, -route.metric), default=None)

    def is_silent(self, neighbour: IPAddress, device: str) -> bool:
        """Whether the kernel asked for the neighbour's MAC address on the device and got no answer."""
        link = self.link(device)
        if link is None:
            return False
        asked = {"family": FAMILIES[neighbour.version], "ifindex": link.index}
        messages = self._thread.run(lambda: list(self._socket.get_neighbours(**asked)))
        return any(
            message.get_attr("NDA_DST") == str(neighbour) and message["state"] & UNANSWERED for message in messages
        )

    def bridge_port(self, bridge: str, mac: str) -> str | None:
        """The port behind which a bridge knows a MAC address; None when it knows none and sends to all."""
        link = self.link(bridge)
        if link is None:
            return None
        messages = self._thread.run(lambda: list(self._socket.fdb("dump", master=link.index)))
        for message in messages:
            if message.get_attr("NDA_LLADDR") == mac:
                port = self.links().get(message["ifindex"])
                return port.name if port else None
        return None
