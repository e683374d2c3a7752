"""The protocol that every pump keeps, whatever it is written in."""

from typing import Protocol

from agent.datapath.forwarder import Forwarder


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
