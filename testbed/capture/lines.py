"""A captured packet as one line of text. Pure."""

from datetime import UTC, datetime
from ipaddress import IPv4Address

from testbed.capture import ipv6
from testbed.capture.headers import Overlay, Packet, flag_names, quoted, read_packet, unwrap

ARP, IPV6 = 0x0806, 0x86DD
ETHERTYPES = {ARP: "arp", IPV6: "ipv6", 0x88CC: "lldp"}
ICMP_WORDS = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
SPANNING_TREE = 0x0600
"""Below this, the field is a length (IEEE 802.3): here, the spanning tree protocol."""
POINT_WIDTH = 18


def line(point: str, at_ns: int, frame: bytes, link_header: int, overlay: Overlay, *, outgoing: bool) -> str:
    """Time (UTC), point, direction, packet; what an overlay puts around it stands in brackets."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    clock = datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")
    words = " + ".join(_packets(frame, link_header, overlay)) or _other(frame, link_header)
    return f"{clock}.{rest // 1000:06} {point:<{POINT_WIDTH}} {'out' if outgoing else 'in ':<3} {words}"


def _packets(frame: bytes, link_header: int, overlay: Overlay) -> list[str]:
    found = []
    for wrapped in unwrap(frame, link_header, overlay):
        packet = wrapped.inner
        around = f" [{_ends(wrapped.outer)}]" if wrapped.outer else ""
        inner = None if wrapped.outer else _ipv6_in(frame, packet, overlay)
        found.append(f"{ipv6.words(frame, inner)} [{_ends(packet)}]" if inner else f"{_words(frame, packet)}{around}")
    return found or _ipv6_packets(frame, link_header, overlay)


def _ipv6_in(frame: bytes, outer: Packet, overlay: Overlay) -> ipv6.IPv6Packet | None:
    ports = outer.source_port, outer.destination_port
    at = ipv6.carried_at(overlay, outer.header.protocol, outer.transport, ports)
    return None if at is None else ipv6.read_ipv6(frame, at)


def _ipv6_packets(frame: bytes, link_header: int, overlay: Overlay) -> list[str]:
    outer = ipv6.read_ipv6(frame, link_header)
    if outer is None:
        return []
    ports = outer.source_port, outer.destination_port
    at = ipv6.carried_at(overlay, outer.protocol, outer.transport, ports)
    if at is not None:
        if (inner := ipv6.read_ipv6(frame, at)) is not None:
            return [f"{ipv6.words(frame, inner)} [{ipv6.ends(outer)}]"]
        if (packet := read_packet(frame, at)) is not None:
            return [f"{_words(frame, packet)} [{ipv6.ends(outer)}]"]
    return [ipv6.words(frame, outer)]


def _words(frame: bytes, packet: Packet) -> str:
    header = packet.header
    what = f"{packet.protocol} {_kind(frame, packet)}".strip()
    return f"{_ends(packet)} {what}, {header.total_length} bytes, ttl {header.ttl}"


def _kind(frame: bytes, packet: Packet) -> str:
    if packet.flags is not None:
        return flag_names(packet.flags)
    if packet.icmp is None:
        return "fragment" if packet.is_fragment else ""
    about = quoted(frame, packet)
    said = ICMP_WORDS.get(packet.icmp[0], f"type {packet.icmp[0]}")
    return f"{said} about {_ends(about)}" if about else said


def _ends(packet: Packet) -> str:
    source, source_port, destination, destination_port = packet.endpoints
    return f"{_end(source, source_port)} > {_end(destination, destination_port)}"


def _end(address: int, port: int | None) -> str:
    return str(IPv4Address(address)) if port is None else f"{IPv4Address(address)}:{port}"


def _other(frame: bytes, link_header: int) -> str:
    kind = int.from_bytes(frame[12:14], "big") if link_header else IPV6
    name = "spanning tree" if kind < SPANNING_TREE else ETHERTYPES.get(kind, f"ethertype {kind:#06x}")
    return f"{name}, {len(frame)} bytes"
