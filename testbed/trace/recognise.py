"""Distinguishes a probe from all other traffic, on any path and with any address translation. Pure.

Address translation may change addresses and ports (and ICMP's identifier), an overlay prepends headers. The probe's own
choices remain: TCP's first sequence number, the first four bytes of an ICMP or UDP payload. The kernel filter
(packet_filter) is built from these, so that other traffic does not reach us.
"""

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, cast

from agent.datapath.packet import ICMP, UDP
from agent.kernel.values import IPAddress
from testbed.capture.headers import ICMPV6, TCP, Packet, quoted
from testbed.control.answers.trace import Leg

Protocol = Literal["tcp", "udp", "icmp"]
NUMBERS: dict[int, dict[str, int]] = {
    4: {"tcp": TCP, "udp": UDP, "icmp": ICMP},
    6: {"tcp": TCP, "udp": UDP, "icmp": ICMPV6},
}
ECHO_REQUEST, ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
SYN, RST, ACK = 0x02, 0x04, 0x10
WINDOW = 1 << 16
"""Sequence numbers of a probe's connection; those of another connection fall into it once in 65536 packets."""


class Role(StrEnum):
    """A packet's relation to the probe."""

    REQUEST = "request"
    REPLY = "reply"
    ERROR = "error"
    """An ICMP message about the request."""
    REPLY_ERROR = "reply error"
    """An ICMP message about the reply."""
    DATA = "data"
    """The first payload after TCP's handshake."""
    OTHER = "other"
    """The rest of the conversation."""

    @property
    def leg(self) -> Leg:
        """Return it as a trace's leg; never for OTHER."""
        return cast("Leg", self.value)


Endpoints = tuple[IPAddress, int | None, IPAddress, int | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """The recognisable properties of a probe."""

    protocol: Protocol
    cookie: int
    """32 bits: TCP's initial sequence number, or the payload's first four bytes."""
    ports: tuple[int, ...] = ()
    """UDP only: a reply need not repeat the cookie, so these ports are captured as a whole."""
    version: Literal[4, 6] = 4
    """Version of IP."""

    @property
    def number(self) -> int:
        """Return the protocol's number in an IP header."""
        return NUMBERS[self.version][self.protocol]


@dataclass(slots=True)
class Recogniser:
    """Classifies packets. Call it in order of sighting: it learns translated addresses."""

    mark: Mark
    requests: set[Endpoints] = field(default_factory=set)
    """The request's addresses and ports, original and translated."""
    _request_headers: set[tuple[int, int]] = field(default_factory=set)
    _answer_headers: set[tuple[int, int]] = field(default_factory=set)

    def role(self, frame: bytes, packet: Packet) -> Role | None:
        """Return a packet's role; None for other traffic."""
        about = quoted(frame, packet)
        if about is not None:
            return self._role_of_error(frame, about)
        ours = (packet.header.version, packet.header.protocol) == (self.mark.version, self.mark.number)
        if not ours or packet.icmp_id is packet.source_port is None:
            return None
        role = self._role_by_protocol(frame, packet)
        seen = (packet.header.identification, packet.header.protocol)
        if role is Role.REQUEST:
            self.requests.add(packet.endpoints)
            self._request_headers.add(seen)
        elif role is Role.REPLY:
            self._answer_headers.add(seen)
        return role

    def _role_by_protocol(self, frame: bytes, packet: Packet) -> Role | None:
        if self.mark.protocol == "tcp":
            return self._role_of_tcp(packet)
        has_cookie = self._has_cookie(frame, packet)
        if self.mark.protocol == "icmp":
            return self._role_of_echo(packet) if has_cookie else None
        source, source_port, destination, destination_port = packet.endpoints
        if (destination, destination_port, source, source_port) in self.requests:
            return Role.REPLY
        return Role.REQUEST if has_cookie else None

    def _role_of_tcp(self, packet: Packet) -> Role | None:
        cookie, flags = self.mark.cookie, packet.flags or 0
        forth = ((packet.sequence or 0) - cookie) & 0xFFFFFFFF
        back = ((packet.acknowledgement or 0) - cookie) & 0xFFFFFFFF
        if flags & (SYN | ACK) == SYN:
            return Role.REQUEST if forth == 0 else None
        if flags & SYN or flags & RST:
            if back == 1 and flags & ACK:
                return Role.REPLY
        elif forth == 1 and packet.end > packet.payload and self._known(packet):
            return Role.DATA
        return Role.OTHER if min(forth, back) < WINDOW and self._known(packet) else None

    def _known(self, packet: Packet) -> bool:
        source, source_port, destination, destination_port = packet.endpoints
        return (
            packet.endpoints in self.requests or (destination, destination_port, source, source_port) in self.requests
        )

    def _role_of_echo(self, packet: Packet) -> Role | None:
        kind = packet.icmp[0] if packet.icmp else None
        version = self.mark.version
        return {ECHO_REQUEST[version]: Role.REQUEST, ECHO_REPLY[version]: Role.REPLY}.get(-1 if kind is None else kind)

    def _has_cookie(self, frame: bytes, packet: Packet) -> bool:
        return frame[packet.payload : packet.payload + 4] == struct.pack("!I", self.mark.cookie)

    def _role_of_error(self, frame: bytes, about: Packet) -> Role | None:
        seen = (about.header.identification, about.header.protocol)
        endpoints = about.endpoints
        turned = (endpoints[2], endpoints[3], endpoints[0], endpoints[1])
        if seen in self._request_headers and self._is_quoted(frame, about, endpoints, Role.REQUEST):
            return Role.ERROR
        if seen in self._answer_headers and self._is_quoted(frame, about, turned, Role.REPLY):
            return Role.REPLY_ERROR
        if self.mark.protocol == "tcp" and endpoints in self.requests:
            return Role.ERROR if about.sequence == self.mark.cookie + 1 else Role.OTHER
        return None

    def _is_quoted(self, frame: bytes, about: Packet, endpoints: Endpoints, role: Role) -> bool:
        """Report whether a packet with the identification of one of ours is ours."""
        if about.source_port is not None:
            return endpoints in self.requests
        # IPv6 has no identification, but errors quote as much of the packet as fits (RFC 4443 §2.4).
        return about.header.version == 4 or (self._has_cookie(frame, about) and self._role_of_echo(about) is role)
