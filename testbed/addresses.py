"""Who has which address on the underlay, and which node a pod goes to. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

GATEWAY_OFFSET = 10  # .10 of a /24
FIRST_ETCD_OFFSET = 11
FIRST_NODE_OFFSET = 101


class UnderlayFull(Exception):
    """The underlay's range has no address left for a machine."""


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """Every machine's address on the underlay, in the order in which they are made."""

    gateway: IPv4Address
    etcd: Mapping[str, IPv4Address]
    """etcd1, etcd2, etcd3: the members that the lab runs."""
    nodes: Mapping[str, IPv4Address]
    """In the order of the cluster file."""


def plan_addresses(
    cidr: IPv4Network, gateway: IPv4Address | None, etcd_members: int, nodes: Mapping[str, IPv4Address | None]
) -> AddressPlan:
    """Fill in the addresses that the cluster file leaves open; those that it gives are kept and never given twice.

    In a /24 the gateway is .10, etcd members follow from .11 and nodes from .101; in a smaller range, and where an
    address is taken, the next free one. Raises UnderlayFull.
    """
    taken = {address for address in nodes.values() if address is not None}
    gateway = gateway or _free(cidr, GATEWAY_OFFSET, taken, "the gateway")
    taken.add(gateway)
    etcd: dict[str, IPv4Address] = {}
    for number in range(etcd_members):
        name = f"etcd{number + 1}"
        etcd[name] = _free(cidr, FIRST_ETCD_OFFSET + number, taken, name)
        taken.add(etcd[name])
    addresses: dict[str, IPv4Address] = {}
    offset = FIRST_NODE_OFFSET
    for name, given in nodes.items():
        addresses[name] = given or _free(cidr, offset, taken, name)
        if given is None:
            taken.add(addresses[name])
            offset = int(addresses[name]) - int(cidr.network_address) + 1
    return AddressPlan(gateway, etcd, addresses)


def _free(cidr: IPv4Network, offset: int, taken: set[IPv4Address], whose: str) -> IPv4Address:
    """The first free host address from `offset` on, else from the range's start. Raises UnderlayFull."""
    last = cidr.num_addresses - 2  # the broadcast address is nobody's
    for candidate in (*range(offset, min(last, offset + len(taken)) + 1), *range(1, min(last, len(taken) + 1) + 1)):
        address = IPv4Address(int(cidr.network_address) + candidate)
        if address not in taken:
            return address
    raise UnderlayFull(whose)


def choose_nodes(wanted: Iterable[str | None], nodes: Iterable[str]) -> list[str]:
    """The node of every pod: the one it names, else the one with the fewest pods; ties go by the order of `nodes`.

    Pods that name their node count from the start, so that their order does not matter.
    """
    wanted = list(wanted)
    load = dict.fromkeys(nodes, 0)
    for name in wanted:
        if name is not None:
            load[name] = load.get(name, 0) + 1
    chosen: list[str] = []
    for name in wanted:
        node = name if name is not None else min(load, key=load.__getitem__)
        if name is None:
            load[node] += 1
        chosen.append(node)
    return chosen
