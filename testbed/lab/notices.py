"""Receives agents' readiness notifications, so that a hundred of them need not be polled.

Agents notify a service manager with systemd's protocol (man 3 sd_notify). Each node has a socket in its /run; one
thread listens to all of them. The kernel identifies the sender.
"""

import contextlib
import os
import select
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
    """Process ids that have reported readiness."""

    def __init__(self) -> None:
        self._sockets: dict[Path, socket.socket] = {}
        """By directory."""
        self._changing = threading.Lock()
        """Held while sockets come and go: a new one may have the descriptor of one that was closed."""
        self._epoll = select.epoll()
        self._ready: set[int] = set()
        self._told = threading.Condition()
        threading.Thread(target=self._listen, name="notices", daemon=True).start()

    def reach(self, run_directory: Path) -> None:
        """Listen for processes that see this directory as /run. Raises OSError."""
        (run_directory / SOCKET).unlink(missing_ok=True)
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        directory = os.open(run_directory, os.O_PATH | os.O_CLOEXEC)
        try:
            # A socket's path may have 107 bytes, and a lab's name 63 of them.
            opened.bind(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.close(directory)
        with self._changing:
            self._sockets[run_directory] = opened
            self._epoll.register(opened, select.EPOLLIN)

    def forget(self, run_directory: Path) -> None:
        """Listen no more: the directory's node is about to be removed. Do nothing where `reach` was not called."""
        with self._changing:
            opened = self._sockets.pop(run_directory, None)
            if opened is not None:
                # Explicitly: a forked process may still hold it.
                self._epoll.unregister(opened)
                opened.close()

    def wait(self, limit_s: float) -> frozenset[int]:
        """Return those that became ready since the last call; wait for one until the limit."""
        with self._told:
            self._told.wait_for(lambda: self._ready, limit_s)
            heard, self._ready = frozenset(self._ready), set()
        return heard

    def _listen(self) -> None:
        while True:
            heard = {descriptor for descriptor, _ in self._epoll.poll()}
            with self._changing:
                for opened in [one for one in self._sockets.values() if one.fileno() in heard]:
                    self._take(opened)

    def _take(self, opened: socket.socket) -> None:
        try:
            message, extra, _, _ = opened.recvmsg(
                MESSAGE_BYTES, socket.CMSG_SPACE(CREDENTIALS.size), socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            # It was heard on another socket that had this descriptor.
            return
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and READY in message.split(b"\n"):
                with contextlib.suppress(struct.error), self._told:
                    self._ready.add(CREDENTIALS.unpack(data)[0])
                    self._told.notify_all()
