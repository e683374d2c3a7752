"""Connects a lab to the endpoints of an existing etcd cluster, and to nothing else.

    python3 -I -S etcd_gate.py FD LAB HOST PORT [HOST PORT…]

`up` starts it on the host. FD is a socket whose other end is in the lab; a message there asks for a connection to one
of the endpoints, by its number in this list. The answer carries the connected socket, or the reason why there is none.
So the lab names no host and no port, this process reads and writes no byte of etcd's, and no descriptor of the lab
comes here: those that a message carries are discarded by the kernel. The end of the lab closes FD, and this process
ends with it. Standard library only.
"""

import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Sequence

REQUEST = struct.Struct("!IB")
"""The request's number, which the answer repeats, and the endpoint's."""
NUMBER = struct.Struct("!I")
CONNECT_LIMIT_S = 5.0
MOST = 32
"""Connections in the making."""
NOBODY = 65534

Target = tuple[str, int]


def serve(lab: socket.socket, targets: Sequence[Target]) -> None:
    """Answer requests until the lab has ended."""
    free = threading.BoundedSemaphore(MOST)
    while request := lab.recv(REQUEST.size):
        if len(request) != REQUEST.size:
            return
        number, index = REQUEST.unpack(request)
        if index >= len(targets):
            refuse(lab, number, "no such endpoint")
        elif not free.acquire(blocking=False):
            refuse(lab, number, "too many connections in the making")
        else:
            try:
                threading.Thread(target=connect, args=(lab, number, targets[index], free), daemon=True).start()
            except RuntimeError as failure:
                # A limit of processes is reached for a while; nothing starts this process again.
                free.release()
                refuse(lab, number, str(failure))


def connect(lab: socket.socket, number: int, target: Target, free: threading.BoundedSemaphore) -> None:
    """Connect to the target, and hand the socket over."""
    try:
        with socket.create_connection(target, CONNECT_LIMIT_S) as connected:
            connected.settimeout(None)
            socket.send_fds(lab, [NUMBER.pack(number)], [connected.fileno()])
    except TimeoutError:
        refuse(lab, number, f"no answer within {CONNECT_LIMIT_S:g} s")
    except OSError as error:
        refuse(lab, number, error.strerror or str(error))
    finally:
        free.release()


def refuse(lab: socket.socket, number: int, why: str) -> None:
    """Answer without a connection."""
    try:
        lab.send(NUMBER.pack(number) + why.encode())
    except OSError:
        # The lab has ended.
        os._exit(0)


def give_up_rights() -> None:
    """Go on as a user without rights: connections need none."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def main() -> None:
    """Run the gate."""
    words = sys.argv[3:]
    targets = [(host, int(port)) for host, port in zip(words[::2], words[1::2], strict=True)]
    give_up_rights()
    # A lab that ends with unread answers resets the socket.
    with socket.socket(fileno=int(sys.argv[1])) as lab, contextlib.suppress(ConnectionResetError):
        serve(lab, targets)
    os._exit(0)


if __name__ == "__main__":
    main()
