"""A relay on loopback before a server: every byte of either direction comes `delay_s` later."""

import contextlib
import heapq
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PIECE = 65_536
TICK_S = 0.005


class SlowRelay:
    """In a thread of its own; `delay_s` may change at any time."""

    def __init__(self, target: str) -> None:
        """`target` is a URL."""
        url = urlsplit(target)
        self._target = (url.hostname or "", url.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.endpoint = f"{url.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.delay_s = 0.0
        self.accepted = 0
        """Connections so far."""
        self._peer: dict[socket.socket, socket.socket] = {}
        self._waiting: list[tuple[float, int, socket.socket, bytes]] = []
        self._numbers = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5)
        for one in (self._listener, *self._peer):
            one.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._listener, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in ready.select(TICK_S):
                    if key.fileobj is self._listener:
                        self._accept(ready)
                    elif isinstance(key.fileobj, socket.socket):
                        self._read(key.fileobj, ready)
                self._send_due(ready)

    def _accept(self, ready: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        self.accepted += 1
        try:
            server = socket.create_connection(self._target, timeout=1)
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            self._peer[one] = other
            ready.register(one, selectors.EVENT_READ)

    def _read(self, source: socket.socket, ready: selectors.BaseSelector) -> None:
        try:
            piece = source.recv(PIECE)
        except OSError:
            piece = b""
        if not piece:
            self._end(source, ready)
            return
        self._numbers += 1
        heapq.heappush(self._waiting, (time.monotonic() + self.delay_s, self._numbers, self._peer[source], piece))

    def _send_due(self, ready: selectors.BaseSelector) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, _, target, piece = heapq.heappop(self._waiting)
            if target in self._peer:
                try:
                    target.sendall(piece)
                except OSError:
                    self._end(target, ready)

    def _end(self, one: socket.socket, ready: selectors.BaseSelector) -> None:
        """End both halves of a connection."""
        for end in (one, self._peer.get(one)):
            if end is not None and end in self._peer:
                with contextlib.suppress(KeyError):
                    ready.unregister(end)
                del self._peer[end]
                end.close()
