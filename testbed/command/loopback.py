"""Ports of this machine's loopback that a verb listens on."""

import os
import socket

from testbed.errors import WrongEnvironment

LOOPBACK = "127.0.0.1"
BACKLOG = 128


def listen(where: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 is a free one. Raises WrongEnvironment if it is taken."""
    try:
        return socket.create_server((LOOPBACK, port), backlog=BACKLOG)
    except OSError as failure:
        # Its own text repeats the address.
        reason = os.strerror(failure.errno) if failure.errno else str(failure)
        said = f"{where}: cannot listen (got {LOOPBACK}:{port}, {reason}; want a free port)"
        raise WrongEnvironment(said) from failure
