"""Checks whether every node's forwarding table equals etcd's leases; for agents that report none, the kernel's."""

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

from agent.errors import NetlinkError
from agent.lease import Lease, Subnet
from testbed.errors import EtcdFailed
from testbed.lab.kernel_forwarding import Passage, passages, read_tables
from testbed.lab.node import LabNode
from testbed.lab.registry import LabRegistry

ASKERS = 4
"""Agents queried at the same time."""


def missing_forwarding(known: Iterable[LabNode], registry: LabRegistry) -> list[str]:
    """Return how nodes' forwarding tables differ from etcd's leases, one line per node; empty if they agree."""
    try:
        leases = registry.leases()
    except EtcdFailed as failure:
        return [f"etcd: {failure}"]
    by_address = {lease.attrs.public_ip: lease.subnet for lease in leases}
    holders = holders_of(leases)
    nodes = [node for node in known if node.expected]
    with ThreadPoolExecutor(ASKERS, "ask agent") as askers:
        states = list(askers.map(lambda node: node.state(), nodes))
    problems: list[str | None] = []
    for node, state in zip(nodes, states, strict=True):
        if not node.runs_our_agent:
            problems += problems_in_kernel(node, leases)
        elif state is not None:
            table = {str(entry["subnet"]): host_of(entry["via"]) for entry in state["forwarding"]}
            wanted = wanted_of(node.address, by_address)
            problems.append(difference(node.name, wanted, table) or misdirection(node.name, table, holders))
    return [problem for problem in problems if problem is not None]


def seen_in_kernel(node: LabNode, leases: Iterable[Lease]) -> list[Passage]:
    """Return what the node's kernel does with packets for each other node's subnets. Raises NetlinkError."""
    others = [lease.subnet for lease in leases if lease.attrs.public_ip != node.address]
    subnets = [part for subnet in others for part in (subnet.ipv4, subnet.ipv6) if part is not None]
    return passages(subnets, read_tables(node.kernel))


def problems_in_kernel(node: LabNode, leases: Collection[Lease]) -> list[str]:
    """Describe each other node's subnet that the node's kernel does not send to its holder."""
    try:
        seen = seen_in_kernel(node, leases)
    except NetlinkError as failure:
        return [f"{node.name}'s kernel: {failure}"]
    table = {passage.subnet: passage.via for passage in seen if passage.via is not None}
    wrong = misdirection(node.name, table, holders_of(leases))
    missing = [f"{node.name}'s kernel has {passage.problem}" for passage in seen if passage.problem is not None]
    return missing if wrong is None else [*missing, wrong]


def wanted_of(address: IPv4Address, leases: Mapping[IPv4Address, Subnet]) -> frozenset[str]:
    """Return the subnets that the node at `address` must have entries for: those of all others, by public address.

    Pure.
    """
    others = [subnet for public_ip, subnet in leases.items() if public_ip != address]
    return frozenset(str(part) for subnet in others for part in (subnet.ipv4, subnet.ipv6) if part is not None)


def difference(node: str, wanted: Collection[str], known: Collection[str]) -> str | None:
    """Describe what is missing and unexpected in the node's table; None if it is right. Pure."""
    if set(wanted) == set(known):
        return None
    missing, unexpected = sorted(set(wanted) - set(known)), sorted(set(known) - set(wanted))
    parts = [("missing", missing), ("unexpected", unexpected)]
    return f"{node}'s forwarding table: " + "; ".join(f"{what} {', '.join(some)}" for what, some in parts if some)


def holders_of(leases: Iterable[Lease]) -> dict[str, frozenset[str]]:
    """Return where packets to each subnet may be sent: one tunnel may carry both families. Pure."""
    found: dict[str, frozenset[str]] = {}
    for lease in leases:
        addresses = frozenset(str(one) for one in (lease.attrs.public_ip, lease.attrs.public_ipv6) if one is not None)
        found |= {str(part): addresses for part in (lease.subnet.ipv4, lease.subnet.ipv6) if part is not None}
    return found


def misdirection(node: str, table: Mapping[str, str], holders: Mapping[str, Collection[str]]) -> str | None:
    """Describe entries that lead to a node that does not hold the subnet; None if all are right. Pure."""
    wrong = [
        f"{subnet} to {to} instead of {' or '.join(sorted(holders[subnet]))}"
        for subnet, to in table.items()
        if to not in holders.get(subnet, (to,))
    ]
    return f"{node}'s forwarding table sends {', '.join(wrong)}" if wrong else None


def host_of(via: str) -> str:
    """Return the address of an entry's next hop: of `192.168.8.228:8285`, `[fd00:8::228]:8472`, or an address alone."""
    if via.startswith("["):
        return via[1:].partition("]")[0]
    return via.partition(":")[0] if via.count(":") == 1 else via
