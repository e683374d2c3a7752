"""How a probe is told from all other traffic, wherever it goes and whatever is done to its addresses. Pure.

Address translation may change addresses and ports (and ICMP's identifier), an overlay puts headers in front. What stays
is what the probe chooses itself: TCP's first sequence number, the first four bytes of an ICMP or UDP payload. From
these is made the filter that runs in the kernel, so that no amount of other traffic reaches us.
"""

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from agent.datapath.packet import ICMP, UDP
from testbed.capture.filters import HARDWARE_TYPE, WHOLE, Assembler, Instruction
from testbed.capture.headers import ETHERNET, ICMP_ERRORS, IPIP, TCP, UDP_HEADER, Overlay, Packet, quoted
from testbed.capture.packet_socket import ARPHRD_ETHER, ARPHRD_LOOPBACK

Protocol = Literal["tcp", "udp", "icmp"]
NUMBERS: dict[str, int] = {"tcp": TCP, "udp": UDP, "icmp": ICMP}
ECHO_REQUEST, ECHO_REPLY = 8, 0
SYN, RST, ACK = 0x02, 0x04, 0x10
WINDOW = 1 << 16
"""Sequence numbers that belong to a probe's connection; other connections' fall there once in 65536 packets."""
SEALED_BYTES = 48
"""What wireguard puts around a packet at most: its header, its tag, and what fills up to a multiple of 16."""
MOST_PIECES = 64  # UDP_MAX_SEGMENTS, linux/udp.h: inner packets in one datagram that was not cut yet
FEWER_PIECES = 12
# Places in the filter's scratch memory.
BASE, PROTOCOL, LINK = 0, 1, 2


class Role(StrEnum):
    """What a packet is to the probe."""

    REQUEST = "request"
    ANSWER = "answer"
    ERROR = "error"
    """An ICMP message about the request."""
    ANSWER_ERROR = "answer error"
    """An ICMP message about the answer."""
    DATA = "data"
    """The first payload behind TCP's handshake."""
    OTHER = "other"
    """The rest of the conversation."""


Endpoints = tuple[int, int | None, int, int | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """What makes a probe recognisable."""

    protocol: Protocol
    cookie: int
    """32 bits: TCP's initial sequence number, or the payload's first four bytes."""
    ports: tuple[int, ...] = ()
    """UDP only: an answer need not repeat the cookie, so these are heard as a whole."""


@dataclass(slots=True)
class Recogniser:
    """Tells what each packet is. Ask in the order in which they were seen: it learns translated addresses."""

    mark: Mark
    requests: set[Endpoints] = field(default_factory=set)
    """The request's addresses and ports, original and translated."""
    _request_headers: set[tuple[int, int]] = field(default_factory=set)
    _answer_headers: set[tuple[int, int]] = field(default_factory=set)

    def role(self, frame: bytes, packet: Packet) -> Role | None:
        """None for other traffic."""
        about = quoted(frame, packet)
        if about is not None:
            return self._role_of_error(about)
        if packet.header.protocol != NUMBERS[self.mark.protocol] or packet.icmp_id is packet.source_port is None:
            return None
        role = self._role_by_protocol(frame, packet)
        seen = (packet.header.identification, packet.header.protocol)
        if role is Role.REQUEST:
            self.requests.add(packet.endpoints)
            self._request_headers.add(seen)
        elif role is Role.ANSWER:
            self._answer_headers.add(seen)
        return role

    def _role_by_protocol(self, frame: bytes, packet: Packet) -> Role | None:
        if self.mark.protocol == "tcp":
            return self._role_of_tcp(packet)
        has_cookie = frame[packet.payload : packet.payload + 4] == struct.pack("!I", self.mark.cookie)
        if self.mark.protocol == "icmp":
            kind = packet.icmp[0] if packet.icmp else None
            return {ECHO_REQUEST: Role.REQUEST, ECHO_REPLY: Role.ANSWER}.get(kind or 0) if has_cookie else None
        source, source_port, destination, destination_port = packet.endpoints
        if (destination, destination_port, source, source_port) in self.requests:
            return Role.ANSWER
        return Role.REQUEST if has_cookie else None

    def _role_of_tcp(self, packet: Packet) -> Role | None:
        cookie, flags = self.mark.cookie, packet.flags or 0
        forth = ((packet.sequence or 0) - cookie) & 0xFFFFFFFF
        back = ((packet.acknowledgement or 0) - cookie) & 0xFFFFFFFF
        if flags & (SYN | ACK) == SYN:
            return Role.REQUEST if forth == 0 else None
        if flags & SYN or flags & RST:
            if back == 1 and flags & ACK:
                return Role.ANSWER
        elif forth == 1 and packet.end > packet.payload and self._known(packet):
            return Role.DATA
        return Role.OTHER if min(forth, back) < WINDOW and self._known(packet) else None

    def _known(self, packet: Packet) -> bool:
        source, source_port, destination, destination_port = packet.endpoints
        return (
            packet.endpoints in self.requests or (destination, destination_port, source, source_port) in self.requests
        )

    def _role_of_error(self, about: Packet) -> Role | None:
        seen = (about.header.identification, about.header.protocol)
        endpoints = about.endpoints
        if seen in self._request_headers and (about.source_port is None or endpoints in self.requests):
            return Role.ERROR
        turned = (endpoints[2], endpoints[3], endpoints[0], endpoints[1])
        if seen in self._answer_headers and (about.source_port is None or turned in self.requests):
            return Role.ANSWER_ERROR
        if self.mark.protocol == "tcp" and endpoints in self.requests:
            return Role.ERROR if about.sequence == self.mark.cookie + 1 else Role.OTHER
        return None


def probe_filters(mark: Mark, overlay: Overlay, largest: int = 0) -> list[list[Instruction]]:
    """`probe_filter`, and what to try when the kernel has no room for it: Linux before 6.3 has 20 KiB a socket for
    filters (net.core.optmem_max). The shorter one misses a probe behind others in a datagram that was not cut yet."""
    counts = (MOST_PIECES, FEWER_PIECES) if overlay.kind == "udp" else (1,)
    return [probe_filter(mark, overlay, largest, pieces) for pieces in counts]


def probe_filter(mark: Mark, overlay: Overlay, largest: int = 0, pieces: int = MOST_PIECES) -> list[Instruction]:
    """Accepts frames that hold a packet of the probe, plain or carried by the overlay, and ICMP errors.

    Of datagrams that nobody can look into, those with room for packets of up to `largest` bytes, and no larger ones.

    A datagram of our own data path may hold many inner packets that nobody has cut yet; each is looked at.
    """
    code = Assembler()
    code.do("ld", HARDWARE_TYPE)
    code.jump("jeq", ARPHRD_ETHER, "ethernet")
    code.jump("jeq", ARPHRD_LOOPBACK, "ethernet")
    code.do("ldi", 0)
    code.go("begin")
    code.label("ethernet")
    code.do("ldh", 12)
    code.jump("jeq", 0x0800, None, "nothing at all")
    code.do("ldi", ETHERNET)
    code.go("begin")
    code.label("nothing at all")
    code.do("ret", 0)
    code.label("begin")
    code.do("st", BASE)
    _goto_carried(code, overlay)
    _match_one(code, mark)
    if overlay.sealed_port:
        _match_sealed(code, overlay.sealed_port, largest)
    code.do("ret", 0)
    if overlay.kind != "none":
        code.label("carried")
        _step_inside(code, overlay)
        for _ in range(pieces if overlay.kind == "udp" else 1):
            _match_one(code, mark)
            _step_to_next(code)
        code.do("ret", 0)
    return code.program()


def _goto_carried(code: Assembler, overlay: Overlay) -> None:
    """Jump to «carried» for the overlay's packets; else go on."""
    if overlay.kind == "none":
        return
    plain, carried = code.fresh("plain"), code.fresh("carried")
    code.do("ldx", BASE)
    code.do("xldb", 9)
    if overlay.kind == "ipip":
        code.jump("jeq", IPIP, carried, plain)
    else:
        code.jump("jeq", UDP, None, plain)
        _x_to_transport(code)
        code.do("xldh", 2)
        code.jump("jeq", overlay.port, carried, plain)
    code.label(carried)
    code.go("carried")
    code.label(plain)


def _match_sealed(code: Assembler, port: int, largest: int) -> None:
    """Accept a UDP datagram for the port that is no longer than one around `largest` bytes; else go on behind."""
    accept, other = code.fresh("accept"), code.fresh("other")
    code.do("ldx", BASE)
    code.do("xldb", 9)
    code.jump("jeq", UDP, None, other)
    _x_to_transport(code)
    code.do("xldh", 2)
    code.jump("jeq", port, None, other)
    code.do("xldh", 4)
    code.jump("jge", UDP_HEADER + SEALED_BYTES + largest + 1, other, accept)
    code.label(accept)
    code.do("ret", WHOLE)
    code.label(other)


def _step_inside(code: Assembler, overlay: Overlay) -> None:
    code.do("ldx", BASE)
    _x_to_transport(code)
    code.do("txa")
    code.do("add", 0 if overlay.kind == "ipip" else 8 + overlay.header_bytes)
    code.do("st", BASE)


def _step_to_next(code: Assembler) -> None:
    """The next inner packet begins where this one ends; a load beyond the frame's end refuses the frame."""
    code.do("ldx", BASE)
    code.do("xldh", 2)
    code.do("addx")
    code.do("st", BASE)


def _x_to_transport(code: Assembler) -> None:
    """X from an IPv4 header to the one behind it."""
    code.do("xldb", 0)
    code.do("and", 0xF)
    code.do("lsh", 2)
    code.do("addx")
    code.do("tax")


def _match_one(code: Assembler, mark: Mark) -> None:
    """Accept if the IPv4 packet at BASE is the probe's; else go on behind."""
    accept, other, icmp = code.fresh("accept"), code.fresh("other"), code.fresh("icmp")
    code.do("ldx", BASE)
    code.do("xldb", 0)
    code.do("rsh", 4)
    code.jump("jeq", 4, None, other)
    code.do("xldh", 6)
    code.do("and", 0x1FFF)
    code.jump("jeq", 0, None, other)  # a later fragment has no transport header
    code.do("xldb", 9)
    code.do("st", PROTOCOL)
    _x_to_transport(code)
    code.do("ldm", PROTOCOL)
    code.jump("jeq", ICMP, icmp)
    code.jump("jeq", NUMBERS[mark.protocol], None, other)
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
    for kind in sorted(ICMP_ERRORS):
        code.jump("jeq", kind, accept)
    if mark.protocol == "icmp":
        code.do("xld", 8)
        code.jump("jeq", mark.cookie, accept)
    code.go(other)
    code.label(accept)
    code.do("ret", WHOLE)
    code.label(other)
