"""The verb `forward`: ports of this machine's loopback that lead into the lab."""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click

from testbed.cluster.free_values import LAST_PORT
from testbed.cluster.kinds import NODE, POD, POD_OWNERS, SERVICE, no_such_kind
from testbed.command.command_line import lab_option, namespace_option, verbs
from testbed.command.loopback import LOOPBACK, listen
from testbed.command.object_words import kind_named
from testbed.control.client import LabConnection, Message, find_lab
from testbed.control.questions import FORWARD
from testbed.errors import TestbedError

TARGETS = (SERVICE, POD, NODE, *POD_OWNERS)
USAGE = "want NAME [LOCAL:]PORT…"


class PortPair(NamedTuple):
    """A port of this machine, 0 for a free one, and its target: a number, or a port's name."""

    local: int
    remote: str


@verbs.command()
@click.argument("words", nargs=-1, required=True, metavar="NAME [LOCAL:]PORT…")
@namespace_option
@lab_option
def forward(words: tuple[str, ...], namespace: str | None, lab: str | None) -> int:
    """Make ports of the lab reachable on 127.0.0.1, until Ctrl-C: forward svc/web 8080:80

    NAME is a service, pod, node or deployment (svc/web, pod/web … where a name is not clear), PORT a number or the name
    of a port. Without LOCAL it is the same number; 0, or nothing before the colon, takes a free one. One word says the
    same: 8080:svc/web:80.
    """
    kind, name, ports = _parse(words)
    record = find_lab(lab)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as until_the_end:
        # Created here, used in the lab: the lab has a socket of the host, and the host none of the lab.
        listeners = [until_the_end.enter_context(_listening(one.local)) for one in ports]
        relays = []
        for listener, (_, remote) in zip(listeners, ports, strict=True):
            connection = until_the_end.enter_context(LabConnection(record))
            streams = (listener.fileno(), 1, 2)
            messages = connection.ask(FORWARD, streams, kind=kind, name=name, port=remote, namespace=namespace)
            relays.append((messages, next(messages)["progress"]["to"]))
        numbers = [listener.getsockname()[1] for listener in listeners]
        for number, (_, target) in zip(numbers, relays, strict=True):
            print(f"{LOOPBACK}:{number} -> {target} (Ctrl-C ends it)")
        print(f"\nnext:\n  curl -s http://{LOOPBACK}:{numbers[0]}/", flush=True)
        raise _first_end([messages for messages, _ in relays])
    return 0


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with listen("forward", port) as listener:
        try:
            yield listener
        finally:
            # The relay in the lab has the socket too, and would keep the port open for a moment.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _first_end(relays: Sequence[Iterator[Message]]) -> TestbedError:
    """Wait until one of the relays ends; return the reason."""
    import queue
    import threading

    ends: queue.SimpleQueue[TestbedError] = queue.SimpleQueue()

    def follow(messages: Iterator[Message]) -> None:
        try:
            for message in messages:
                ends.put(TestbedError(f"the relay in the lab exited with {message['result']['exit']}"))
        except TestbedError as failure:
            ends.put(failure)

    for one in relays:
        threading.Thread(target=follow, args=(one,), daemon=True).start()
    return ends.get()


def _parse(words: Sequence[str]) -> tuple[str | None, str, list[PortPair]]:
    """Parse kind, name and ports. Raises click.UsageError."""
    target, *ports = words
    if not ports:
        # [LOCAL:]NAME:PORT
        first, _, remote = target.rpartition(":")
        local, colon, target = first.rpartition(":")
        ports = [f"{local}:{remote}" if colon else remote]
    kind, slash, name = target.partition("/")
    meant = kind_named(kind) if slash else None
    if meant is None and (name or not slash):
        # NAME, or NAMESPACE/NAME.
        name = target
    elif meant not in TARGETS:
        wanted = [target.singular for target in TARGETS]
        raise click.UsageError(no_such_kind(kind, *wanted), click.get_current_context())
    if not name:
        raise click.UsageError(f"{USAGE} (got {' '.join(words)})", click.get_current_context())
    return meant.plural if meant else None, name, [_pair(port) for port in ports]


def _pair(text: str) -> PortPair:
    local, colon, remote = text.rpartition(":")
    if not colon:
        local = remote if remote.isdecimal() else ""
    if not remote or (local and not (local.isdecimal() and int(local) <= LAST_PORT)):
        raise click.UsageError(f"not a port (got {text}; want PORT or LOCAL:PORT)", click.get_current_context())
    return PortPair(int(local or 0), remote)
