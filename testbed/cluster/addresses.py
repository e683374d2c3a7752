"""Assigns underlay addresses to machines. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from testbed.cluster.wiring import Wiring

ROUTER_OFFSET = 1  # of each subnet, if the underlay has several
GATEWAY_OFFSET = 10  # .10 of a /24
FIRST_ETCD_OFFSET = 11
FIRST_NODE_OFFSET = 101
IPV6_UNDERLAY = IPv6Network("fd00:8::/48")
SEGMENT_BITS = 64
"""Prefix length of one segment's IPv6 range."""


class UnderlayFull(Exception):
    """The underlay's range has no address left for a machine."""


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """Every machine's address on the underlay, in the order of creation."""

    gateway: IPv4Address
    etcd: Mapping[str, IPv4Address]
    """etcd1, etcd2, etcd3: the members that the lab runs."""
    nodes: Mapping[str, IPv4Address]
    """In the order of the cluster file."""
    subnets: tuple[IPv4Network, ...] = ()
    """Of each segment of the underlay; gateway and etcd members are in the first."""
    routers: Mapping[str, tuple[IPv4Address, ...]] = field(default_factory=dict)
    """One address per port."""
    ipv6_subnets: tuple[IPv6Network, ...] = ()
    """Of each segment, in the order of `subnets`; empty on an underlay with IPv4 only."""

    def ipv6_of(self, address: IPv4Address) -> IPv6Address | None:
        """Return the IPv6 address of the machine with this IPv4 address: the same digits (.227 → ::227). etcd members
        have none, so that pods cannot reach them by IPv6.
        """
        if not self.ipv6_subnets or address in self.etcd.values():
            return None
        segment = self.subnets.index(self.subnet_of(address))
        number = int(address) - int(self.subnets[segment].network_address)
        return self.ipv6_subnets[segment].network_address + int(str(number), 16)

    def subnet_of(self, address: IPv4Address) -> IPv4Network:
        """Return the underlay subnet of an address. Raises LookupError."""
        found = next((subnet for subnet in self.subnets if address in subnet), None)
        if found is None:
            raise LookupError(address)
        return found


def split(cidr: IPv4Network, segments: int) -> tuple[IPv4Network, ...]:
    """Split the underlay's range into equal parts, one per segment. Raises UnderlayFull if they become too small."""
    more_bits = (segments - 1).bit_length()
    if cidr.prefixlen + more_bits > 30:
        raise UnderlayFull(f"{segments} subnets")
    parts = cidr.subnets(prefixlen_diff=more_bits)
    return tuple(next(parts) for _ in range(segments))


def split_ipv6(cidr: IPv6Network, segments: int) -> tuple[IPv6Network, ...]:
    """Return a /64 for each segment. Raises UnderlayFull if there are not enough."""
    if cidr.prefixlen + (segments - 1).bit_length() > SEGMENT_BITS:
        raise UnderlayFull(f"{segments} IPv6 subnets of /{SEGMENT_BITS}")
    step = 1 << (cidr.max_prefixlen - SEGMENT_BITS)
    return tuple(IPv6Network((int(cidr.network_address) + number * step, SEGMENT_BITS)) for number in range(segments))


def plan_addresses(
    cidr: IPv4Network,
    gateway: IPv4Address | None,
    etcd_members: int,
    nodes: Mapping[str, IPv4Address | None],
    wiring: Wiring | None = None,
    ipv6_cidr: IPv6Network | None = None,
) -> AddressPlan:
    """Fill in the addresses that the cluster file leaves open; addresses in the file are kept and never assigned twice.

    In a /24 the gateway is .10, etcd members start at .11 and nodes at .101; in a smaller range, or if an address is
    taken, the next free one is used. With routers in `wiring` each segment gets its part of the range, with the routers
    first: .1, .2 … Without `wiring` all are in one segment. `ipv6_cidr` gives each segment a /64, and each machine an
    IPv6 address derived from its IPv4 address. Raises UnderlayFull.
    """
    subnets = split(cidr, wiring.segment_count if wiring else 1)
    taken = {address for address in nodes.values() if address is not None}
    if gateway is not None:
        taken.add(gateway)
    routers: dict[str, tuple[IPv4Address, ...]] = {}
    for name in wiring.routers if wiring else ():
        addresses_of_ports = []
        for segment in wiring.ports[name] if wiring else ():
            addresses_of_ports.append(_free(subnets[segment], ROUTER_OFFSET, taken, name))
            taken.add(addresses_of_ports[-1])
        routers[name] = tuple(addresses_of_ports)
    gateway = gateway or _free(subnets[0], GATEWAY_OFFSET, taken, "the gateway")
    taken.add(gateway)
    etcd: dict[str, IPv4Address] = {}
    for number in range(etcd_members):
        name = f"etcd{number + 1}"
        etcd[name] = _free(subnets[0], FIRST_ETCD_OFFSET + number, taken, name)
        taken.add(etcd[name])
    addresses: dict[str, IPv4Address] = {}
    offsets = dict.fromkeys(subnets, FIRST_NODE_OFFSET)
    for name, given in nodes.items():
        subnet = subnets[_segment_of(name, wiring)]
        addresses[name] = given or _free(subnet, offsets[subnet], taken, name)
        if given is None:
            taken.add(addresses[name])
            offsets[subnet] = int(addresses[name]) - int(subnet.network_address) + 1
    ipv6_subnets = () if ipv6_cidr is None else split_ipv6(ipv6_cidr, len(subnets))
    return AddressPlan(gateway, etcd, addresses, subnets, routers, ipv6_subnets)


def with_node(plan: AddressPlan, name: str, given: IPv4Address | None, segment: int) -> AddressPlan:
    """Return the plan with one more node, at its given address or the next free one of the segment.

    Raises UnderlayFull.
    """
    taken = {
        plan.gateway,
        *plan.etcd.values(),
        *plan.nodes.values(),
        *(one for own in plan.routers.values() for one in own),
    }
    address = given or _free(plan.subnets[segment], FIRST_NODE_OFFSET, taken, name)
    return replace(plan, nodes={**plan.nodes, name: address})


def _segment_of(node: str, wiring: Wiring | None) -> int:
    ports = wiring.ports.get(node) if wiring else None
    return ports[0] if ports else 0


def _free(cidr: IPv4Network, offset: int, taken: set[IPv4Address], whose: str) -> IPv4Address:
    """Return the first free host address from `offset` on, else from the range's start. Raises UnderlayFull."""
    last = cidr.num_addresses - 2  # the broadcast address is not a host's
    for candidate in (*range(offset, min(last, offset + len(taken)) + 1), *range(1, min(last, len(taken) + 1) + 1)):
        address = IPv4Address(int(cidr.network_address) + candidate)
        if address not in taken:
            return address
    raise UnderlayFull(whose)
