"""Tries Services and the DNS from pods of a running lab, all at once, as a program in the pod would."""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from agent.kernel.values import IPAddress
from testbed.dns.query import QUERY_BYTES, NotAnAnswer, serial_answer, serial_question
from testbed.exercises.judge import NameSeen, ServiceSeen
from testbed.lab.ping import PingSender
from testbed.processes.namespaces import in_network_of

LIMIT_S = 1.5
"""Long enough for a second SYN, and for a second DNS query."""
ASK_AGAIN_S = 0.7
DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class ServicePortTarget:
    """A TCP port of a Service."""

    name: str
    """`nginx:80`."""
    address: IPAddress
    port: int


def try_services(senders: Sequence[PingSender], targets: Sequence[ServicePortTarget]) -> list[ServiceSeen]:
    """Connect to every target from every sender."""
    waiting: dict[int, tuple[socket.socket, PingSender, ServicePortTarget]] = {}
    seen = []
    poll = select.poll()
    try:
        for sender in senders:
            for target in targets:
                family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
                opened = _socket(sender, family, socket.SOCK_STREAM)
                if opened is None:
                    continue
                error = opened.connect_ex((str(target.address), target.port))
                if error not in (0, errno.EINPROGRESS):
                    opened.close()
                    seen.append(ServiceSeen(sender.name, target.name, os.strerror(error).lower()))
                    continue
                waiting[opened.fileno()] = (opened, sender, target)
                poll.register(opened, select.POLLOUT)
        deadline = time.monotonic() + LIMIT_S
        while waiting and (ready := poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
            for descriptor, _ in ready:
                poll.unregister(descriptor)
                opened, sender, target = waiting.pop(descriptor)
                problem = os.strerror(error).lower() if (error := _error(opened)) else ""
                opened.close()
                seen.append(ServiceSeen(sender.name, target.name, problem))
        silent = [ServiceSeen(sender.name, target.name, "no reply") for _, sender, target in waiting.values()]
    finally:
        for opened, _, _ in waiting.values():
            opened.close()
    return sorted((*seen, *silent), key=lambda one: (one.source, one.service))


def try_names(senders: Sequence[PingSender], dns: IPAddress, zone: str) -> list[NameSeen]:
    """Query a zone of the cluster's DNS from every sender."""
    question = serial_question(zone, int.from_bytes(os.urandom(2), "big"))
    asking: dict[int, tuple[socket.socket, PingSender]] = {}
    answered = set[str]()
    poll = select.poll()
    try:
        for sender in senders:
            opened = _socket(sender, socket.AF_INET, socket.SOCK_DGRAM)
            if opened is not None:
                asking[opened.fileno()] = (opened, sender)
                poll.register(opened, select.POLLIN)
        started = time.monotonic()
        for until in (started + ASK_AGAIN_S, started + LIMIT_S):
            open_now = [opened for opened, sender in asking.values() if sender.name not in answered]
            for opened in open_now:
                # A query that is refused at once, as by a route, also gets no reply.
                with contextlib.suppress(OSError):
                    opened.sendto(question, (str(dns), DNS_PORT))
            while len(answered) < len(asking) and (ready := poll.poll(max(0.0, until - time.monotonic()) * 1000)):
                for descriptor, _ in ready:
                    opened, sender = asking[descriptor]
                    with contextlib.suppress(OSError, NotAnAnswer):
                        serial_answer(question, opened.recv(QUERY_BYTES))
                        answered.add(sender.name)
        return [NameSeen(sender.name, sender.name in answered) for _, sender in asking.values()]
    finally:
        for opened, _ in asking.values():
            opened.close()


def _socket(sender: PingSender, family: int, kind: int) -> socket.socket | None:
    """Return a socket in the sender's network; None if that is gone."""
    try:
        opened = in_network_of(sender.pid, lambda: socket.socket(family, kind))
    except ProcessLookupError:
        return None
    opened.setblocking(False)
    return opened


def _error(opened: socket.socket) -> int:
    return opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
