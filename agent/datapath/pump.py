"""What every mover of packets keeps, whatever it is written in."""

from typing import Protocol

from agent.backends.base import Counters
from agent.datapath.drops import DropReason
from agent.datapath.forwarder import Forwarder


class Tally:
    """Counts what one node moved and dropped; outlives the pump, so that the numbers only ever grow.

    Written by the pump's thread, read by any.
    """

    def __init__(self) -> None:
        self._moved = (0, 0, 0, 0)
        self.drops: dict[DropReason, int] = dict.fromkeys(DropReason, 0)

    def add(self, tx_packets: int = 0, tx_bytes: int = 0, rx_packets: int = 0, rx_bytes: int = 0) -> None:
        """Count packets that were moved."""
        a, b, c, d = self._moved
        # One assignment, so that a reader never sees packets without their bytes.
        self._moved = (a + tx_packets, b + tx_bytes, c + rx_packets, d + rx_bytes)

    def snapshot(self) -> Counters:
        """A consistent copy."""
        drops = {reason.value: count for reason, count in self.drops.items()}
        return Counters(*self._moved, drops=drops)


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
