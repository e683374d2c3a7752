"""Real ICMP echo requests from pods and nodes, many at once, with the replies to each of them.

One raw socket is opened in every sender's network namespace; from there the packets take the normal path.
"""

import itertools
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from testbed.control.answers.lab import PingAnswer
from testbed.processes.namespaces import in_network_of

ECHO_REPLY, UNREACHABLE, ECHO_REQUEST, TIME_EXCEEDED = 0, 3, 8, 11  # RFC 792
UNREACHABLE_TEXT = {0: "net unreachable", 1: "host unreachable", 3: "port unreachable", 4: "fragmentation needed"}
ECHO_REPLY6, UNREACHABLE6, ECHO_REQUEST6, TIME_EXCEEDED6 = 129, 1, 128, 3  # RFC 4443
UNREACHABLE6_TEXT = {0: "no route", 1: "prohibited", 3: "address unreachable", 4: "port unreachable"}
IPV6_HEADER = 40
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3
"""linux/in.h; the socket module does not define them. Don't fragment, whatever the learned path MTU."""
IPV6_MTU_DISCOVER = 23
"""The same from linux/in6.h."""
PAYLOAD = bytes(range(48))
INTERVAL_S = 0.2
"""Between two requests of one pair."""
_identifiers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class PingSender:
    """A sender: a name and a process in whose network namespace the requests start."""

    name: str
    pid: int


_Origin = tuple[PingSender, int]
"""A sender and a family."""


@dataclass(frozen=True, slots=True)
class PingTarget:
    """A destination."""

    name: str
    address: IPv4Address | IPv6Address


@dataclass(slots=True)
class PairResult:
    """The result of one sender's requests to one target."""

    source: str
    destination: str
    address: str
    sent: int = 0
    received: int = 0
    ttl: int | None = None
    """TTL of the last reply."""
    rtt_ms: list[float] = field(default_factory=list)
    error: str | None = None
    """The last ICMP error in words, with its sender."""
    skipped: str | None = None
    """Why missing replies do not count; None if they do."""

    def answer(self) -> PingAnswer:
        """Return it in the form of the lab's answer."""
        return {
            "source": self.source,
            "destination": self.destination,
            "address": self.address,
            "sent": self.sent,
            "received": self.received,
            "ttl": self.ttl,
            "rtt_ms": self.rtt_ms,
            "error": self.error,
            "skipped": self.skipped,
        }


def ping_pairs(
    pairs: Sequence[tuple[PingSender, PingTarget]],
    count: int = 1,
    timeout_s: float = 1.0,
    payload: bytes = PAYLOAD,
) -> list[PairResult]:
    """Send `count` requests for each pair and wait up to `timeout_s` for the last replies.

    A sender whose process has ended gets none, with that as the error. `payload` has an even number of bytes; the
    packet must not be fragmented.
    """
    results = [PairResult(sender.name, target.name, str(target.address)) for sender, target in pairs]
    # An identifier per call, or two calls from the same sender would take each other's replies.
    identifier = next(_identifiers) & 0xFFFF
    sockets, refused = _open_all({(sender, target.address.version) for sender, target in pairs})
    by_descriptor = {opened.fileno(): opened for opened in sockets.values()}
    sent_at: dict[tuple[int, int], tuple[PairResult, float]] = {}
    try:
        for turn in range(count):
            for number, (sender, target) in enumerate(pairs):
                results[number].sent += 1
                if (sender, target.address.version) in refused:
                    results[number].error = refused[sender, target.address.version]
                    continue
                opened = sockets[sender, target.address.version]
                sequence = (turn * len(pairs) + number) & 0xFFFF
                request = _echo_request(identifier, sequence, payload, target.address.version)
                sent_at[opened.fileno(), sequence] = (results[number], time.monotonic())
                try:
                    opened.sendto(request, (str(target.address), 0))
                except OSError as failure:
                    results[number].error = failure.strerror
                _collect(by_descriptor, identifier, sent_at, until=0.0)
            wait_s = INTERVAL_S if turn < count - 1 else timeout_s
            _collect(by_descriptor, identifier, sent_at, until=time.monotonic() + wait_s, stop_early=turn == count - 1)
    finally:
        for opened in sockets.values():
            opened.close()
    return results


def all_pairs(senders: Iterable[PingSender], targets: Iterable[PingTarget]) -> list[tuple[PingSender, PingTarget]]:
    """Return every sender with every target of another name."""
    wanted = list(targets)
    return [(sender, target) for sender in senders for target in wanted if sender.name != target.name]


def _open_all(wanted: Iterable[_Origin]) -> tuple[dict[_Origin, socket.socket], dict[_Origin, str]]:
    """Open a socket for each sender and family; return the reason if there is none."""
    sockets, refused = dict[_Origin, socket.socket](), dict[_Origin, str]()
    for sender, family in wanted:
        try:
            sockets[sender, family] = _raw_socket(sender, family)
        except ProcessLookupError as failure:
            refused[sender, family] = failure.strerror or str(failure)
    return sockets, refused


def _raw_socket(sender: PingSender, version: int) -> socket.socket:
    if version == 6:
        return _raw_ipv6_socket(sender)
    opened = in_network_of(sender.pid, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    opened.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
    opened.setblocking(False)
    return opened


def _raw_ipv6_socket(sender: PingSender) -> socket.socket:
    """Open the socket; the kernel fills in the checksum, and reports the hop limit beside the packet."""
    opened = in_network_of(sender.pid, lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    opened.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    opened.setblocking(False)
    return opened


def _echo_request(identifier: int, sequence: int, payload: bytes, version: int = 4) -> bytes:
    if version == 6:
        return struct.pack("!BBHHH", ECHO_REQUEST6, 0, 0, identifier, sequence) + payload
    header = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence)
    words = struct.unpack(f"!{(len(header) + len(payload)) // 2}H", header + payload)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, ~total & 0xFFFF, identifier, sequence) + payload


def _collect(
    by_descriptor: dict[int, socket.socket],
    identifier: int,
    sent_at: dict[tuple[int, int], tuple[PairResult, float]],
    until: float,
    stop_early: bool = False,
) -> None:
    """Collect replies until the moment `until`; `stop_early` returns when none is outstanding."""
    poll = select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    while not (stop_early and not sent_at):
        ready = poll.poll(max(0.0, until - time.monotonic()) * 1000)
        if not ready:
            return
        for descriptor, _ in ready:
            _take(by_descriptor[descriptor], identifier, sent_at)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An echo reply, or an error about one of our requests."""

    identifier: int
    sequence: int
    ttl: int
    error: str | None


def _take(opened: socket.socket, identifier: int, sent_at: dict[tuple[int, int], tuple[PairResult, float]]) -> None:
    packet, beside, _, source = opened.recvmsg(2048, socket.CMSG_SPACE(4))
    if opened.family == socket.AF_INET6:
        hops = [struct.unpack("=i", data)[0] for _, kind, data in beside if kind == socket.IPV6_HOPLIMIT]
        answer = _read_ipv6(packet, hops[0] if hops else 0)
    else:
        answer = _read_ipv4(packet)
    if answer is None or answer.identifier != identifier or (opened.fileno(), answer.sequence) not in sent_at:
        return
    result, at = sent_at.pop((opened.fileno(), answer.sequence))
    if answer.error is not None:
        result.error = f"{answer.error} (from {source[0]})"
        return
    result.received += 1
    result.ttl = answer.ttl
    result.rtt_ms.append(round((time.monotonic() - at) * 1000, 3))


def _read_ipv4(packet: bytes) -> _Answer | None:
    icmp = packet[(packet[0] & 0x0F) * 4 :]
    kind, code = icmp[0], icmp[1]
    error = None
    if kind in (UNREACHABLE, TIME_EXCEEDED):
        text = UNREACHABLE_TEXT.get(code, f"unreachable, code {code}")
        error = text if kind == UNREACHABLE else "time exceeded"
        quoted = icmp[8:]
        icmp = quoted[(quoted[0] & 0x0F) * 4 :] if quoted else b""
    elif kind != ECHO_REPLY:
        return None
    return _answer(icmp, packet[8], error)


def _read_ipv6(icmp: bytes, hop_limit: int) -> _Answer | None:
    kind, code = icmp[0], icmp[1]
    error = None
    if kind in (UNREACHABLE6, TIME_EXCEEDED6):
        text = UNREACHABLE6_TEXT.get(code, f"unreachable, code {code}")
        error = text if kind == UNREACHABLE6 else "time exceeded"
        icmp = icmp[8 + IPV6_HEADER :]
    elif kind != ECHO_REPLY6:
        return None
    return _answer(icmp, hop_limit, error)


def _answer(icmp: bytes, ttl: int, error: str | None) -> _Answer | None:
    if len(icmp) < 8:
        return None
    identifier, sequence = struct.unpack("!HH", icmp[4:8])
    return _Answer(identifier, sequence, ttl, error)
