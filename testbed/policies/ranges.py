"""Allowed addresses and ports as disjoint ranges, as an nftables interval set requires. Pure."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from agent.kernel.values import Family, IPAddress, IPNetwork
from testbed.policies.world import Protocol

Range = tuple[int, int]
"""First and last."""
PortRange = tuple[Protocol, int, int]
Ports = tuple[PortRange, ...] | None
"""None: everything, including protocols without ports."""
ALL_PORTS = (0, 65535)
LAST: Mapping[Family, int] = {4: 2**32 - 1, 6: 2**128 - 1}


@dataclass(frozen=True, slots=True)
class Grant:
    """Addresses of one family, allowed at these ports."""

    addresses: tuple[Range, ...]
    ports: Ports


@dataclass(frozen=True, slots=True)
class Allowed:
    """The union of one pod's grants; no two elements of a set overlap."""

    whole: frozenset[str]
    """Address ranges allowed at all ports, in nft's syntax."""
    at_ports: frozenset[str]
    """Address range, protocol and port range of what is allowed at some ports."""


def range_of(network: IPNetwork) -> Range:
    """Return first and last address of a network, as numbers."""
    return int(network.network_address), int(network.broadcast_address)


def without(whole: Range, holes: Iterable[Range]) -> tuple[Range, ...]:
    """Return the rest of a range."""
    left, start = [], whole[0]
    for first, last in union(holes):
        if first > start:
            left.append((start, first - 1))
        start = max(start, last + 1)
    return tuple([*left, *([(start, whole[1])] if start <= whole[1] else [])])


def union(ranges: Iterable[Range]) -> list[Range]:
    """Return the same numbers as ranges that neither overlap nor touch, in order."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def allowed(grants: Iterable[Grant], family: Family) -> Allowed:
    """Return the union of grants of one family."""
    whole: list[Range] = []
    by_ports: dict[tuple[PortRange, ...], list[Range]] = {}
    for grant in grants:
        (whole if grant.ports is None else by_ports.setdefault(grant.ports, [])).extend(grant.addresses)
    united = [(ports, union(ranges)) for ports, ranges in by_ports.items()]
    edges = sorted({edge for _, ranges in united for first, last in ranges for edge in (first, last + 1)})
    # Between two edges every address has the same ports.
    found: list[list[PortRange]] = [[] for _ in edges]
    for ports, ranges in united:
        for first, last in ranges:
            for number in range(bisect_left(edges, first), bisect_left(edges, last + 1)):
                found[number] += ports
    at_ports: dict[PortRange, list[Range]] = {}
    for number, several in enumerate(found):
        for one in _disjoint(several):
            at_ports.setdefault(one, []).append((edges[number], edges[number + 1] - 1))
    return Allowed(
        frozenset(_text(one, family) for one in union(whole)),
        frozenset(
            f"{_text(one, family)} . {protocol} . {_port_text(first, last)}"
            for (protocol, first, last), ranges in at_ports.items()
            for one in union(ranges)
        ),
    )


def _disjoint(several: Iterable[PortRange]) -> Iterator[PortRange]:
    by_protocol: dict[Protocol, list[Range]] = {}
    for protocol, first, last in several:
        by_protocol.setdefault(protocol, []).append((first, last))
    for protocol, ranges in by_protocol.items():
        yield from ((protocol, *one) for one in union(ranges))


def _text(addresses: Range, family: Family) -> str:
    first, last = (_address(number, family) for number in addresses)
    return str(first) if first == last else f"{first}-{last}"


def _address(number: int, family: Family) -> IPAddress:
    return IPv4Address(number) if family == 4 else IPv6Address(number)


def _port_text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
