"""Hears when agents become ready, so that nobody need ask a hundred of them again and again.

Agents tell a service manager as systemd has it (man 3 sd_notify). All nodes' sockets are one: a hard link of it lies in
each node's /run. Who spoke is told by the kernel.
"""

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path

SOCKET = "notify"
"""In a node's /run."""
READY = b"READY=1"
CREDENTIALS = struct.Struct("=iII")  # struct ucred, linux/socket.h
MESSAGE_BYTES = 4096


class Notices:
    """Process ids that have said that they are ready."""

    def __init__(self, directory: Path) -> None:
        """Listen on a socket in `directory` from now on. Raises OSError."""
        self._path = directory / SOCKET
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(self._path))
        self._ready: set[int] = set()
        self._told = threading.Condition()
        threading.Thread(target=self._listen, name="notices", daemon=True).start()

    def reach(self, run_directory: Path) -> None:
        """Let those to whom this directory is /run speak to us. Raises OSError."""
        link = run_directory / SOCKET
        link.unlink(missing_ok=True)
        os.link(self._path, link)

    def wait(self, limit_s: float) -> frozenset[int]:
        """Those that became ready since the last call; waits for one until the limit."""
        with self._told:
            self._told.wait_for(lambda: self._ready, limit_s)
            heard, self._ready = frozenset(self._ready), set()
        return heard

    def _listen(self) -> None:
        while True:
            message, extra, _, _ = self._socket.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(CREDENTIALS.size))
            for level, kind, data in extra:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and READY in message.split(b"\n"):
                    with contextlib.suppress(struct.error), self._told:
                        self._ready.add(CREDENTIALS.unpack(data)[0])
                        self._told.notify_all()
