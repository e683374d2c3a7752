"""The alloc backend: a subnet for every node and nothing else; somebody else carries the packets."""

from collections.abc import Callable, Iterable

from agent.backends.base import ForwardingEntry, Underlay
from agent.lease import Lease, LeaseAttrs


class AllocBackend:
    """See `Backend`; it changes nothing in the kernel."""

    def __init__(self, underlay: Underlay) -> None:
        self.device: str | None = None
        self.on_trouble: Callable[[], None] = lambda: None
        self.overlay_mtu = underlay.mtu
        self.datapath = "none"
        self._underlay = underlay

    def lease_attrs(self) -> LeaseAttrs:
        """What this node publishes; flannel leaves the type out for alloc."""
        return LeaseAttrs(public_ip=self._underlay.public_ip)

    def start(self, lease: Lease) -> None:
        """Nothing."""

    def set_peers(self, peers: Iterable[Lease]) -> None:
        """Nothing."""

    def converge(self) -> None:
        """Nothing."""

    def fence(self) -> None:
        """Nothing."""

    def forwarding_table(self) -> tuple[ForwardingEntry, ...]:
        """Always empty."""
        return ()

    def counters(self) -> None:
        """Nobody counts."""
        return

    def stop(self, *, for_good: bool = True) -> None:
        """Nothing."""
