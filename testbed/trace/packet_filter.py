"""The kernel filter for a traced packet, which keeps other traffic away from us. Pure.

It matches the probe's mark (recognise.Mark) in plain packets and in those that an overlay carries.
"""

from typing import Literal

from agent.datapath.packet import ICMP, UDP
from testbed.capture.filters import HARDWARE_TYPE, WHOLE, Assembler, Instruction
from testbed.capture.headers import ETHERNET, ICMP_ERRORS, ICMPV6, IPIP, UDP_HEADER, Encapsulation
from testbed.capture.network_header import FRAGMENT, IPV6_HEADER
from testbed.capture.packet_socket import ARPHRD_ETHER, ARPHRD_LOOPBACK
from testbed.trace.recognise import WINDOW, Mark

Version = Literal[4, 6]
ETHERTYPES = (0x0800, 0x86DD)
NEXT_HEADER = {4: 9, 6: 6}
"""Where a header names the next one."""
SEALED_BYTES = 48
"""The most that wireguard adds to a packet: header, tag, and padding to a multiple of 16."""
MOST_PIECES = 64  # UDP_MAX_SEGMENTS, linux/udp.h: inner packets in one datagram that was not cut yet
FEWER_PIECES = 12
# Addresses in the filter's scratch memory.
BASE, PROTOCOL = 0, 1


def probe_filters(mark: Mark, overlay: Encapsulation, largest: int) -> list[list[Instruction]]:
    """Return `probe_filter`, and an alternative if the kernel has no room for it: before Linux 6.3, a socket has 20 KiB
    for filters (net.core.optmem_max). The shorter one misses a probe after others in an uncut datagram.
    """
    counts = (MOST_PIECES, FEWER_PIECES) if overlay.kind == "udp" and mark.version == 4 else (1,)
    return [probe_filter(mark, overlay, largest, pieces) for pieces in counts]


def probe_filter(mark: Mark, overlay: Encapsulation, largest: int = 0, pieces: int = MOST_PIECES) -> list[Instruction]:
    """Return a filter that accepts frames with a packet of the probe, plain or carried by the overlay, and ICMP errors.

    It accepts encrypted datagrams with room for packets of up to `largest` bytes, and no larger ones. A datagram of our
    own data path may contain many uncut inner packets; each is checked.
    """
    code = Assembler()
    _goto_network_header(code)
    for version in (4, 6):
        _look_at_outermost(code, mark, overlay, largest, version)
        if _carries(overlay, mark, version):
            code.label(f"carried by {version}")
            _step_inside(code, overlay, version)
            for _ in range(pieces if overlay.kind == "udp" else 1):
                _match_one(code, mark)
                _step_to_next(code)
            code.do("ret", 0)
    return code.program()


def _carries(overlay: Encapsulation, mark: Mark, outer: Version) -> bool:
    """Report whether the overlay may carry the probe in packets of the version `outer`."""
    return overlay.kind == "vxlan" or (overlay.kind != "none" and mark.version == outer == 4)


def _goto_network_header(code: Assembler) -> None:
    """Set BASE to the start of the IP header; continue at "outermost 4" or "outermost 6"."""
    code.do("ld", HARDWARE_TYPE)
    code.jump("jeq", ARPHRD_ETHER, "ethernet")
    code.jump("jeq", ARPHRD_LOOPBACK, "ethernet")
    code.do("ldi", 0)
    code.go("begin")
    code.label("ethernet")
    code.do("ldh", 12)
    for ethertype in ETHERTYPES:
        code.jump("jeq", ethertype, "ip")
    code.do("ret", 0)
    code.label("ip")
    code.do("ldi", ETHERNET)
    code.label("begin")
    code.do("st", BASE)
    _load_version(code)
    code.jump("jeq", 4, "outermost 4")
    code.jump("jeq", 6, "six")
    code.do("ret", 0)
    code.label("six")
    code.go("outermost 6")


def _look_at_outermost(code: Assembler, mark: Mark, overlay: Encapsulation, largest: int, version: Version) -> None:
    """Accept or refuse the packet without an overlay, or continue at "carried by VERSION"."""
    code.label(f"outermost {version}")
    if _carries(overlay, mark, version):
        _goto_carried(code, overlay, version)
    if mark.version == version:
        _match_one(code, mark)
    for port in overlay.sealed_ports:
        _match_sealed(code, port, largest, version)
    code.do("ret", 0)


def _load_version(code: Assembler) -> None:
    code.do("ldx", BASE)
    code.do("xldb", 0)
    code.do("rsh", 4)


def _goto_carried(code: Assembler, overlay: Encapsulation, version: Version) -> None:
    """Jump for the overlay's packets; else continue."""
    plain, carried = code.fresh("plain"), code.fresh("carried")
    code.do("ldx", BASE)
    code.do("xldb", NEXT_HEADER[version])
    if overlay.kind == "ipip":
        code.jump("jeq", IPIP, carried, plain)
    else:
        code.jump("jeq", UDP, None, plain)
        _x_to_transport(code, version)
        code.do("xldh", 2)
        code.jump("jeq", overlay.port, carried, plain)
    code.label(carried)
    code.go(f"carried by {version}")
    code.label(plain)


def _match_sealed(code: Assembler, port: int, largest: int, version: Version) -> None:
    """Accept a UDP datagram for the port that is no longer than one around `largest` bytes; else continue after it."""
    accept, other = code.fresh("accept"), code.fresh("other")
    code.do("ldx", BASE)
    code.do("xldb", NEXT_HEADER[version])
    code.jump("jeq", UDP, None, other)
    _x_to_transport(code, version)
    code.do("xldh", 2)
    code.jump("jeq", port, None, other)
    code.do("xldh", 4)
    code.jump("jge", UDP_HEADER + SEALED_BYTES + largest + 1, other, accept)
    code.label(accept)
    code.do("ret", WHOLE)
    code.label(other)


def _step_inside(code: Assembler, overlay: Encapsulation, version: Version) -> None:
    code.do("ldx", BASE)
    _x_to_transport(code, version)
    code.do("txa")
    code.do("add", 0 if overlay.kind == "ipip" else 8 + overlay.header_bytes)
    code.do("st", BASE)


def _step_to_next(code: Assembler) -> None:
    """Go to the next inner packet, at the end of this one; a load beyond the frame's end refuses the frame."""
    code.do("ldx", BASE)
    code.do("xldh", 2)
    code.do("addx")
    code.do("st", BASE)


def _x_to_transport(code: Assembler, version: Version) -> None:
    """Move X from an IP header to the next one."""
    if version == 4:
        code.do("xldb", 0)
        code.do("and", 0xF)
        code.do("lsh", 2)
        code.do("addx")
    else:
        code.do("txa")
        code.do("add", IPV6_HEADER)
    code.do("tax")


def _match_one(code: Assembler, mark: Mark) -> None:
    """Accept if the packet at BASE is the probe's; else continue after it."""
    accept, other, icmp = code.fresh("accept"), code.fresh("other"), code.fresh("icmp")
    _load_version(code)
    code.jump("jeq", mark.version, None, other)
    if mark.version == 4:
        _behind_ipv4(code, other)
    else:
        _behind_ipv6(code, other)
    code.do("ldm", PROTOCOL)
    code.jump("jeq", ICMP if mark.version == 4 else ICMPV6, icmp)
    code.jump("jeq", mark.number, None, other)
    if mark.protocol == "tcp":
        for place in (4, 8):
            code.do("xld", place)
            code.do("sub", mark.cookie)
            beyond = code.fresh("beyond")
            code.jump("jge", WINDOW, beyond, accept)
            code.label(beyond)
    elif mark.protocol == "udp":
        for place in (0, 2):
            code.do("xldh", place)
            for port in mark.ports:
                code.jump("jeq", port, accept)
        code.do("xld", 8)
        code.jump("jeq", mark.cookie, accept)
    code.go(other)
    code.label(icmp)
    code.do("xldb", 0)
    for kind in sorted(ICMP_ERRORS[mark.version]):
        code.jump("jeq", kind, accept)
    if mark.protocol == "icmp":
        code.do("xld", 8)
        code.jump("jeq", mark.cookie, accept)
    code.go(other)
    code.label(accept)
    code.do("ret", WHOLE)
    code.label(other)


def _behind_ipv4(code: Assembler, other: str) -> None:
    """Set PROTOCOL to the next header's type and X to its place; later fragments, without a transport header, go to
    `other`.
    """
    code.do("xldh", 6)
    code.do("and", 0x1FFF)
    code.jump("jeq", 0, None, other)
    code.do("xldb", NEXT_HEADER[4])
    code.do("st", PROTOCOL)
    _x_to_transport(code, 4)


def _behind_ipv6(code: Assembler, other: str) -> None:
    """Do the same. Of extension headers, a probe may have only a fragment's."""
    whole = code.fresh("whole")
    code.do("xldb", NEXT_HEADER[6])
    code.do("st", PROTOCOL)
    code.jump("jeq", FRAGMENT, None, whole)
    code.do("xldh", IPV6_HEADER + 2)
    code.do("and", 0xFFF8)
    code.jump("jeq", 0, None, other)
    code.do("xldb", IPV6_HEADER)
    code.do("st", PROTOCOL)
    code.do("txa")
    code.do("add", 8)
    code.do("tax")
    code.label(whole)
    _x_to_transport(code, 6)
