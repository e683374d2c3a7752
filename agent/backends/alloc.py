"""The alloc backend: a subnet for every node and nothing else; another program carries the packets."""

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
        """Return what this node publishes; flannel omits the type for alloc."""
        return LeaseAttrs(public_ip=self._underlay.public_ip)

    def start(self, lease: Lease) -> None:
        """Do nothing."""

    def set_peers(self, peers: Iterable[Lease]) -> None:
        """Do nothing."""

    def converge(self) -> None:
        """Do nothing."""

    def converge_rules(self) -> None:
        """Do nothing: it has no rules of its own."""

    def fence(self) -> None:
        """Do nothing."""

    def forwarding_table(self) -> tuple[ForwardingEntry, ...]:
        """Return an empty table."""
        return ()

    def counters(self) -> None:
        """Return None: nothing is counted."""
        return

    def stop(self, *, for_good: bool = True) -> None:
        """Do nothing."""
