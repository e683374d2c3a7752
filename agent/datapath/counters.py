"""What a data path carried, what it dropped, and why. The reasons are those of counters, metrics and tests."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class DropReason(StrEnum):
    """In the order of the checks; the last ones can occur only while carrying."""

    PEER = "peer"
    """The datagram's outer source is not a node that holds a lease, or its source port is not the overlay port."""
    SHORT = "short"
    """Fewer bytes than an IPv4 header has (20)."""
    VERSION = "version"
    """Not IPv4, e.g. an IPv6 packet."""
    IHL = "ihl"
    """The header length is below 20 bytes or beyond the packet's end."""
    LENGTH = "length"
    """The total length is below the header's or beyond the packet's end. (Bytes after it are cut off, without an
    error.)
    """
    GSO = "gso"
    """The virtio header describes an impossible segmentation. (Only the native data path reads it.)"""
    CHECKSUM = "checksum"
    """The IPv4 header checksum is wrong."""
    TTL = "ttl"
    """The packet's time to live is 0 already (RFC 2003 §3.1)."""
    TOO_LONG = "toolong"
    """The datagram is larger than our overlay MTU: the peer's underlay MTU is larger than ours."""
    SOURCE = "source"
    """The inner source is not inside the subnet that the sending peer holds."""
    DESTINATION = "destination"
    """The inner destination is not inside our own subnet, or is its broadcast address."""
    NEST = "nest"
    """The inner packet is itself UDP from and to the overlay port: the tunnel would carry the tunnel."""
    MULTICAST = "multicast"
    """A pod or this node sent to a multicast or broadcast address; the overlay carries unicast only."""
    OWN = "own"
    """A packet for our own subnet arrived at the overlay device: the bridge is gone. Its sender gets an ICMP error."""
    NO_ROUTE = "no_route"
    """No node holds a subnet with this destination. Its sender gets ICMP net unreachable."""
    FENCED = "fenced"
    """Another node owns our subnet: nothing is forwarded in either direction."""
    TUN_READ = "tun_read"
    """The kernel had a packet but failed to deliver it."""
    TUN_WRITE = "tun_write"
    """The kernel refused the packet, e.g. because the overlay device is down."""
    UDP_SEND = "udp_send"
    """The underlay refused the datagram, e.g. no buffer, no route, or a packet filter."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What a data path moved and what it refused; only ever grows."""

    tx_packets: int = 0
    """Inner packets that left in datagrams."""
    tx_bytes: int = 0
    rx_packets: int = 0
    """Inner packets that were handed to the kernel."""
    rx_bytes: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    """Packets that were not forwarded, by reason; every reason is listed, also at 0."""


class PacketCounters:
    """Counts what one node moved and dropped; outlives the pump, so that the numbers only ever grow.

    Written by the pump's thread, read by any. A pump that counts by itself attaches its own counters instead.
    """

    def __init__(self) -> None:
        self._moved = (0, 0, 0, 0)
        self.drops: dict[DropReason, int] = dict.fromkeys(DropReason, 0)
        self._attached: Callable[[], Counters] | None = None
        self._lock = threading.Lock()

    def add(self, tx_packets: int = 0, tx_bytes: int = 0, rx_packets: int = 0, rx_bytes: int = 0) -> None:
        """Count packets that were moved."""
        a, b, c, d = self._moved
        # One assignment, so that a reader never sees packets without their bytes.
        self._moved = (a + tx_packets, b + tx_bytes, c + rx_packets, d + rx_bytes)

    def attach(self, counters: Callable[[], Counters]) -> None:
        """Add the values of `counters` to every snapshot, until `detach`."""
        with self._lock:
            self._attached = counters

    def detach(self) -> None:
        """Keep the attached counters' current values, and stop reading them."""
        with self._lock:
            if self._attached is None:
                return
            last = self._attached()
            self._attached = None
            self.add(last.tx_packets, last.tx_bytes, last.rx_packets, last.rx_bytes)
            for reason in DropReason:
                self.drops[reason] += last.drops[reason]

    def snapshot(self) -> Counters:
        """Return a consistent copy."""
        with self._lock:
            more = Counters() if self._attached is None else self._attached()
            tx_packets, tx_bytes, rx_packets, rx_bytes = self._moved
            drops = {reason.value: count + more.drops.get(reason, 0) for reason, count in self.drops.items()}
        return Counters(
            tx_packets + more.tx_packets,
            tx_bytes + more.tx_bytes,
            rx_packets + more.rx_packets,
            rx_bytes + more.rx_bytes,
            drops,
        )
