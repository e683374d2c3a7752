"""Moves packets in bulk with the native data path: two threads, in C and without the GIL, until stopped.

Decisions are forwarder.py's: whenever its node or table changes, C gets a copy, and it applies the same rules.
"""

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from agent.datapath.counters import Counters, PacketCounters
from agent.datapath.forwarder import Forwarder
from agent.datapath.native.library import native_library
from agent.datapath.offloads import switch_on
from agent.datapath.tun import TunDevice

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 5.0


class NativePump:
    """The fast pump; see `Pump`."""

    def __init__(
        self,
        tun: TunDevice,
        udp: socket.socket,
        forwarder: Forwarder,
        tally: PacketCounters,
        on_failure: Callable[[], None],
    ) -> None:
        """Take `on_failure`, which a thread of the pump calls, at most once, when it can no longer move packets.

        Raises EnvironmentMissing when the native data path is not compiled, OSError when descriptors or memory run
        out.
        """
        self._library = native_library()
        self._forwarder = forwarder
        self._tally = tally
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._stopping = False
        self.offloads = switch_on(tun.descriptor, tun.vnet_header, udp)
        if missing := self.offloads.missing():
            log.warning("native data path: slower, this kernel lacks %s", ", ".join(missing))
        self._pump = self._library.pump(tun.descriptor, udp.fileno(), self.offloads, forwarder)
        tally.attach(self._counters)
        work = {"pump-mover": self._library.c.native_pump_move, "pump-helper": self._library.c.native_pump_help}
        self._threads = [
            threading.Thread(target=self._run, args=(function,), name=name, daemon=True)
            for name, function in work.items()
        ]

    @property
    def forwarder(self) -> Forwarder:
        """Return the forwarder. Another may be set at any time without stopping traffic; the old one is then unused."""
        return self._forwarder

    @forwarder.setter
    def forwarder(self, forwarder: Forwarder) -> None:
        with self._lock:
            self._forwarder = forwarder
            if self._pump is not None:
                self._library.c.native_pump_replace(self._pump, self._library.rules(forwarder))

    def start(self) -> None:
        """Begin to move packets. Raises RuntimeError if a thread cannot be started."""
        for thread in self._threads:
            thread.start()

    @property
    def failed(self) -> str | None:
        """Return why packets are no longer moved, or None while they are."""
        return self._failure

    def stop(self) -> None:
        """Stop moving packets; safe to call twice, and after a failure."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        self._library.c.native_pump_stop(self._pump)
        for thread in self._threads:
            if thread.ident and thread is not threading.current_thread():
                thread.join(STOP_TIMEOUT_S)
        self._tally.detach()
        if any(thread.is_alive() for thread in self._threads):
            # Keep its memory: a thread that still runs uses it.
            log.error("native data path: a thread did not stop within %g s", STOP_TIMEOUT_S)
            return
        with self._lock:
            self._library.c.native_pump_free(self._pump)
            self._pump = None

    def _counters(self) -> Counters:
        return self._library.counters(self._pump)

    def _run(self, work: Callable[[Any], int]) -> None:
        """Run a thread of the pump; the call into C returns only at its end."""
        code = work(self._pump)
        if code == 0:
            return
        with self._lock:
            first = self._failure is None and not self._stopping
            if first:
                gone = code in (errno.EBADFD, errno.EBADF)
                self._failure = "the overlay device is gone" if gone else f"the pump failed: {os.strerror(code)}"
        if first:
            # One thread alone is useless.
            self._library.c.native_pump_stop(self._pump)
            self._on_failure()
