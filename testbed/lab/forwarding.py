"""Whether every node's forwarding table equals etcd's leases."""

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

from agent.lease import Lease, Subnet
from testbed.errors import EtcdFailed
from testbed.lab.node import LabNode
from testbed.lab.registry import LabRegistry

ASKERS = 4
"""Agents that are asked at the same time."""


def missing_forwarding(known: Iterable[LabNode], registry: LabRegistry) -> list[str]:
    """Return how nodes' forwarding tables differ from etcd's leases, a line per node; empty when they agree."""
    try:
        leases = registry.leases()
    except EtcdFailed as failure:
        return [f"etcd: {failure}"]
    by_address = {lease.attrs.public_ip: lease.subnet for lease in leases}
    holders = holders_of(leases)
    nodes = [node for node in known if node.expected]
    with ThreadPoolExecutor(ASKERS, "ask agent") as askers:
        states = list(askers.map(lambda node: node.state(), nodes))
    problems = []
    for node, state in zip(nodes, states, strict=True):
        if state is not None:
            table = {str(entry["subnet"]): host_of(entry["via"]) for entry in state["forwarding"]}
            wanted = wanted_of(node.address, by_address)
            problems.append(difference(node.name, wanted, table) or misdirection(node.name, table, holders))
    return [problem for problem in problems if problem is not None]


def wanted_of(address: IPv4Address, leases: Mapping[IPv4Address, Subnet]) -> frozenset[str]:
    """The subnets that the node at `address` must know a way to: those of all others, by public address. Pure."""
    others = [subnet for public_ip, subnet in leases.items() if public_ip != address]
    return frozenset(str(part) for subnet in others for part in (subnet.ipv4, subnet.ipv6) if part is not None)


def difference(node: str, wanted: Collection[str], known: Collection[str]) -> str | None:
    """What the node's table lacks and has too much, in words; None when it is as it should be. Pure."""
    if set(wanted) == set(known):
        return None
    lacking = ", ".join(sorted(set(wanted) - set(known))) or "nothing"
    surplus = ", ".join(sorted(set(known) - set(wanted))) or "nothing"
    return f"{node}'s forwarding table lacks {lacking} and has {surplus} too much"


def holders_of(leases: Iterable[Lease]) -> dict[str, frozenset[str]]:
    """Where packets to each subnet may be sent: one tunnel may carry both families. Pure."""
    found: dict[str, frozenset[str]] = {}
    for lease in leases:
        addresses = frozenset(str(one) for one in (lease.attrs.public_ip, lease.attrs.public_ipv6) if one is not None)
        found |= {str(part): addresses for part in (lease.subnet.ipv4, lease.subnet.ipv6) if part is not None}
    return found


def misdirection(node: str, table: Mapping[str, str], holders: Mapping[str, Collection[str]]) -> str | None:
    """Which entries lead to a node that does not hold the subnet, in words; None when all are right. Pure."""
    wrong = [
        f"{subnet} to {to} instead of {' or '.join(sorted(holders[subnet]))}"
        for subnet, to in table.items()
        if to not in holders.get(subnet, (to,))
    ]
    return f"{node}'s forwarding table sends {', '.join(wrong)}" if wrong else None


def host_of(via: str) -> str:
    """The address of an entry's way: of `192.168.8.228:8285`, `[fd00:8::228]:8472`, or an address alone."""
    if via.startswith("["):
        return via[1:].partition("]")[0]
    return via.partition(":")[0] if via.count(":") == 1 else via
