"""The contents and positions of a packet's headers, including those inside an overlay. Pure.

A frame of this lab has at most two IP headers: its own, and that of the packet that an overlay carries.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from agent.datapath.packet import ICMP, UDP
from agent.kernel.values import IPAddress
from testbed.capture.network_header import NetworkHeader, read_network_header

TCP = 6
IPIP = 4
ICMPV6 = 58
NO_NEXT_HEADER = 59
PROTOCOL_NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", IPIP: "ipip", ICMPV6: "icmp6", NO_NEXT_HEADER: "nothing"}
ETHERNET = 14
VXLAN_HEADER = 8  # RFC 7348 §5
UDP_HEADER = 8
ICMP_ERRORS = {4: frozenset({3, 4, 5, 11, 12}), 6: frozenset({1, 2, 3, 4})}
"""By version: they quote the packet in question (RFC 792, RFC 4443)."""
FLAG_LETTERS = (("SYN", 0x02), ("FIN", 0x01), ("RST", 0x04), ("PSH", 0x08), ("ACK", 0x10), ("URG", 0x20))


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """How packets are carried between nodes."""

    kind: str
    """`udp`, `vxlan`, `ipip`, or `none` for no encapsulation or one that cannot be decoded."""
    port: int = 0
    """UDP port of the encapsulating datagrams; 0 if there are none."""
    sealed_ports: tuple[int, ...] = ()
    """The same for datagrams that cannot be decoded, like wireguard's."""

    @property
    def header_bytes(self) -> int:
        """Return the bytes between the outer UDP header and the inner packet."""
        return VXLAN_HEADER + ETHERNET if self.kind == "vxlan" else 0


NO_OVERLAY = Encapsulation("none")


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet's headers as values."""

    offset: int
    """Its offset in the frame."""
    header: NetworkHeader
    transport: int
    """Offset in the frame of the header after IP's; of the payload for later fragments."""
    end: int
    """Offset of its end in the frame."""
    source_port: int | None = None
    destination_port: int | None = None
    sequence: int | None = None
    acknowledgement: int | None = None
    flags: int | None = None
    icmp: tuple[int, int] | None = None
    """Type and code."""
    icmp_id: int | None = None
    payload: int = 0
    """Offset in the frame of the payload of TCP, UDP or ICMP."""

    @property
    def protocol(self) -> str:
        """Return the transport's name, or its number."""
        return PROTOCOL_NAMES.get(self.header.protocol, str(self.header.protocol))

    @property
    def endpoints(self) -> tuple[IPAddress, int | None, IPAddress, int | None]:
        """Return source address and port, destination address and port."""
        return (self.header.source, self.source_port, self.header.destination, self.destination_port)


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A packet and, if an overlay carries it, the one around it."""

    inner: Packet
    outer: Packet | None = None


def read_packet(frame: bytes, offset: int) -> Packet | None:
    """Parse the packet at `offset`; None if there is none. A frame may end before the packet does."""
    header = read_network_header(frame, offset)
    if header is None:
        return None
    transport = offset + header.length
    end = min(len(frame), offset + header.total_length)
    plain = Packet(offset, header, transport, end, payload=transport)
    room = end - transport
    if header.fragment_offset or room < 8:
        return plain
    if header.protocol == TCP and room >= 20:
        return _tcp(frame, plain)
    if header.protocol == UDP:
        source, destination = struct.unpack_from("!HH", frame, transport)
        return Packet(offset, header, transport, end, source, destination, payload=transport + UDP_HEADER)
    if header.protocol == (ICMP if header.version == 4 else ICMPV6):
        kind, code, _checksum, identifier, sequence = struct.unpack_from("!BBHHH", frame, transport)
        return Packet(
            offset,
            header,
            transport,
            end,
            icmp=(kind, code),
            icmp_id=identifier,
            sequence=sequence,
            payload=transport + 8,
        )
    return plain


def _tcp(frame: bytes, plain: Packet) -> Packet:
    at = plain.transport
    source, destination, sequence, acknowledgement, offset, flags = struct.unpack_from("!HHIIBB", frame, at)
    return Packet(
        plain.offset,
        plain.header,
        at,
        plain.end,
        source,
        destination,
        sequence,
        acknowledgement,
        flags,
        payload=min(plain.end, at + max(20, (offset >> 4) * 4)),
    )


def carried(frame: bytes, outer: Packet, overlay: Encapsulation) -> Iterator[Packet]:
    """Yield the packets inside `outer`: one, or all consecutive ones if it has not been cut yet."""
    header = outer.header
    if overlay.kind == "ipip" and header.protocol == IPIP:
        at = outer.transport
    elif overlay.port and header.protocol == UDP and overlay.port in (outer.source_port, outer.destination_port):
        at = outer.payload + overlay.header_bytes
    else:
        return
    while (packet := read_packet(frame[: outer.end], at)) is not None:
        yield packet
        if overlay.kind != "udp":
            return
        at += packet.header.total_length


def unwrap(frame: bytes, offset: int, overlay: Encapsulation) -> Iterator[Wrapped]:
    """Yield every packet of a frame whose network header is at `offset`: the one inside an overlay, or the packet
    itself.
    """
    outer = read_packet(frame, offset)
    if outer is None:
        return
    found = False
    for inner in carried(frame, outer, overlay):
        found = True
        yield Wrapped(inner, outer)
    if not found:
        yield Wrapped(outer)


def quoted(frame: bytes, packet: Packet) -> Packet | None:
    """Parse the packet quoted in an ICMP error; its transport header may be cut after 8 bytes (RFC 792)."""
    if packet.icmp is None or packet.icmp[0] not in ICMP_ERRORS[packet.header.version]:
        return None
    about = read_packet(frame[: packet.end], packet.payload)
    if about is None or about.source_port is not None or about.end - about.transport < 8:
        return about
    if about.header.protocol == TCP:
        source, destination, sequence = struct.unpack_from("!HHI", frame, about.transport)
        return Packet(about.offset, about.header, about.transport, about.end, source, destination, sequence)
    return about


def flag_names(flags: int) -> str:
    """Return TCP's flags in words: `SYN`, `SYN ACK`, …"""
    return " ".join(name for name, bit in FLAG_LETTERS if flags & bit) or "-"


def endpoint(address: IPAddress, port: int | None) -> str:
    """Format an address, and a port if there is one, as in a URL."""
    if port is None:
        return str(address)
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
