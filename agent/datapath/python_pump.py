"""Moves packets one at a time: one thread, one system call per packet and side.

    poll (tun, udp, stop) → up to 64 packets tun → udp → up to 64 packets udp → tun → poll …

The bound keeps either direction, and `stop`, from starving while the other is busy.
"""

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from agent.datapath.counters import DropReason, PacketCounters
from agent.datapath.forwarder import Forwarder, SendDatagram, WriteToTun
from agent.datapath.tun import DEVICE_IS_GONE, TunDevice

log = logging.getLogger(__name__)

BATCH = 64
"""Packets per direction between two polls."""
ANSWERS_PER_S = 100
"""ICMP answers per node; RFC 1812 §4.3.2.8 asks for a limit."""
STOP_TIMEOUT_S = 5.0


class _DeviceGone(Exception):
    """The TUN device was deleted."""


class TokenBucket:
    """A limit on a rate: `rate_per_s` in the long run, `burst` at once. Time is an argument."""

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        """Start full at `now_s`, on the clock that `take` will use."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._tokens = burst
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Report whether it may happen now; if so, count it."""
        elapsed_s = max(0.0, now_s - self._at_s)
        self._at_s = max(self._at_s, now_s)
        self._tokens = min(self._burst, self._tokens + elapsed_s * self._rate_per_s)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class PythonPump:
    """The pump in pure Python; see `Pump`."""

    def __init__(
        self,
        tun: TunDevice,
        udp: socket.socket,
        forwarder: Forwarder,
        tally: PacketCounters,
        on_failure: Callable[[], None],
    ) -> None:
        """Take `on_failure`, which the pump's thread calls, at most once, when it can no longer move packets."""
        self.forwarder = forwarder
        self._tun = tun.descriptor
        self._udp = udp
        self._tally = tally
        self._on_failure = on_failure
        self._answers = TokenBucket(ANSWERS_PER_S, ANSWERS_PER_S, time.monotonic())
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="pump", daemon=True)

    def start(self) -> None:
        """Begin to move packets. Raises RuntimeError if a thread cannot be started."""
        self._thread.start()

    @property
    def failed(self) -> str | None:
        """Return why packets are no longer moved, or None while they are."""
        if self._failure is None and not self._stopping and self._thread.ident and not self._thread.is_alive():
            return "the pump's thread ended"
        return self._failure

    def stop(self) -> None:
        """Stop moving packets; safe to call twice, and after a failure."""
        if self._stopping:
            return
        self._stopping = True
        os.eventfd_write(self._stop, 1)
        if self._thread.ident and self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT_S)
        os.close(self._stop)

    def _run(self) -> None:
        try:
            self._carry()
        except _DeviceGone:
            self._fail("the overlay device is gone")
        except Exception as error:
            log.exception("pump: unexpected error")
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, why: str) -> None:
        self._failure = why
        self._on_failure()

    def _carry(self) -> None:
        tun, udp, stop = self._tun, self._udp.fileno(), self._stop
        poll = select.poll()
        for descriptor in (tun, udp, stop):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, events in poll.poll():
                if descriptor == stop:
                    return
                if descriptor == tun:
                    if events & ~select.POLLIN:
                        raise _DeviceGone
                    self._carry_out()
                else:
                    if events & ~select.POLLIN:
                        # Reading the pending error clears it; the socket remains usable.
                        self._udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    self._carry_in()

    def _carry_out(self) -> None:
        """Carry up to BATCH packets from the TUN device to peers."""
        forwarder, drops = self.forwarder, self._tally.drops
        size = forwarder.node.overlay_mtu
        packets = octets = 0
        for _ in range(BATCH):
            try:
                packet = os.read(self._tun, size)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in DEVICE_IS_GONE:
                    raise _DeviceGone from error
                drops[DropReason.TUN_READ] += 1
                break
            action = forwarder.from_tun(packet)
            if isinstance(action, SendDatagram):
                try:
                    self._udp.sendto(packet, action.endpoint)
                except OSError:
                    drops[DropReason.UDP_SEND] += 1
                else:
                    packets += 1
                    octets += len(packet)
            elif isinstance(action, WriteToTun):
                self._answer(action)
            else:
                drops[action.reason] += 1
        self._tally.add(tx_packets=packets, tx_bytes=octets)

    def _carry_in(self) -> None:
        """Carry up to BATCH datagrams from peers to the TUN device."""
        forwarder, drops = self.forwarder, self._tally.drops
        size = forwarder.node.overlay_mtu
        packets = octets = 0
        for _ in range(BATCH):
            try:
                # One byte more than allowed, to detect truncation.
                datagram, source = self._udp.recvfrom(size + 1)
            except BlockingIOError:
                break
            except OSError:
                # An error of an earlier datagram, reported late; reading it cleared it.
                continue
            action = forwarder.from_udp(datagram, source, len(datagram) > size)
            if isinstance(action, WriteToTun):
                if self._write(action.packet):
                    packets += 1
                    octets += len(action.packet)
            else:
                drops[action.reason] += 1
        self._tally.add(rx_packets=packets, rx_bytes=octets)

    def _answer(self, action: WriteToTun) -> None:
        if action.answers is not None:
            self._tally.drops[action.answers] += 1
        if self._answers.take(time.monotonic()):
            self._write(action.packet)

    def _write(self, packet: bytes) -> bool:
        try:
            os.write(self._tun, packet)
        except OSError as error:
            if error.errno in DEVICE_IS_GONE:
                raise _DeviceGone from error
            self._tally.drops[DropReason.TUN_WRITE] += 1
            return False
        return True
