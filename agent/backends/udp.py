"""The udp backend: a TUN device whose packets travel as the payload of UDP datagrams between the nodes.

Kernel state, as with the real flanneld: device `flannel0` with the subnet's base address /32 and one route, the whole
network through that device; each node's own subnet has a more specific route through its bridge. Two more routes take
over only while the device is gone: one drops packets while the agent is dead (drop_device.py); the last, `unreachable`,
keeps pods' packets from leaving by the default gateway.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv4Network

from agent.backends.base import NO_LEAKS, OWN_ADDRESS, UDP_OVERHEAD, ForwardingEntry, Underlay
from agent.backends.drop_device import find_drop_device, make_drop_device, remove_drop_device, wanted_drop_device
from agent.backends.leftovers import remove_kernel_path, remove_other_devices, remove_subnet_routes
from agent.backends.subnet_routes import unreachable_route
from agent.datapath.counters import Counters, PacketCounters
from agent.datapath.forwarder import Forwarder, OwnNode
from agent.datapath.forwarding_table import ForwardingTable
from agent.datapath.pump import Pump, choose_datapath, make_pump
from agent.datapath.tun import TunDevice, open_tun
from agent.datapath.udp_socket import open_udp_socket
from agent.errors import EnvironmentMissing, NetlinkError
from agent.kernel.bridge import ipv6_sysctls
from agent.kernel.kernel import Kernel
from agent.kernel.values import Route, Wanted, WantedAddresses, WantedLink, WantedRoute, WantedSysctl
from agent.lease import Lease, LeaseAttrs
from agent.options.preconditions import check_tun

log = logging.getLogger(__name__)

DEVICE_PATTERN = "flannel%d"
TX_QUEUE_LENGTH = 1000  # packets; the TUN driver's 500 drop bursts


class UdpBackend:
    """Carries packets in user space; see `Backend` for its life. Methods may be called from several threads."""

    def __init__(self, network: IPv4Network, port: int, underlay: Underlay, kernel: Kernel, datapath: str) -> None:
        """Choose the data path: `datapath` is auto, native or python. Raises EnvironmentMissing."""
        check_tun()
        self.device = DEVICE_PATTERN
        self.on_trouble: Callable[[], None] = lambda: None
        self.datapath = choose_datapath(datapath)
        self.overlay_mtu = underlay.mtu - UDP_OVERHEAD
        self._network = network
        self._port = port
        self._underlay = underlay
        self._kernel = kernel
        self._tally = PacketCounters()
        remove_kernel_path(kernel, network)
        self._udp = open_udp_socket(underlay.address, port)
        self._forwarder: Forwarder | None = None
        self._tun: TunDevice | None = None
        self._pump: Pump | None = None
        self._decided = False
        """Whether peers have been set, or a fence."""
        self._drop_device: str | None = None
        self._lock = threading.Lock()

    def lease_attrs(self) -> LeaseAttrs:
        """Return what this node publishes; flannel omits the type for udp."""
        return LeaseAttrs(public_ip=self._underlay.public_ip)

    def start(self, lease: Lease) -> None:
        """Create device, address and routes for our subnet; packets queue there and in the socket until the first peers
        are set.

        A new agent knows no peers yet: it would refuse packets that it can carry a moment later. Raises
        EnvironmentMissing and NetlinkError.
        """
        with self._lock:
            self._drop_device = find_drop_device(self._kernel, self._network)
            remove_other_devices(self._kernel, self._network, keep=(self._drop_device or "",))
            remove_subnet_routes(self._kernel, self._network, lease.subnet.ipv4)
            node = OwnNode(lease.subnet.ipv4, self.overlay_mtu, self._port)
            self._forwarder = Forwarder(node, ForwardingTable({}))
            self._converge(self._forwarder)

    def set_peers(self, peers: Iterable[Lease]) -> None:
        """Carry packets to exactly these leases from now on, also after `fence`."""
        foreign = [lease for lease in peers if lease.attrs.public_ip != self._underlay.public_ip]
        self._replace_forwarder(ForwardingTable.from_leases(foreign, self._port), fenced=False)

    def converge_rules(self) -> None:
        """Do nothing: it has no rules of its own."""

    def fence(self) -> None:
        """Stop forwarding in both directions; packets are counted as `fenced`."""
        self._replace_forwarder(ForwardingTable({}), fenced=True)

    def converge(self) -> None:
        """Restore the device, its settings, the routes and the pump where they are missing or wrong.

        Raises EnvironmentMissing and NetlinkError.
        """
        with self._lock:
            if self._forwarder is not None:
                self._converge(self._forwarder)

    def forwarding_table(self) -> tuple[ForwardingEntry, ...]:
        """Return the active entries, sorted by subnet."""
        forwarder = self._forwarder
        table = () if forwarder is None else forwarder.table
        return tuple(ForwardingEntry(subnet, f"{endpoint.ip}:{endpoint.port}") for subnet, endpoint in table)

    def counters(self) -> Counters:
        """Return a consistent copy."""
        return self._tally.snapshot()

    def stop(self, *, for_good: bool = True) -> None:
        """Stop carrying packets and remove the device with its route; safe to call twice.

        Afterwards packets are dropped, or refused if stopped `for_good`. The `unreachable` route stays: until the next
        agent runs, pods' packets must not leave by the default gateway.
        """
        with self._lock:
            self._forwarder = None
            if for_good:
                try:
                    remove_drop_device(self._kernel, self._network, "the agent is stopped on purpose")
                except NetlinkError as error:
                    log.warning("%s", error)
            self._close_device()
            self._udp.close()

    def _replace_forwarder(self, table: ForwardingTable, *, fenced: bool) -> None:
        with self._lock:
            if self._forwarder is None:
                return
            self._forwarder = Forwarder(self._forwarder.node, table, fenced=fenced)
            first = not self._decided
            self._decided = True
            if self._pump is not None:
                self._pump.forwarder = self._forwarder
                if first:
                    self._start_first(self._pump)

    def _start_first(self, pump: Pump) -> None:
        try:
            self._start_pump(pump)
        except EnvironmentMissing as error:
            # Peers and fence are in force all the same; `converge` makes another pump.
            log.warning("%s", error)
            self.on_trouble()

    def _start_pump(self, pump: Pump) -> None:
        """Start it. Raises EnvironmentMissing if its threads cannot be started; there is no pump then."""
        try:
            pump.start()
        except RuntimeError as error:
            pump.stop()
            self._pump = None
            raise EnvironmentMissing(f"data path: {error} (want room below pids.max and ulimit -u)") from error

    def _converge(self, forwarder: Forwarder) -> None:
        failed = None if self._pump is None else self._pump.failed
        if failed is not None or self._tun is None or self._kernel.link(self.device) is None:
            if self._pump is not None:
                log.warning("%s: recreated: %s", self.device, failed or "the device was deleted")
            self._close_device()
            self._make_device()
        self._configure(forwarder.node)
        if self._pump is None and self._tun is not None:
            self._pump = make_pump(
                self.datapath, self._tun, self._udp, forwarder, self._tally, on_failure=lambda: self.on_trouble()
            )
            if self._decided:
                self._start_pump(self._pump)

    def _make_device(self) -> None:
        self._tun = open_tun(self.device, vnet_header=self.datapath == "native")
        self.device = self._tun.name
        command = ["ip", "tuntap", "add", "dev", self.device, "mode", "tun"]
        self._kernel.journal.record(command, "the agent reads packets routed to it and encapsulates them in UDP")

    def _close_device(self) -> None:
        if self._pump is not None:
            self._pump.stop()
            self._pump = None
        if self._tun is not None:
            self._tun.close()
            self._tun = None

    def _configure(self, node: OwnNode) -> None:
        """Bring the device and the routes to flannel's settings."""
        device, underlay = self.device, self._underlay
        headers = f"{underlay.interface} takes {underlay.mtu} bytes, the outer headers {UDP_OVERHEAD}"
        link = WantedLink(
            device,
            f"packets for other nodes' pods; {headers}; the queue holds bursts that the agent has not read yet",
            mtu=node.overlay_mtu,
            tx_queue_length=TX_QUEUE_LENGTH,
            up=True,
        )
        answers = "the agent sends ICMP errors from the device's address; it drops that source from peers"
        address = IPv4Interface((node.subnet.network_address, 32))
        if self._drop_device is None or self._kernel.link(self._drop_device) is None:
            self._drop_device = make_drop_device(self._kernel, address)
        self._kernel.converge(
            Wanted(
                links=(link,),
                sysctls=(
                    *ipv6_sysctls(device, enabled=False),
                    WantedSysctl(f"net/ipv4/conf/{device}/accept_local", "1", answers, device=device),
                ),
                addresses=(WantedAddresses(device, frozenset({address}), OWN_ADDRESS),),
                routes=(
                    WantedRoute(Route(self._network, device), "pods of other nodes are reached through the overlay"),
                    WantedRoute(unreachable_route(self._network), NO_LEAKS),
                ),
            )
            + wanted_drop_device(self._drop_device, self._network, address, node.overlay_mtu)
        )
