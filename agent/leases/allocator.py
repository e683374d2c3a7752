"""Which subnet to ask for: flannel's rule, counted in slots instead of walked. Pure.

flannel walks from SubnetMin in steps of one subnet, collects the first 100 that overlap no lease and picks one of them
at random (`pkg/subnet/etcd/local_manager.go: allocateSubnet`). Here the leases become sorted intervals of slot numbers,
so a /8 with thousands of leases costs no more than sorting them. Randomness is a hash of the node's address and the
subnet (rendezvous hashing): as even as flannel's choice, but a node that returns after its lease expired, with an empty
disk, asks for its old subnet if that is free.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from typing import TypeVar

from agent.errors import NoFreeSubnet
from agent.lease import Subnet
from agent.netconfig.config import NetworkConfig

T = TypeVar("T", IPv4Network, IPv6Network)

CANDIDATES = 100
"""How many free subnets are candidates; flannel's number."""


@dataclass(frozen=True, slots=True)
class FreeCount:
    """How many subnets of the network are free."""

    free: int
    total: int


def choose_subnet(config: NetworkConfig, taken: Iterable[Subnet], node: str) -> Subnet:
    """Choose a subnet that overlaps none of `taken`, one of the first 100 free ones; each family separately.

    `node` names the node: nodes spread evenly over the free subnets, and each prefers the same one every time. Raises
    NoFreeSubnet with the number of free subnets.
    """
    taken = tuple(taken)
    ipv4 = _draw(_ipv4_slots(config), _believed(config.network, (subnet.ipv4 for subnet in taken)), node)
    if config.ipv6_network is None:
        return Subnet(IPv4Network((ipv4, config.subnet_len)))
    ipv6 = _draw(_ipv6_slots(config), _believed(config.ipv6_network, (subnet.ipv6 for subnet in taken)), node)
    return Subnet(IPv4Network((ipv4, config.subnet_len)), IPv6Network((ipv6, config.ipv6_subnet_len or 0)))


def count_free(config: NetworkConfig, taken: Iterable[Subnet]) -> FreeCount:
    """Count the free IPv4 subnets between SubnetMin and SubnetMax, and all of them."""
    slots = _ipv4_slots(config)
    claims = _believed(config.network, (subnet.ipv4 for subnet in taken))
    held = sum(last - first + 1 for first, last in _held(slots, claims))
    return FreeCount(slots.total - held, slots.total)


def obstacle(config: NetworkConfig, previous: Subnet, taken: Iterable[Subnet]) -> str | None:
    """Return why the node's previous subnet cannot be its own again."""
    if not config.allows(previous):
        return f"does not fit the network config (/{config.subnet_len} in {config.network})"
    holder = next((subnet for subnet in taken if _hold_one_address(config, subnet, previous)), None)
    return None if holder is None else f"{holder} belongs to another node"


@dataclass(frozen=True, slots=True)
class _Slots:
    """The subnets that may be leased, numbered from 0."""

    first_address: int
    size: int
    total: int


def _ipv4_slots(config: NetworkConfig) -> _Slots:
    size = 1 << (32 - config.subnet_len)
    first, last = int(config.subnet_min), int(config.subnet_max)
    return _Slots(first, size, (last - first) // size + 1)


def _ipv6_slots(config: NetworkConfig) -> _Slots:
    size = 1 << (128 - (config.ipv6_subnet_len or 0))
    first, last = int(config.ipv6_subnet_min or 0), int(config.ipv6_subnet_max or 0)
    return _Slots(first, size, (last - first) // size + 1)


def _believed(network: T, claims: Iterable[T | None]) -> list[T]:
    """Ignore claims on the whole network or more: no agent of this network makes them, they would only block it."""
    return [claim for claim in claims if claim is not None and not network.subnet_of(claim)]


def _hold_one_address(config: NetworkConfig, claim: Subnet, previous: Subnet) -> bool:
    """Report whether the two share an address, in a family in which the claim is believed."""
    if any(ipv4.overlaps(previous.ipv4) for ipv4 in _believed(config.network, [claim.ipv4])):
        return True
    if config.ipv6_network is None or previous.ipv6 is None:
        return False
    return any(ipv6.overlaps(previous.ipv6) for ipv6 in _believed(config.ipv6_network, [claim.ipv6]))


def _draw(slots: _Slots, taken: Iterable[IPv4Network | IPv6Network], node: str) -> int:
    candidates = list(islice(_free(slots, taken), CANDIDATES))
    if not candidates:
        raise NoFreeSubnet(f"0 of {slots.total} subnets are free")
    addresses = [slots.first_address + slot * slots.size for slot in candidates]
    return max(addresses, key=lambda address: hashlib.blake2b(f"{node} {address}".encode(), digest_size=16).digest())


def _free(slots: _Slots, taken: Iterable[IPv4Network | IPv6Network]) -> Iterator[int]:
    """Yield numbers of free slots, ascending."""
    next_slot = 0
    for first, last in _held(slots, taken):
        yield from range(next_slot, first)
        next_slot = last + 1
    yield from range(next_slot, slots.total)


def _held(slots: _Slots, taken: Iterable[IPv4Network | IPv6Network]) -> Iterator[tuple[int, int]]:
    """Yield intervals of held slots, ascending, disjoint."""
    intervals = sorted(
        (
            (int(network.network_address) - slots.first_address) // slots.size,
            (int(network.broadcast_address) - slots.first_address) // slots.size,
        )
        for network in taken
    )
    beyond = 0
    for first, last in intervals:
        first, last = max(first, beyond), min(last, slots.total - 1)
        if first <= last:
            yield first, last
            beyond = last + 1
