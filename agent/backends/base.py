"""The protocol of all backends. Backends take leases as values and never see etcd."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from agent.datapath.counters import Counters
from agent.kernel.values import IPNetwork
from agent.lease import Lease, LeaseAttrs

UDP_OVERHEAD = 20 + 8  # bytes: outer IPv4 header without options (RFC 791 §3.1) + UDP header (RFC 768)
OWN_ADDRESS = "the node's own address in the overlay, the base of its subnet"
NO_LEAKS = "packets to a node without a route must not leave by the default gateway"


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface that packets leave this node by, and the address that peers send to."""

    interface: str
    address: IPv4Address
    """The interface's own address; sockets are bound to it."""
    mtu: int
    """MTU of the interface, in bytes."""
    public_ip: IPv4Address
    """The address published in the lease; differs from `address` behind a one-to-one NAT."""
    ipv6_address: IPv6Address | None = None
    """The interface's own IPv6 address; None on an IPv4 network."""
    public_ipv6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class ForwardingEntry:
    """One line of a node's forwarding table, as people and tests read it."""

    subnet: IPNetwork
    via: str
    """Where packets for the subnet go, e.g. `192.168.8.228:8285`."""


class Backend(Protocol):
    """One way to carry packets between nodes.

    Life: `lease_attrs` before a lease exists → `start` with our lease → any number of `set_peers` and `converge` →
    `stop`. `set_peers` takes the whole wanted set and may be repeated with the same value.
    """

    on_trouble: Callable[[], None]
    """Called from any thread when `converge` is needed soon; to be set before `start`."""
    overlay_mtu: int
    """MTU of the overlay device and of pods, in bytes."""
    datapath: str
    """What moves the packets: `native`, `python`, `kernel`, `other` (programs of the operator) or `none`."""

    @property
    def device(self) -> str | None:
        """Return the overlay device's name, e.g. `flannel0`; final once `start` returned.

        None where packets leave by the underlay itself.
        """

    def lease_attrs(self) -> LeaseAttrs:
        """Return what this node publishes; create whatever must exist for that (a device with a MAC).

        Raises EnvironmentMissing when the machine does not support it.
        """

    def start(self, lease: Lease) -> None:
        """Create the device, its address and route, and start carrying packets.

        Raises EnvironmentMissing when the machine does not support it.
        """

    def set_peers(self, peers: Iterable[Lease]) -> None:
        """Carry packets to exactly these leases from now on. Our own lease is never among them."""

    def converge(self) -> None:
        """Restore whatever part of our kernel state is missing or wrong; twice is harmless."""

    def converge_rules(self) -> None:
        """Restore packet filter rules of the backend's own; most have none. Raises AgentError."""

    def fence(self) -> None:
        """Stop forwarding: another node owns our subnet. `set_peers` resumes it."""

    def forwarding_table(self) -> tuple[ForwardingEntry, ...]:
        """Return the active entries, sorted by subnet."""

    def counters(self) -> Counters | None:
        """Return a consistent copy; None where nothing is counted."""

    def stop(self, *, for_good: bool = True) -> None:
        """Stop carrying packets and release the device; safe to call twice.

        Without `for_good` a restart follows at once; until then packets may be lost, but are not refused.
        """
