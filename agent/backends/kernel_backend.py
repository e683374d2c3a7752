"""Backends whose packets the kernel carries; the agent only maintains devices, routes, neighbours and forwarding
entries.

One class for all of them; what differs is a `Plan`. Packets flow without the agent, so `stop` leaves everything in
place, as flannel does; `cleanup` removes it.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from agent.backends.base import NO_LEAKS, ForwardingEntry, Underlay
from agent.backends.entries import OverlayDevice, PeerEntries, wanted_entries
from agent.backends.fou_rules import FouRules
from agent.backends.leftovers import remove_other_devices
from agent.backends.subnet_routes import is_subnet_route, unreachable_route
from agent.datapath.counters import Counters
from agent.errors import AgentError, NetlinkError
from agent.kernel.kernel import Kernel
from agent.kernel.values import Family, IPNetwork, Route, Wanted, WantedRoute
from agent.lease import Lease, LeaseAttrs, Subnet
from agent.netconfig.config import NetworkConfig

log = logging.getLogger(__name__)


class Plan(Protocol):
    """The kernel state that one kind of backend needs."""

    name: str
    """The backend type."""
    overlay_mtu: int
    """MTU for pods, in bytes."""

    @property
    def rules(self) -> FouRules | None:
        """Return the packet filter that belongs to its devices and counts by reason; most have none."""

    @property
    def devices(self) -> tuple[OverlayDevice, ...]:
        """Return the plan's overlay devices, IPv4 first; none where packets leave by the underlay itself."""

    def lease_attrs(self) -> LeaseAttrs:
        """Return what this node publishes; create whatever must exist for that.

        Raises EnvironmentMissing, NetlinkError.
        """

    def converge_devices(self, own: Subnet) -> None:
        """Make sure of the devices, with their settings and addresses. Raises EnvironmentMissing, NetlinkError."""

    def peer_entries(self, lease: Lease, routes: Collection[Route]) -> tuple[PeerEntries, ...]:
        """Return the kernel's entries for a peer, per family; `routes` are the main tables now.

        Raises ValueError with the lease's problem.
        """

    def converge_peers(self, peers: Collection[Lease]) -> None:
        """Do what a peer needs beside `peer_entries`. Raises NetlinkError."""

    def remove_devices(self) -> None:
        """Remove, at a stop, what must not outlive the agent."""


class KernelBackend:
    """Carries packets by means of kernel state; see `Backend`. Methods may be called from several threads."""

    def __init__(self, plan: Plan, config: NetworkConfig, underlay: Underlay, kernel: Kernel) -> None:
        self.device: str | None = plan.devices[0].name if plan.devices else None
        self.on_trouble: Callable[[], None] = lambda: None
        self.overlay_mtu = plan.overlay_mtu
        self.datapath = "kernel"
        self._plan = plan
        self._config = config
        self._underlay = underlay
        self._kernel = kernel
        self._own: Subnet | None = None
        self._peers: tuple[Lease, ...] = ()
        self._known = False
        """Whether peers have been set; until then an earlier run's entries carry packets and stay."""
        self._table: tuple[ForwardingEntry, ...] = ()
        self._ignored: set[tuple[Subnet, str]] = set()
        """Leases that were reported as unusable, and why."""
        self._lock = threading.RLock()

    def lease_attrs(self) -> LeaseAttrs:
        """Return what this node publishes. Raises EnvironmentMissing and NetlinkError."""
        with self._lock:
            return self._plan.lease_attrs()

    def start(self, lease: Lease) -> None:
        """Create the devices; an earlier run's entries for peers stay until `set_peers`.

        Raises EnvironmentMissing and NetlinkError.
        """
        with self._lock:
            self._own = lease.subnet
            for network, _, _ in self._families():
                remove_other_devices(self._kernel, network, keep=[device.name for device in self._plan.devices])
            self._plan.converge_devices(lease.subnet)
            self._ensure_last_resort()

    def set_peers(self, peers: Iterable[Lease]) -> None:
        """Carry packets to exactly these leases from now on; leases of another backend type are ignored."""
        with self._lock:
            leases = tuple(peers)
            present = {lease.subnet for lease in leases}
            # A lease that returns is reported again, and one that is gone takes no memory.
            self._ignored = {(subnet, why) for subnet, why in self._ignored if subnet in present}
            self._peers = tuple(lease for lease in leases if self._concerns_us(lease))
            self._known = True
            self._converge_or_call()

    def fence(self) -> None:
        """Stop forwarding to other nodes."""
        with self._lock:
            self._peers = ()
            self._known = True
            self._converge_or_call()

    def converge(self) -> None:
        """Restore whatever is missing or wrong. Raises EnvironmentMissing and NetlinkError, after all else is done."""
        with self._lock:
            if self._own is None:
                return
            self._plan.converge_devices(self._own)
            self._ensure_last_resort()
            if self._known:
                self._converge_entries(self._own)

    def converge_rules(self) -> None:
        """Restore the plan's own rules. Raises FirewallError and EnvironmentMissing."""
        with self._lock:
            if self._plan.rules is not None:
                self._plan.rules.restore()

    def forwarding_table(self) -> tuple[ForwardingEntry, ...]:
        """Return the active entries, sorted by subnet."""
        return self._table

    def counters(self) -> Counters | None:
        """Return the traffic of the overlay devices; None without one: the kernel does not count by network."""
        if self._plan.rules is not None:
            return self._plan.rules.counters()
        if not self._plan.devices:
            return None
        asked = [self._kernel.traffic(device.name) for device in self._plan.devices]
        found = [traffic for traffic in asked if traffic is not None]
        drops: Mapping[str, int] = {
            "device_tx": sum(traffic.tx_dropped + traffic.tx_errors for traffic in found),
            "device_rx": sum(traffic.rx_dropped + traffic.rx_errors for traffic in found),
        }
        return Counters(
            tx_packets=sum(traffic.tx_packets for traffic in found),
            tx_bytes=sum(traffic.tx_bytes for traffic in found),
            rx_packets=sum(traffic.rx_packets for traffic in found),
            rx_bytes=sum(traffic.rx_bytes for traffic in found),
            drops=drops,
        )

    def stop(self, *, for_good: bool = True) -> None:
        """Stop, and leave in place what carries packets without us. Safe to call twice."""
        with self._lock:
            self._own = None
            if not for_good:
                return
            try:
                self._plan.remove_devices()
            except NetlinkError as error:
                log.warning("%s", error)

    def _concerns_us(self, lease: Lease) -> bool:
        kind = lease.attrs.backend_type or "udp"
        if kind != self._plan.name:
            self._ignore(lease, f"of backend type {kind}")
        return kind == self._plan.name

    def _ignore(self, lease: Lease, why: str) -> None:
        if (lease.subnet, why) not in self._ignored:
            self._ignored.add((lease.subnet, why))
            log.warning("lease %s of %s ignored: %s", lease.subnet, lease.attrs.public_ip, why)

    def _converge_or_call(self) -> None:
        """Converge from any other thread; on failure call the thread that waits for trouble."""
        try:
            if self._own is not None:
                self._converge_entries(self._own)
        except (AgentError, OSError) as error:
            log.warning("%s", error)
            self.on_trouble()

    def _ensure_last_resort(self) -> None:
        last_resorts = [WantedRoute(unreachable_route(network), NO_LEAKS) for network, _, _ in self._families()]
        self._kernel.converge(Wanted(routes=tuple(last_resorts)))

    def _families(self) -> list[tuple[IPNetwork, int, Family]]:
        """Return network and subnet length of each family."""
        config = self._config
        found: list[tuple[IPNetwork, int, Family]] = [(config.network, config.subnet_len, 4)]
        if config.ipv6_network is not None and config.ipv6_subnet_len is not None:
            found.append((config.ipv6_network, config.ipv6_subnet_len, 6))
        return found

    def _converge_entries(self, own: Subnet) -> None:
        families = self._families()
        routes = frozenset().union(*(self._kernel.routes(family) for _, _, family in families))
        usable: list[Lease] = []
        entries: list[PeerEntries] = []
        for lease in self._peers:
            try:
                entries += self._plan.peer_entries(lease, routes)
            except ValueError as error:
                self._ignore(lease, str(error))
            else:
                usable.append(lease)
        devices = {self._underlay.interface, *(device.name for device in self._plan.devices)}

        def ours(route: Route) -> bool:
            return route.destination not in (own.ipv4, own.ipv6) and any(
                is_subnet_route(route, network, length, devices) for network, length, _ in families
            )

        self._plan.converge_peers(usable)
        refused = self._kernel.converge_all(wanted_entries(entries, self._plan.devices, routes, ours))
        self._table = tuple(ForwardingEntry(entry.subnet, entry.via) for entry in entries)
        if refused:
            more = f"; and {len(refused) - 3} more" if refused[3:] else ""
            raise NetlinkError("; ".join(map(str, refused[:3])) + more)
