"""Every pair of pods of a lab, tried at once: real sockets in the pods' network namespaces, to servers in the pods."""

import select
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from tests.e2e.lab import Lab
from tests.e2e.pod_sockets import made_in

MARGIN_S = 0.5
"""How long a probe that must not pass is waited for after the last one that must."""
LIMIT_S = 6.0
ANSWER_S = 3.0
OWN_PORTS = range(1024, 32768)
"""Those that the kernel chooses from begin above."""
AGAIN_S = 1.0
"""A datagram that was lost on a busy machine is sent again; TCP does so itself."""


class Probe(NamedTuple):
    """One connection, or one datagram and its answer."""

    source: str
    target: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.source} → {self.target} {self.port}/{self.protocol}"


class Prober:
    """Sends from the network namespaces of a lab's pods."""

    def __init__(self, lab: Lab) -> None:
        self.pid: int = lab.json("status")["pid"]
        self.addresses: Mapping[str, str] = {}
        self._ports = count()
        self.look(lab)

    def look(self, lab: Lab) -> None:
        """Learn the pods' addresses, by name: `x/a`."""
        self.addresses = {one["name"]: one["address"] for one in lab.json("status")["pods"]}

    def passing(
        self, probes: Collection[Probe], expected: Collection[Probe] = (), margin_s: float = MARGIN_S
    ) -> set[Probe]:
        """Return those that pass: waits until all of `expected` have, and a moment longer for the others."""
        waiting: dict[int, tuple[Probe, socket.socket]] = {}
        poller = select.epoll()
        passed: set[Probe] = set()
        try:
            for source in {probe.source for probe in probes}:
                own = [probe for probe in probes if probe.source == source]
                for probe, one in zip(own, self._sockets(source, own), strict=True):
                    waiting[one.fileno()] = probe, one
                    poller.register(one, select.EPOLLOUT if probe.protocol == "TCP" else select.EPOLLIN)
            started = sent = time.monotonic()
            quiet_until = started + margin_s
            while (now := time.monotonic()) < started + LIMIT_S:
                if passed >= set(expected) and now > quiet_until:
                    break
                if now > sent + AGAIN_S:
                    sent = now
                    for probe, one in waiting.values():
                        if probe.protocol == "UDP":
                            _send(one)
                for descriptor, _ in poller.poll(0.05):
                    probe, one = waiting[descriptor]
                    is_answered = _answered(probe, one)
                    if probe.protocol == "UDP" and not is_answered:
                        # An ICMP error, which this has taken; it is sent again.
                        continue
                    del waiting[descriptor]
                    poller.unregister(one)
                    if is_answered:
                        passed.add(probe)
                        quiet_until = time.monotonic() + margin_s
                    one.close()
        finally:
            for _, one in waiting.values():
                one.close()
            poller.close()
        return passed

    def open(self, probe: Probe) -> socket.socket:
        """Begin a connection, or a flow of datagrams, that lasts until the socket is closed."""
        (one,) = self._sockets(probe.source, [probe])
        one.settimeout(ANSWER_S)
        return one

    def _sockets(self, source: str, probes: Sequence[Probe]) -> list[socket.socket]:
        return made_in(self.pid, source, lambda: [self._begin(probe) for probe in probes])

    def _begin(self, probe: Probe) -> socket.socket:
        kind = socket.SOCK_STREAM if probe.protocol == "TCP" else socket.SOCK_DGRAM
        address = self.addresses[probe.target]
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        if probe.protocol == "UDP":
            # Of its own: by chance it could be that of an earlier probe, whose flow the kernel still knows.
            one.bind(("", OWN_PORTS[0] + next(self._ports) % len(OWN_PORTS)))
        one.connect_ex((address, probe.port))
        if probe.protocol == "UDP":
            _send(one)
        return one


def still_answers(one: socket.socket, text: str) -> bool:
    """Ask over an open connection or flow, and return whether the answer has come; `text` is new each time."""
    is_tcp = one.type == socket.SOCK_STREAM
    request = f"GET /echo?msg={text} HTTP/1.1\r\nHost: test\r\n\r\n" if is_tcp else text
    try:
        one.send(request.encode())
        answer = b""
        while not answer.endswith(text.encode()):
            more = one.recv(1000)
            if not more:
                return False
            answer = answer + more if is_tcp else more
    except OSError:
        return False
    return True


def _send(one: socket.socket) -> None:
    try:
        one.send(b"probe")
    except OSError:
        return  # an ICMP error of an earlier one: no answer


def _answered(probe: Probe, one: socket.socket) -> bool:
    if probe.protocol == "TCP":
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    try:
        return one.recv(100) == b"probe"
    except OSError:
        return False
