"""The overlay data path without IO: one packet in, one action out. Never blocks, reads no clock, keeps no state.

    from_tun   a packet that the kernel routed to the overlay device: find the node that holds its destination.
    from_udp   a datagram from the underlay: check that this peer may send it, then hand it to the kernel.

The payload of a datagram is the inner IPv4 packet and nothing else. Nothing in it is changed: the TTL belongs to the
two kernels that forward it (RFC 2003 §3.1), checksums and ECN bits to its ends. This is the readable reference.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import NamedTuple

from agent.datapath.counters import DropReason
from agent.datapath.forwarding_table import ForwardingTable, TunnelEndpoint
from agent.datapath.packet import (
    UDP,
    IPv4Header,
    header_checksum_is_right,
    is_multicast_or_broadcast,
    net_unreachable,
    parse_ipv4,
)


class SendDatagram(NamedTuple):
    """Send the packet to a peer."""

    payload: bytes
    endpoint: TunnelEndpoint


class WriteToTun(NamedTuple):
    """Hand the packet to the kernel."""

    packet: bytes
    answers: DropReason | None = None
    """Set when this is an ICMP error, not the received packet: why that packet was dropped."""


class Drop(NamedTuple):
    """Forget the packet and count the reason."""

    reason: DropReason


_DROP = {reason: Drop(reason) for reason in DropReason}


@dataclass(frozen=True, slots=True)
class OwnNode:
    """The forwarder's own node."""

    subnet: IPv4Network
    overlay_mtu: int
    """In bytes: the largest inner packet."""
    port: int
    """UDP port of the overlay, the same on every node."""


class Forwarder:
    """Decides about packets for one node with one forwarding table; immutable, so it is replaced as a whole."""

    __slots__ = ("_broadcast", "_mask", "_network", "_overlay_ports", "fenced", "node", "table")

    def __init__(self, node: OwnNode, table: ForwardingTable, *, fenced: bool = False) -> None:
        """Take the node and its table; `fenced` drops everything, because another node owns our subnet."""
        self.node = node
        self.table = table
        self.fenced = fenced
        self._network = int(node.subnet.network_address)
        self._mask = int(node.subnet.netmask)
        self._broadcast = int(node.subnet.broadcast_address)
        self._overlay_ports = 2 * node.port.to_bytes(2, "big")

    def from_tun(self, packet: bytes) -> SendDatagram | WriteToTun | Drop:
        """Decide about a packet that the kernel sent into the overlay. Its checksum was made by the kernel."""
        header = parse_ipv4(packet)
        if isinstance(header, DropReason):
            return _DROP[header]
        if header.ttl == 0:
            return _DROP[DropReason.TTL]
        if self.fenced:
            return _DROP[DropReason.FENCED]
        destination = header.destination
        if header.protocol == UDP and self._is_nested(packet, header):
            return _DROP[DropReason.NEST]
        endpoint = self.table.lookup(destination)
        if endpoint is not None and destination & self._mask != self._network:
            return SendDatagram(packet, endpoint)
        if is_multicast_or_broadcast(destination):
            return _DROP[DropReason.MULTICAST]
        reason = DropReason.OWN if destination & self._mask == self._network else DropReason.NO_ROUTE
        return self._unreachable(packet, header, reason)

    def from_udp(self, datagram: bytes, source: tuple[str, int], truncated: bool = False) -> WriteToTun | Drop:
        """Decide about a datagram from `source`; `truncated` means that its end was cut off."""
        subnets = self.table.subnets_of(source)
        if subnets is None:
            return _DROP[DropReason.PEER]
        header = parse_ipv4(datagram, truncated=truncated)
        if isinstance(header, DropReason):
            return _DROP[header]
        if not header_checksum_is_right(datagram, header.length):
            return _DROP[DropReason.CHECKSUM]
        if header.ttl == 0:
            return _DROP[DropReason.TTL]
        if truncated or len(datagram) > self.node.overlay_mtu:
            return _DROP[DropReason.TOO_LONG]
        for network, mask in subnets:
            if header.source & mask == network:
                break
        else:
            return _DROP[DropReason.SOURCE]
        # The subnet's base address is the overlay device's own, so it is valid.
        if header.destination & self._mask != self._network or header.destination == self._broadcast:
            return _DROP[DropReason.DESTINATION]
        if header.protocol == UDP and self._is_nested(datagram, header):
            return _DROP[DropReason.NEST]
        if self.fenced:
            return _DROP[DropReason.FENCED]
        return WriteToTun(datagram if len(datagram) == header.total_length else datagram[: header.total_length])

    def _is_nested(self, packet: bytes, header: IPv4Header) -> bool:
        """Report whether it is UDP from and to the overlay port; only a packet's first fragment shows that.

        A pod's flow may have that port at one end, as any other.
        """
        if header.fragment_offset:
            return False
        end = header.length + 4
        return packet[header.length : end] == self._overlay_ports and header.total_length >= end

    def _unreachable(self, packet: bytes, header: IPv4Header, reason: DropReason) -> WriteToTun | Drop:
        # An answer to a group of hosts would multiply (RFC 1122 §3.2.2); `net_unreachable` checks all other groups.
        if header.source == self._broadcast:
            return _DROP[reason]
        answer = net_unreachable(packet, header, source=self._network)
        return _DROP[reason] if answer is None else WriteToTun(answer, answers=reason)
