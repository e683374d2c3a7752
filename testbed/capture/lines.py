"""A captured packet as one line of text. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv6Address

from testbed.capture.headers import Encapsulation, Packet, endpoint, flag_names, quoted, unwrap

ARP, IPV6 = 0x0806, 0x86DD
ETHERTYPES = {ARP: "arp", IPV6: "ipv6", 0x88CC: "lldp"}
ICMP_WORDS = {
    4: {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"},
    6: {  # RFC 4443, 4861, 3810
        1: "unreachable",
        2: "packet too big",
        3: "time exceeded",
        4: "parameter problem",
        128: "echo request",
        129: "echo reply",
        130: "multicast query",
        133: "router solicitation",
        134: "router advertisement",
        135: "who has",
        136: "is at",
        143: "multicast report",
    },
}
ABOUT_AN_ADDRESS = (135, 136)
"""Neighbour solicitation and advertisement: the address follows 8 bytes of header."""
SPANNING_TREE = 0x0600
"""Below this, the field is a length (IEEE 802.3): here, the spanning tree protocol."""
POINT_WIDTH = 18


def line(point: str, at_ns: int, frame: bytes, link_header: int, overlay: Encapsulation, *, outgoing: bool) -> str:
    """Format time (UTC), point, direction and packet; the overlay's headers are in brackets."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    clock = datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")
    words = " + ".join(_packets(frame, link_header, overlay)) or _other(frame, link_header)
    return f"{clock}.{rest // 1000:06} {point:<{POINT_WIDTH}} {'out' if outgoing else 'in ':<3} {words}"


def _packets(frame: bytes, link_header: int, overlay: Encapsulation) -> Iterator[str]:
    for wrapped in unwrap(frame, link_header, overlay):
        around = f" [{_ends(wrapped.outer)}]" if wrapped.outer else ""
        yield f"{_words(frame, wrapped.inner)}{around}"


def _words(frame: bytes, packet: Packet) -> str:
    header = packet.header
    what = f"{packet.protocol} {_kind(frame, packet)}".strip()
    left = "ttl" if header.version == 4 else "hop limit"
    return f"{_ends(packet)} {what}, {header.total_length} bytes, {left} {header.ttl}"


def _kind(frame: bytes, packet: Packet) -> str:
    if packet.flags is not None:
        return flag_names(packet.flags)
    if packet.icmp is None:
        return "fragment" if packet.header.is_fragment else ""
    kind, version = packet.icmp[0], packet.header.version
    said = ICMP_WORDS[version].get(kind, f"type {kind}")
    if version == 6 and kind in ABOUT_AN_ADDRESS and packet.end - packet.payload >= 16:
        return f"{said} {IPv6Address(frame[packet.payload : packet.payload + 16])}"
    about = quoted(frame, packet)
    return f"{said} about {_ends(about)}" if about else said


def _ends(packet: Packet) -> str:
    source, source_port, destination, destination_port = packet.endpoints
    return f"{endpoint(source, source_port)} > {endpoint(destination, destination_port)}"


def _other(frame: bytes, link_header: int) -> str:
    kind = int.from_bytes(frame[12:14], "big") if link_header else IPV6
    name = "spanning tree" if kind < SPANNING_TREE else ETHERTYPES.get(kind, f"ethertype {kind:#06x}")
    return f"{name}, {len(frame)} bytes"
