"""The one protocol that every way of carrying packets keeps. Backends take leases as values and never see etcd."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from agent.datapath.counters import Counters
from agent.kernel.values import IPNetwork
from agent.lease import Lease, LeaseAttrs

OWN_ADDRESS = "the node's own address in the overlay, the base of its subnet"
NO_LEAKS = "without a route to a peer nothing may leave by the default gateway"


@dataclass(frozen=True, slots=True)
class Underlay:
    """The interface that packets leave this node by, and the address that peers send to."""

    interface: str
    address: IPv4Address
    """The interface's own; sockets are bound to it."""
    mtu: int
    """Of the interface, in bytes."""
    public_ip: IPv4Address
    """What is published in the lease; differs from `address` behind a one-to-one NAT."""
    ipv6_address: IPv6Address | None = None
    """The interface's own; None on an IPv4 network, which needs none."""
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
        """The overlay device's name, e.g. `flannel0`; final once `start` returned.

        None where packets leave by the underlay itself.
        """

    def lease_attrs(self) -> LeaseAttrs:
        """What this node publishes; whatever must exist for that (a device that has a MAC) is made.

        Raises EnvironmentMissing when the machine cannot do it.
        """

    def start(self, lease: Lease) -> None:
        """Make the device, its address and route, and begin to carry packets.

        Raises EnvironmentMissing when the machine cannot do it.
        """

    def set_peers(self, peers: Iterable[Lease]) -> None:
        """Carry packets to exactly these leases from now on. Our own lease is never among them."""

    def converge(self) -> None:
        """Re-make whatever of our kernel state is missing or wrong; twice is harmless."""

    def fence(self) -> None:
        """Stop forwarding: another node owns our subnet. `set_peers` starts it again."""

    def forwarding_table(self) -> tuple[ForwardingEntry, ...]:
        """What is in force now, sorted by subnet."""

    def counters(self) -> Counters | None:
        """A consistent copy; None where nobody counts."""

    def stop(self, *, for_good: bool = True) -> None:
        """Stop carrying packets and let the device go; safe to call twice.

        Not `for_good`: the next start follows at once. Until then packets may be lost; they are not refused.
        """
