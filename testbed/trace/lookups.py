"""Read-only queries to the kernel of one network namespace: which route, which port of a bridge."""

from agent.kernel.journal import SilentJournal
from agent.kernel.kernel import Kernel
from agent.kernel.values import IPAddress, Link, Route

REFUSING = ("unreachable", "blackhole", "prohibit")


class Lookups:
    """Queries the kernel of the network namespace of process `netns_pid`, or of the caller's. Raises NetlinkError."""

    def __init__(self, netns_pid: int | None) -> None:
        self._kernel = Kernel(SilentJournal(), netns_pid)
        self._links: dict[int, Link] | None = None

    def close(self) -> None:
        """Release the namespace."""
        self._kernel.close()

    def links(self) -> dict[int, Link]:
        """Return every interface by index, as of the first query."""
        if self._links is None:
            self._links = {link.index: link for link in self._kernel.links()}
        return self._links

    def link(self, name: str) -> Link | None:
        """Return the interface of that name."""
        return next((link for link in self.links().values() if link.name == name), None)

    def route_to(self, destination: IPAddress) -> Route | None:
        """Return the routing table entry for a packet to `destination`, which may be one that refuses it; None if there
        is none.
        """
        return self._kernel.route_to(destination, entry=True) or self._refusing(destination)

    def main_route_to(self, destination: IPAddress) -> Route | None:
        """Return the main table's entry, even if a routing rule has precedence; None without one."""
        fitting = [route for route in self._kernel.routes(destination.version) if destination in route.destination]
        return max(fitting, key=lambda route: (route.destination.prefixlen, -route.metric), default=None)

    def _refusing(self, destination: IPAddress) -> Route | None:
        """Return the main table's entry if that refuses it; the kernel reports only its existence."""
        route = self.main_route_to(destination)
        return route if route is not None and route.kind in REFUSING else None

    def is_silent(self, neighbour: IPAddress, device: str) -> bool:
        """Report whether the kernel failed to resolve the neighbour's MAC address on the device."""
        return neighbour in self._kernel.unanswered_neighbours(device, neighbour.version)

    def bridge_port(self, bridge: str, mac: str) -> str | None:
        """Return the port behind a MAC address; None if the bridge does not know it and floods."""
        return self._kernel.bridge_port(bridge, mac)
