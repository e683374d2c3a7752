"""The verb `forward`: a port of this machine's loopback that leads into the lab."""

import socket

import click

from testbed.cluster.kinds import BY_WORD, DEPLOYMENT, NODE, POD, SERVICE, no_such_kind
from testbed.command.command_line import lab_option, verbs
from testbed.control.client import LabConnection, find_lab
from testbed.control.questions import FORWARD
from testbed.errors import TestbedError

LOOPBACK = "127.0.0.1"
BACKLOG = 128
TARGETS = (SERVICE, POD, NODE, DEPLOYMENT)


@verbs.command()
@click.argument("way", metavar="[LOCAL:]NAME:PORT")
@lab_option
def forward(way: str, lab: str | None) -> int:
    """Make a port of the lab reachable on 127.0.0.1, until Ctrl-C: forward 8080:web:80

    NAME is a service, pod, node or deployment (svc/web, pod/web … where a name is not clear), PORT a number or the name
    of a port. Without LOCAL it is the same number; 0 takes a free one.
    """
    local, kind, name, port = _parse(way)
    record = find_lab(lab)
    try:
        # Made here, used in the lab: a socket of the host in the lab, and none of the lab on the host.
        listener = socket.create_server((LOOPBACK, local), backlog=BACKLOG)
    except OSError as error:
        raise TestbedError(f"{LOOPBACK}:{local}: cannot be listened on ({error.strerror}; want a free port)") from error
    with listener, LabConnection(record) as connection:
        number = listener.getsockname()[1]
        try:
            for message in connection.ask(FORWARD, (listener.fileno(), 1, 2), kind=kind, name=name, port=port):
                if "progress" in message:
                    print(f"{LOOPBACK}:{number} -> {message['progress']['to']} (Ctrl-C ends it)")
                    print(f"\nnext:\n  curl -s http://{LOOPBACK}:{number}/")
                if "result" in message:
                    raise TestbedError(f"the relay in the lab ended with {message['result']['exit']}")
        except KeyboardInterrupt:
            return 0
    return 0


def _parse(way: str) -> tuple[int, str | None, str, str]:
    """Local port, kind, name and port. Raises click.UsageError."""
    *first, target, port = ("::" if ":" not in way else way).split(":")
    local = (first or [port if port.isdecimal() else "0"])[0] or "0"
    kind, slash, name = target.rpartition("/")
    if len(first) > 1 or not name or not port or not local.isdecimal() or int(local) > 65535 or "/" in kind:
        raise click.UsageError(f"want LOCAL:NAME:PORT (got {way})", click.get_current_context())
    if slash and BY_WORD.get(kind) not in TARGETS:
        wanted = [target.singular for target in TARGETS]
        raise click.UsageError(no_such_kind(kind, *wanted), click.get_current_context())
    return int(local), BY_WORD[kind].plural if slash else None, name, port
