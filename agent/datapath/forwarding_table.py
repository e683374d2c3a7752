"""Which node holds which part of the pod network: destination → tunnel endpoint, and endpoint → its subnets. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from typing import NamedTuple

from agent.lease import Lease


class TunnelEndpoint(NamedTuple):
    """A peer's outer address as `sendto` takes it and `recvfrom` returns it, so that no packet needs a conversion."""

    ip: str
    """Dotted quad."""
    port: int


class ForwardingTable:
    """Immutable; a change is a new table. The longest prefix wins, so subnets may be nested."""

    __slots__ = ("_by_length", "_entries", "_subnets")

    def __init__(self, entries: Mapping[IPv4Network, TunnelEndpoint]) -> None:
        # By number: comparing networks takes a microsecond each, and each change builds a table.
        numbered = sorted(
            (int(subnet.network_address), int(subnet.netmask), subnet, endpoint) for subnet, endpoint in entries.items()
        )
        self._entries = tuple((subnet, endpoint) for _, _, subnet, endpoint in numbered)
        by_mask: dict[int, dict[int, TunnelEndpoint]] = {}
        subnets: dict[tuple[str, int], tuple[tuple[int, int], ...]] = {}
        for network, mask, _, endpoint in numbered:
            by_mask.setdefault(mask, {})[network] = endpoint
            subnets[endpoint] = (*subnets.get(endpoint, ()), (network, mask))
        self._by_length = tuple(sorted(by_mask.items(), reverse=True))
        self._subnets = subnets

    @classmethod
    def from_leases(cls, leases: Iterable[Lease], port: int) -> "ForwardingTable":
        """Route every lease's subnet via its public IP and the nodes' common port; the newer of two claims wins."""
        ordered = sorted(leases, key=lambda lease: lease.mod_revision)
        return cls({lease.subnet.ipv4: TunnelEndpoint(str(lease.attrs.public_ip), port) for lease in ordered})

    def lookup(self, destination: int) -> TunnelEndpoint | None:
        """Return the node that holds the longest matching subnet."""
        for mask, endpoints in self._by_length:
            endpoint = endpoints.get(destination & mask)
            if endpoint is not None:
                return endpoint
        return None

    def numbers(self) -> Iterator[tuple[int, int, TunnelEndpoint]]:
        """Yield (network, netmask, endpoint) of every subnet, as numbers."""
        for mask, endpoints in self._by_length:
            for network, endpoint in endpoints.items():
                yield network, mask, endpoint

    def subnets_of(self, source: tuple[str, int]) -> tuple[tuple[int, int], ...] | None:
        """Return (network, netmask) of each subnet of the peer with this outer address and port; None for
        a stranger.
        """
        return self._subnets.get(source)

    def __iter__(self) -> Iterator[tuple[IPv4Network, TunnelEndpoint]]:
        """Yield (subnet, endpoint), sorted by subnet."""
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ForwardingTable) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self._entries)
