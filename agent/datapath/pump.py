"""What every mover of packets keeps, whatever it is written in."""

import threading
from collections.abc import Callable
from typing import Protocol

from agent.backends.base import Counters
from agent.datapath.drops import DropReason
from agent.datapath.forwarder import Forwarder


class Tally:
    """Counts what one node moved and dropped; outlives the pump, so that the numbers only ever grow.

    Written by the pump's thread, read by any. A pump that counts by itself attaches its own counters instead.
    """

    def __init__(self) -> None:
        self._moved = (0, 0, 0, 0)
        self.drops: dict[DropReason, int] = dict.fromkeys(DropReason, 0)
        self._attached: Callable[[], Counters] | None = None
        self._lock = threading.Lock()

    def add(self, tx_packets: int = 0, tx_bytes: int = 0, rx_packets: int = 0, rx_bytes: int = 0) -> None:
        """Count packets that were moved."""
        a, b, c, d = self._moved
        # One assignment, so that a reader never sees packets without their bytes.
        self._moved = (a + tx_packets, b + tx_bytes, c + rx_packets, d + rx_bytes)

    def attach(self, counters: Callable[[], Counters]) -> None:
        """Add what `counters` says to every snapshot, until `detach`."""
        with self._lock:
            self._attached = counters

    def detach(self) -> None:
        """Keep what the attached counters say now, and ask them no more."""
        with self._lock:
            if self._attached is None:
                return
            last = self._attached()
            self._attached = None
            self.add(last.tx_packets, last.tx_bytes, last.rx_packets, last.rx_bytes)
            for reason in DropReason:
                self.drops[reason] += last.drops[reason]

    def snapshot(self) -> Counters:
        """A consistent copy."""
        with self._lock:
            more = Counters() if self._attached is None else self._attached()
            tx_packets, tx_bytes, rx_packets, rx_bytes = self._moved
            drops = {reason.value: count + more.drops.get(reason, 0) for reason, count in self.drops.items()}
        return Counters(
            tx_packets + more.tx_packets,
            tx_bytes + more.tx_bytes,
            rx_packets + more.rx_packets,
            rx_bytes + more.rx_bytes,
            drops,
        )


class Pump(Protocol):
    """Moves packets between a TUN device and a UDP socket. Owns neither: who opened them closes them after `stop`."""

    forwarder: Forwarder
    """Decides; may be replaced at any time without stopping traffic."""

    def start(self) -> None:
        """Begin to move packets."""

    @property
    def failed(self) -> str | None:
        """Why packets are no longer moved, or None while they are."""

    def stop(self) -> None:
        """Stop moving packets; safe to call twice, and after a failure."""
